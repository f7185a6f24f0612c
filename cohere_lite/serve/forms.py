"""A multipart body -> the file, on the disk if it is large, and the fields. Clients send the file first or last, and
lists as `name[]`, as a name that is repeated, or as JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import BinaryIO, NamedTuple, cast

import python_multipart  # noqa: F401  # which Starlette would miss at the first upload only
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from ..errors import OptionError

_FIELD_BYTES = 1 << 10  # of a field but the file; ours are shorter, and of others no more is kept


class Form(NamedTuple):
    """file: at its beginning, to be closed;  fields: in their order"""

    file: BinaryIO
    fields: list[tuple[str, str]]

    def one(self, name: str) -> str | None:
        """The last value of a field, None if it is not there or empty."""
        return next((value for key, value in reversed(self.fields) if key == name and value), None)

    def many(self, name: str) -> list[str]:
        """The values of a list."""
        found: list[str] = []
        for value in (value for key, value in self.fields if key in (name, f"{name}[]")):
            items: object = value
            with suppress(ValueError, RecursionError):
                items = json.loads(value)
            found += map(str, items) if isinstance(items, list) else [value]
        return found


async def read_form(headers: Headers, body: AsyncGenerator[bytes, None]) -> Form:
    """Raises OptionError for a body that is no form with a file, and what `body` raises."""
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise OptionError("the body must be multipart/form-data, with the recording as its field 'file'")
    parser = _Parser(headers, body, max_files=4, max_fields=1000)
    kept: BinaryIO | None = None
    try:
        form = await parser.parse()
        files = [item for name, item in form.multi_items() if isinstance(item, UploadFile) and name == "file"]
        if files:
            kept = cast(BinaryIO, files[0].file)
    except MultiPartException as error:
        raise OptionError(f"the multipart body cannot be read: {error.message}") from error
    except (ValueError, KeyError, UnicodeError) as error:  # a boundary or headers that make no sense
        raise OptionError(f"the multipart body cannot be read: {error}") from error
    finally:  # also of parts that never ended
        for file in parser._files_to_close_on_error:
            if file is not kept:
                file.close()
    if kept is None:
        raise OptionError("there is no file: the body has no complete part named 'file' with a filename")
    return Form(kept, [(name, item) for name, item in form.multi_items() if isinstance(item, str)])


class _Parser(MultiPartParser):
    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Of Starlette, which would refuse a form with a long field."""
        if self._current_part.file is None:
            end = min(end, start + _FIELD_BYTES - len(self._current_part.data))
        super().on_part_data(data, start, end)
