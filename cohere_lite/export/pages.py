"""Keeps the memory small while a large model runs: pages of its files, which onnxruntime maps, are given back all the
time. They stay in the system's cache, from where they come again."""

import ctypes
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

EVERY_S = 0.03  # within which a fast disk's cache maps some 0.3 GB
_DONT_NEED = 4  # MADV_DONTNEED, linux/mman.h


@contextmanager
def forgetting_pages(files: Iterable[Path]) -> Iterator[None]:
    """For the time of a run, on Linux; elsewhere nothing is done.  files: with weights of sessions that stay open until
    this ends. Once a session has gone, its addresses belong to others, a library for one, whose pages would be lost."""
    if not sys.platform.startswith("linux"):
        yield
        return
    stop = Event()
    thread = Thread(target=_forget_until, args=(stop, _mapped(files)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _forget_until(stop: Event, mapped: list[tuple[int, int]]) -> None:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    while not stop.wait(EVERY_S):
        for start, size in mapped:
            libc.madvise(start, size, _DONT_NEED)


def _mapped(files: Iterable[Path]) -> list[tuple[int, int]]:
    """(address, bytes) of the files' mappings that nobody has written to: no page is a changed copy."""
    names = {str(path.resolve()) for path in files}
    found = []
    start = size = 0
    with open("/proc/self/smaps") as lines:
        for line in lines:
            first, *rest = line.split(maxsplit=5)
            if "-" in first and not first.endswith(":"):
                start, end = (int(address, 16) for address in first.split("-"))
                size = end - start if rest[-1].rstrip("\n") in names else 0
            elif first == "Anonymous:" and rest[0] == "0" and size:
                found.append((start, size))
    return found
