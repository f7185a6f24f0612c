"""A file or a pipe, read as its bytes come."""

from __future__ import annotations

import inspect
import io
import os
import select
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

_POLL_S = 0.05  # until a file that does not block is read again
ASYNC_READ = "expected a binary file, not one whose read is asynchronous: pass the bytes, await read()"


class Reader:
    """A file that takes back what was read of it. is_socket: whoever sends may keep it open and wait for an answer."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.ahead, self._drained = file, b"", False
        self.is_socket = False
        with suppress(AttributeError, OSError):
            self.is_socket = stat.S_ISSOCK(os.fstat(file.fileno()).st_mode)

    def some(self, count: int, pauses: bool = False) -> bytes | None:
        """As read_some; pauses: gives None for them, of any pipe."""
        if not self.ahead:
            part = read_some(self.file, count, pauses and self._drained)
            self._drained = part is None or len(part) < count
            return part
        part, self.ahead = self.ahead[:count], self.ahead[count:]
        return part

    def exactly(self, count: int) -> bytes:
        """count bytes, fewer only at the end of the file."""
        parts = []
        while count > 0 and (part := self.some(count)) != b"":
            parts.append(part or b"")
            count -= len(parts[-1])
        return b"".join(parts)

    def peek(self, count: int) -> bytes:
        """As exactly; they will be read again."""
        self.put_back(part := self.exactly(count))
        return part

    def put_back(self, part: bytes) -> None:
        """These bytes are read next."""
        self.ahead = part + self.ahead


def bytes_left(file: BinaryIO) -> int | None:
    """How many bytes follow; None for a pipe."""
    try:
        here = file.tell()
        end = file.seek(0, 2)
        file.seek(here)
        return end - here
    except (OSError, AttributeError, TypeError, ValueError):  # codecs.open's seek returns None, fsspec's raises others
        return None


def read_some(file: BinaryIO, count: int, drained: bool = False) -> bytes | None:
    """1 to count bytes, as soon as there are any; b"" at the end only. Does not wait for a full buffer: of a live
    recording it may be seconds away. None where nothing has come for 0.05 s: of a file that does not block; and of any
    pipe, if it is drained (the last read gave less than was asked for, so that its buffer is empty)."""
    if drained and isinstance(getattr(file, "raw", file), io.FileIO) and hasattr(select, "poll") and not _comes(file):
        return None
    try:
        part = _read_bytes(getattr(file, "read1", file.read), count)
    except AttributeError:  # tempfile.SpooledTemporaryFile hands read1 on to files that have none
        part = _read_bytes(file.read, count)
    if part:
        return part
    # The end; or nothing yet, of a file that does not block. read1 of a buffered one gives b"" for both, read does not.
    if (part := _read_bytes(file.read, 1)) is None:
        _comes(file)
    return part


def _read_bytes(read: Callable[[int], object], count: int) -> bytes | None:
    try:
        part = read(count)
    except UnicodeDecodeError:
        part = ""
    if isinstance(part, str):
        raise TypeError("expected a binary file: open it with mode 'rb'")
    if inspect.iscoroutine(part):
        part.close()
        raise TypeError(ASYNC_READ)
    return part if part is None else bytes(part)  # type: ignore[call-overload]  # bytearray and memoryview, too


def _comes(file: BinaryIO) -> bool:
    """Waits, for 0.05 s at most, until there is something to read."""
    try:
        # Not select: it takes no descriptor from 1024 on, and on Windows, where there is no poll, sockets only.
        poll = select.poll()
        poll.register(file.fileno(), select.POLLIN)
        return bool(poll.poll(_POLL_S * 1000))
    except (AttributeError, OSError):  # no poll, or no descriptor
        time.sleep(_POLL_S)
        return True
