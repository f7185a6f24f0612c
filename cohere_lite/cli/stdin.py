"""A pipe, read ahead in a thread: whoever records into it must not wait for the recogniser.

A pipe holds 64 KiB, two seconds of speech. While a phrase is decoded, a recorder that can write no more loses sound.
"""

from __future__ import annotations

import io
from collections import deque
from math import inf
from threading import Condition, Thread
from time import monotonic
from typing import BinaryIO

from ..reader import read_some

_READ_SOME_BYTES = 1 << 16
_MAX_AHEAD_BYTES = 1 << 25  # 17 minutes of 16-bit mono at 16 kHz; more than that waits in the pipe
# Ctrl-C also reaches the recorder, which then writes what it still has.
_LAST_WORDS_S = 0.5
# On Windows, Ctrl-C does not get through to a thread that waits without end.
_WAIT_S = 0.1


class ReadAhead(io.RawIOBase):
    """A binary file that cannot seek; `end` ends it early, as Ctrl-C ends a live recording."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file
        self._blocks: deque[bytes] = deque()
        self._n_bytes = 0
        self._ended = False  # nothing more will be read from the file
        self._error: BaseException | None = None
        self._deadline = inf
        self._changed = Condition()
        # daemon: a read that never returns must not keep the process alive
        Thread(target=self._fill, daemon=True).start()

    def readable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """Of the file that is read ahead, which may be a socket."""
        return self._file.fileno()

    def readinto(self, into: memoryview) -> int | None:  # type: ignore[override]
        """What is there, as soon as there is something; None if there is nothing for 0.1 s, 0 at the end. Raises the
        error that reading met."""
        with self._changed:
            if not self._blocks and not self._ended:
                self._changed.wait(_WAIT_S)
            if not self._blocks:
                if self._error:
                    raise self._error
                return 0 if self._ended or monotonic() > self._deadline else None
            block = self._blocks.popleft()
            count = min(len(block), len(into))
            into[:count] = block[:count]
            if count < len(block):
                self._blocks.appendleft(block[count:])
            self._n_bytes -= count
            self._changed.notify_all()
            return count

    def end(self) -> None:
        """Ends the file after what has been written already and what follows at once. Takes no lock, so that a signal
        handler may call it."""
        self._deadline = monotonic() + _LAST_WORDS_S

    def _fill(self) -> None:
        try:
            while (block := read_some(self._file, _READ_SOME_BYTES)) != b"" and monotonic() < self._deadline:
                if not block:
                    continue
                with self._changed:
                    while self._n_bytes > _MAX_AHEAD_BYTES and monotonic() < self._deadline:
                        self._changed.wait(_WAIT_S)
                    self._blocks.append(block)
                    self._n_bytes += len(block)
                    self._changed.notify_all()
        except BaseException as error:  # readinto raises it
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()
