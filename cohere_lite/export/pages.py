"""Keeps the memory small while a large model runs: pages of its files, which onnxruntime maps, are given back all the
time. They stay in the system's cache, from where they come again."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

EVERY_S = 0.03  # within which a fast disk's cache maps some 0.3 GB
LARGE = 1 << 20  # bytes of a mapping: one weight
_DONT_NEED = 4  # MADV_DONTNEED, linux/mman.h


@contextmanager
def forgetting_pages() -> Iterator[None]:
    """On Linux; elsewhere nothing is done."""
    if not sys.platform.startswith("linux"):
        yield
        return
    stop = Event()
    thread = Thread(target=_forget_until, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _forget_until(stop: Event) -> None:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    while not stop.wait(EVERY_S):
        for start, size in _mapped_weights():
            libc.madvise(start, size, _DONT_NEED)


def _mapped_weights() -> list[tuple[int, int]]:
    """(address, bytes) of what is mapped from files, programs apart, and only read: no page is a changed copy."""
    found = []
    start = size = 0
    with open("/proc/self/smaps") as lines:
        for line in lines:
            first, *rest = line.split()
            if "-" in first and not first.endswith(":"):
                ends = [int(end, 16) for end in first.split("-")]
                start, size = ends[0], ends[1] - ends[0] if rest[-1].startswith("/") and ".so" not in rest[-1] else 0
            elif first == "Anonymous:" and rest[0] == "0" and size >= LARGE:
                found.append((start, size))
    return found
