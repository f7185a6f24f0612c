"""Ctrl-C in the command line: the pieces that are being recognised are given up at once, what was before them is
written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CtrlC:
    """The first Ctrl-C raises KeyboardInterrupt where that does no harm; a second one anywhere.

    pressed: how often, so far
    """

    def __init__(self) -> None:
        self.pressed = 0
        self._may_raise = False
        self._instead: Callable[[], object] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """In this context, unless somebody else handles it already, or this is a thread, where there are no signals."""
        ours = threading.current_thread() is threading.main_thread()
        ours &= signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def raises(self) -> Iterator[None]:
        """It does no harm here; nor for the one that came before."""
        try:
            self._may_raise = self._instead is None
            if self.pressed and self._may_raise:
                raise KeyboardInterrupt
            yield
        finally:
            self._may_raise = False

    @contextmanager
    def calls(self, function: Callable[[], object]) -> Iterator[None]:
        """The first Ctrl-C calls this function instead, and raises nothing."""
        self._instead = function
        try:
            yield
        finally:
            self._instead = None

    def _handle(self, *_: object) -> None:
        self.pressed += 1
        if self.pressed > 1 or self._may_raise:
            raise KeyboardInterrupt
        if self._instead:
            self._instead()
