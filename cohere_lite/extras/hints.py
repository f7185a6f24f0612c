"""What would work instead of a path that cannot be opened."""

import os
import re

# By how the path begins.
_INSTEAD = {
    "~": "only shells know ~; use os.path.expanduser",
    "file:/": "pass the path alone, without file://",
    "[a-z][a-z0-9+.-]+:/": "this is an address; download the file and pass its path",  # but C:/ is a drive
}


def path_hint(path: str, message: str | None) -> str | None:
    """The system's message, "Is a directory", with a hint: "Is a directory (pass the files that are in it)"; as it is
    where there is nothing to add."""
    hints = (hint for pattern, hint in _INSTEAD.items() if re.match(pattern, path, re.IGNORECASE))
    hint = "pass the files that are in it" if os.path.isdir(path) else next(hints, None)
    return f"{message} ({hint})" if hint else message
