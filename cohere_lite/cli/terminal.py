"""The terminal: progress; Ctrl-C and the other signals that end a program."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from ..errors import AudioError, logger
from ..extras.formats import one_line, text_columns
from ..transcript import clock

if TYPE_CHECKING:  # --help must not wait for numpy
    from ..transcript import Segment

_SHORT_WORK_S = 4  # work that takes less shows no progress


# What is meant to end a process that goes on: Ctrl-C; docker stop, systemctl stop, timeout; a terminal that is closed.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_TOGETHER_S = 2  # of SIGTERM and SIGHUP that are one request
_DEFAULTS = (signal.default_int_handler, signal.SIG_DFL)


class CtrlC:
    """The first Ctrl-C ends waiting and recognising, but never a write; the second one ends everything at once. SIGTERM
    and SIGHUP are like a first Ctrl-C, though some send them twice; at the end the process dies of them, after all.

    pressed: the first of these signals, 0 if there was none;  end_pipe: if set, it calls this and raises nothing
    """

    def __init__(self) -> None:
        self.pressed = 0
        self._pressed_s = 0.0
        self.end_pipe: Callable[[], object] | None = None
        self._may_raise = False
        self._is_due = False  # pressed where it must not raise: will be raised as soon as it may

    def __enter__(self) -> CtrlC:
        # Not if the calling program handles it, nor in any other than the main thread, where there are no signals.
        in_main = current_thread() is main_thread()
        self._before = {number: signal.getsignal(number) for number in _SIGNALS if in_main}
        self._before = {number: handler for number, handler in self._before.items() if handler in _DEFAULTS}
        for number in self._before:
            signal.signal(number, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        interrupt = self._before.pop(signal.SIGINT, None)
        for number, handler in self._before.items():
            signal.signal(number, handler)
            if self.pressed == number:
                signal.raise_signal(number)
        if interrupt is not None:  # last: from here on Ctrl-C raises
            signal.signal(signal.SIGINT, interrupt)

    def _press(self, number: int, _: object) -> None:
        if self.pressed and number != signal.SIGINT and time.monotonic() < self._pressed_s + _TOGETHER_S:
            return
        self._pressed_s = time.monotonic()
        is_second, self.pressed = self.pressed, self.pressed or number
        if is_second or (self._may_raise and not self.end_pipe):
            raise KeyboardInterrupt
        if self.end_pipe:
            self.end_pipe()
        else:
            self._is_due = True

    @contextmanager
    def raises(self) -> Iterator[None]:
        """In this block Ctrl-C raises KeyboardInterrupt; one pressed earlier raises on entry."""
        self._may_raise = True
        try:
            if self._is_due:
                raise KeyboardInterrupt
            yield
        finally:
            self._may_raise = False

    def ends(self, segments: Generator[Segment]) -> Iterator[Segment]:
        """The segments up to Ctrl-C, which is raised inside their generator, so that it can give what is ready."""
        is_told = False
        try:
            while True:
                self._may_raise = True
                if self._is_due:
                    self._is_due = False
                    segment = segments.throw(KeyboardInterrupt())
                else:
                    segment = next(segments)
                self._may_raise = False
                if self.pressed and self.end_pipe and not is_told:  # up to 32 MB of the pipe may have been read
                    logger.info("finishing what was recorded; Ctrl-C again to stop at once")
                    is_told = True
                yield segment
        except (StopIteration, KeyboardInterrupt):
            pass
        finally:
            self._may_raise = False


def is_terminal(stream: object) -> bool:
    """False also of None, of what a program with windows puts in place of a stream, and of a closed one."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except Exception:  # whatever such a thing raises
        return False


def spent_since(began: float) -> float:
    """Seconds, more than 0 even if the clock has not ticked yet (on Windows it ticks every 16 ms)."""
    return max(time.monotonic() - began, 1e-3)


class Progress:
    """Counts the seconds of audio that are done, and the seconds that are left where the length is known.

    n_begun: files begun, the current one included;  n_failed: files that failed
    """

    def __init__(self, files: Sequence[str], lengths_s: Sequence[float | None], shown: bool) -> None:
        """lengths_s: seconds to transcribe of each file, None if unknown; used only if progress is shown."""
        self._files = files
        self._lengths_s = lengths_s
        self._shown = shown
        self._began = time.monotonic()
        self._done_s = 0.0  # of all files
        self._columns = 0  # of the line that is shown
        self.n_begun = 0
        self.n_failed = 0
        self._here_s = 0.0

    def watch(self, segments: Iterable[Segment], start_s: float, length_s: float | None) -> Iterator[Segment]:
        """The segments of the current file, which begin at start_s and take length_s in all (None if unknown).

        The line is shown only while the next segment is awaited, so that text can go to the same terminal."""
        self._here_s = 0.0
        for segment in segments:
            new_s = max(0.0, segment.end - start_s - self._here_s)
            self._here_s += new_s
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
        here = f"{clock(self._here_s)} of {clock(length_s)}" if length_s else clock(self._here_s)
        parts = [here, f"{speed:.1f}x real time"]
        left_s = 0.0
        if length_s:
            left_s = (length_s - self._here_s) / speed
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
            while text_columns(line) >= columns:  # keep the end: what runs into a second row could not be erased
                line = line[1:]
            _write_to_terminal(line)
            self._columns = text_columns(line)

    def _erase(self) -> None:
        if self._columns:  # with spaces: older Windows consoles know no escape sequences
            _write_to_terminal(f"\r{' ' * self._columns}\r")
            self._columns = 0


def wav_stretch_s(file: str, start_s: float, end_s: float | None) -> float | None:
    """Seconds of a WAV file that will be transcribed, by its header; None for pipes, and for other files, which take
    long to open."""
    from ..wav import open_wav

    try:
        if os.path.isfile(file):
            with open(file, "rb") as opened:
                return stretch_s(open_wav(opened).duration, start_s, end_s)
    except (OSError, AudioError):
        pass  # reported when its turn comes
    return None


def stretch_s(length_s: float | None, start_s: float, end_s: float | None) -> float | None:
    """Seconds between start and end in a recording of length_s; None if only its end will tell."""
    return None if length_s is None else max(0.0, min(length_s, length_s if end_s is None else end_s) - start_s)


def _terminal_columns() -> int:
    """Of the terminal behind stderr; shutil asks for that of stdout, which may be a file."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return shutil.get_terminal_size().columns


def _write_to_terminal(text: str) -> None:
    with suppress(AttributeError, OSError):  # the terminal is gone, or has no flush
        sys.stderr.write(text)
        sys.stderr.flush()
