"""Pages of weights that are given back while a converter compares (cohere_lite/export/pages.py): those of the named
files, and never what somebody has written to or what lies where a closed session's weights lay."""

import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

pytest.importorskip("onnx")  # the extra [export]

from cohere_lite.export import check, pages
from cohere_lite.export.__main__ import main

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone gives pages back so")

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
N_PAGES = 64


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "EVERY_S", 0.001)


def mapped(path: Path, access: int) -> mmap.mmap:
    """A file of N_PAGES pages, each read once."""
    path.write_bytes(b"\1" * N_PAGES * mmap.PAGESIZE)
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=access)
    assert sum(data[i * mmap.PAGESIZE] for i in range(N_PAGES)) == N_PAGES
    return data


def resident_kb(path: Path) -> int:
    """Of a file's mappings, by the kernel's account."""
    counted, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split(maxsplit=5)
        if "-" in first and not first.endswith(":"):
            inside = rest[-1] == str(path)
        elif inside and first == "Rss:":
            counted += int(rest[0])
    return counted


def wait_until(happened: Callable[[], bool]) -> None:
    until = monotonic() + 60
    while not happened():
        assert monotonic() < until, "nothing happened for a minute"
        sleep(0.001)


def test_pages_of_the_named_files(tmp_path: Path) -> None:
    """By the kernel's account: 256 KB in 64 pages of 4 KB, and whole files where pages are larger."""
    weights, other = tmp_path / "with a space.data", tmp_path / "other.data"
    with mapped(weights, mmap.ACCESS_READ) as data, mapped(other, mmap.ACCESS_READ):
        assert resident_kb(weights) == resident_kb(other) == N_PAGES * mmap.PAGESIZE // 1024
        with pages.forgetting_pages([weights]):
            wait_until(lambda: resident_kb(weights) == 0)
        assert resident_kb(other) == N_PAGES * mmap.PAGESIZE // 1024
        assert data[:] == b"\1" * N_PAGES * mmap.PAGESIZE


def test_what_was_written_stays(tmp_path: Path) -> None:
    with mapped(tmp_path / "weights.data", mmap.ACCESS_COPY) as data:
        data[0] = 7
        assert pages._mapped([tmp_path / "weights.data"]) == []


def test_nothing_is_opened_or_closed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is loaded where a session's weights were would lose its relocated addresses: numpy.fft did, once
    in some thousand conversions, and the process crashed."""
    assert main([str(CHECKPOINT), str(tmp_path / "static"), "--contract", "static"]) == 0
    data: list[str] = []
    open_now: list[bool] = []
    happened: list[tuple[str, bool]] = []

    @contextmanager
    def watched(files: list[Path]) -> Iterator[None]:
        assert {path.name for path in files} == set(data), "the weights of the sessions that are open"
        open_now.append(True)
        yield
        open_now.pop()

    class Graphs(check._Graphs):
        def __init__(self, files: check.ModelFiles) -> None:
            happened.append(("opened", bool(open_now)))
            graphs = files.graphs.encoder, files.graphs.decoder
            data[:] = [name for graph in graphs for name in graph.external_bytes]
            super().__init__(files)

        def __del__(self) -> None:
            happened.append(("closed", bool(open_now)))

    monkeypatch.setattr(check, "forgetting_pages", watched)
    monkeypatch.setattr(check, "_Graphs", Graphs)
    assert main([str(tmp_path / "static"), str(tmp_path / "fast")]) == 0
    assert happened == [("opened", False), ("closed", False), ("opened", False), ("closed", False)]
