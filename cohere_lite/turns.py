"""Whose turn it is to use a model: one thread's at a time; nobody's in a forked child, which lacks onnxruntime's
threads, or once the process ends: onnxruntime aborts where a daemon thread is at work then. Models on WebGPU share
their turns: its sessions have one queue of commands in a process, and two threads in it crash (plugin 0.4.0)."""

import atexit
import ctypes
import os
from collections.abc import Sequence
from threading import RLock, get_ident
from typing import Any
from weakref import ref

from .errors import StateError


class Turn:
    """Of a model, which is loaded and run in `with turn.lock: turn.check(); ...`.

    lock: re-entrant, and CPython's own: in a context manager of ours Ctrl-C could come between two steps and leave it
    taken;  contract, word_timer: hold the sessions;  over: why nobody may use them any more"""

    ending: int | None = None  # the thread that ends the process
    webgpu_lock = RLock()

    def __init__(self, has_threads: bool, providers: Sequence[str] = ()) -> None:
        """has_threads: whether onnxruntime has some, or a GPU's state, which a forked child has not;  providers: see
        Transcriber"""
        on_webgpu = any(name.lower().startswith("webgpu") for name in providers)
        self.has_threads, self.lock, self.over = has_threads, Turn.webgpu_lock if on_webgpu else RLock(), ""
        self.contract: object = None
        self.word_timer: Any = None  # opened when it is first asked for: Transcriber
        _TURNS.add(ref(self, _TURNS.discard))

    def check(self) -> None:
        """Raises StateError if the sessions cannot be used any more; SystemExit, which ends a thread without a word,
        while another one ends the process."""
        if self.over:
            raise StateError(f"this Transcriber {self.over}")
        if Turn.ending not in (None, get_ident()):
            raise SystemExit


_TURNS: set[ref[Turn]] = set()


@atexit.register
def _end_turns() -> None:
    """Waits for calls that are running; others find that the process ends."""
    Turn.ending = get_ident()
    for turn in filter(None, [reference() for reference in [*_TURNS]]):
        with turn.lock:
            pass


def _inherit_turns() -> None:
    """In a forked child. To destroy a session waits for its threads, for ever, even at the child's end: it is kept for
    good. One that has no threads works, unless another thread, which is not here, was using it."""
    Turn.webgpu_lock = RLock()  # nobody here releases the parent's
    for turn in filter(None, [reference() for reference in [*_TURNS]]):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(turn))
        if is_free := turn.lock.acquire(blocking=False):
            turn.lock.release()
        else:
            turn.lock = RLock()
        if turn.has_threads or not is_free:
            turn.over = turn.over or (
                "was made before this process was forked, and works in the parent alone: make one in each process, or "
                'start processes with "spawn" or "forkserver" (made with threads=1, it works unless it was busy)'
            )


getattr(os, "register_at_fork", lambda **_: None)(after_in_child=_inherit_turns)  # POSIX
