"""How far the work is: a line on the terminal while it goes on, a summary at its end."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from ..output import one_line, text_columns
from ..transcribe import Segment

_SHORT_WORK_S = 4  # work that takes less shows no progress


def spent_since(began: float) -> float:
    """Seconds, more than 0 also where the clock is slow to tick (Windows: 16 ms)."""
    return max(time.monotonic() - began, 1e-3)


class Progress:
    """Counts the seconds of audio that are done, and those that are left as far as they are known.

    n_begun: files so far, the present one included;  n_failed: of them;  here_s: seconds done of the present one
    """

    def __init__(self, files: Sequence[str], lengths_s: Sequence[float | None], shown: bool) -> None:
        """lengths_s: of what is transcribed of each file, None if unknown; they matter only if shown."""
        self._files = files
        self._lengths_s = lengths_s
        self._shown = shown
        self._began = time.monotonic()
        self._done_s = 0.0  # of all files
        self._columns = 0  # of the line that is there
        self.n_begun = 0
        self.n_failed = 0
        self.here_s = 0.0

    def watch(self, segments: Iterable[Segment], start_s: float, length_s: float | None) -> Iterator[Segment]:
        """The segments of the present file; start_s: where they begin; length_s: of all of them, None if unknown.

        The line is there only while the next segment is waited for, so that the text may go to the same terminal."""
        self.here_s = 0.0
        for segment in segments:
            new_s = max(0.0, segment.end - start_s - self.here_s)
            self.here_s += new_s
            self._done_s += new_s
            self._erase()
            yield segment
            self._show(length_s)
        self._erase()

    def summary(self) -> str:
        """One line, such as "3 files (1 failed), 92.0 s of audio in 30.5 s, 3.0x real time"."""
        spent_s = spent_since(self._began)
        n_files = len(self._files)
        files = "1 file" if n_files == 1 else f"{n_files} files"
        if self.n_begun < n_files:
            files = f"{self.n_begun} of {files}"
        failed = f" ({self.n_failed} failed)" if self.n_failed else ""
        speed = f"{self._done_s / spent_s:.1f}x real time"
        return f"{files}{failed}, {self._done_s:.1f} s of audio in {spent_s:.1f} s, {speed}"

    def _show(self, length_s: float | None) -> None:
        spent_s = spent_since(self._began)
        speed = self._done_s / spent_s
        if not self._shown or not speed:
            return
        here = f"{clock(self.here_s)} of {clock(length_s)}" if length_s else clock(self.here_s)
        parts = [here, f"{speed:.1f}x real time"]
        left_s = 0.0
        if length_s:
            left_s = (length_s - self.here_s) / speed
            parts.append(f"{clock(left_s)} left")
        name = self._files[self.n_begun - 1]
        if len(self._files) > 1:
            name = f"{self.n_begun}/{len(self._files)} {name}"
            rest = self._lengths_s[self.n_begun :]
            if length_s and None not in rest:
                left_s += sum(length for length in rest if length) / speed
                parts.append(f"{clock(left_s)} for all")
        if not length_s or (left_s > 0 and spent_s + left_s > _SHORT_WORK_S):
            name = name.encode("utf-8", "backslashreplace").decode()  # as stderr writes it
            line = one_line(f"{name}: {', '.join(parts)}")
            columns = _terminal_columns()
            while text_columns(line) >= columns:  # of a long line the end: a second line would stay
                line = line[1:]
            _write_to_terminal(line)
            self._columns = text_columns(line)

    def _erase(self) -> None:
        if self._columns:  # with spaces: older Windows consoles know no escape sequences
            _write_to_terminal(f"\r{' ' * self._columns}\r")
            self._columns = 0


def _terminal_columns() -> int:
    """Of the one that stderr goes to; shutil asks stdout's, which may be a file."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return shutil.get_terminal_size().columns


def _write_to_terminal(text: str) -> None:
    with suppress(OSError):  # it is gone
        sys.stderr.write(text)
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """0:07, 12:34, 3:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
