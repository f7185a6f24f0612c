"""What a failed download left in place of a file: the hub's messages, HTML pages, Git LFS pointers."""

from pathlib import Path

from ..errors import ModelError

# First bytes (lower case) of what a failed download leaves behind, and what to call it.
_NOT_DOWNLOADED = {
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull replaces it by the file)",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"entry not found": "the hub's message that there is no such file",
    b"repository not found": "the hub's message that there is no such repository",
    b"invalid username or password": "the hub's message that there is no such repository, or a private one",
    b"access to model": "the hub's message that the repository is gated",
}


def refuse_failed_download(path: Path, expected: str) -> None:
    """Raises ModelError if `path` holds what a failed download left.  expected: what it should be, for the message."""
    with open(path, "rb") as file:
        found = failed_download(file.read(256))
    if found:
        size = path.stat().st_size
        raise ModelError(f"{path}: not {expected}, but {found}, {size} bytes: a failed download; fetch it again")


def failed_download(start: bytes) -> str | None:
    """What a failed download left, by the first bytes of the file (up to 256); None: the file is something else."""
    start = start.lstrip().lower()
    return next((found for beginning, found in _NOT_DOWNLOADED.items() if start.startswith(beginning)), None)
