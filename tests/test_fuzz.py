"""The fuzzer's targets, without the fuzzer: on its seeds, and on seeds with a few bytes changed, doubled or lost."""

from pathlib import Path

import numpy as np
import pytest
from test_wav import BUILDERS, CODINGS

from cohere_lite.errors import ModelError
from tools.fuzz import targets
from tools.fuzz.targets import MOST_MEMORY, TARGETS, check, check_memory, seeds

N_CHANGED = 700  # inputs for each target


@pytest.mark.parametrize(("target", "n_good"), [("wav", len(BUILDERS) * len(CODINGS) * 2), ("tokens", 5)])
def test_seeds_are_good(target: str, n_good: int, tmp_path: Path) -> None:
    """Else what is fuzzed would be the refusal of bad files."""
    for seed in seeds(target)[:n_good]:
        TARGETS[target](seed, tmp_path / "input")


def test_graphs_are_good(tmp_path: Path) -> None:
    """By construction: encoder and decoder, with some initializers, whose weights are missing here, and without."""
    whole, bare, *other = seeds("graphfile")[:4]
    for seed in whole, other[0]:
        with pytest.raises(ModelError, match=r"keeps its weights in '(en|de)coder\.int8\.onnx\.data'"):
            TARGETS["graphfile"](seed, tmp_path / "input")
    for seed in bare, other[1]:
        TARGETS["graphfile"](seed, tmp_path / "input")


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str, tmp_path: Path) -> None:
    for seed in seeds(target):
        check_memory(target, seed, tmp_path / "input")


@pytest.mark.parametrize("target", TARGETS)
def test_changed_seeds(target: str, tmp_path: Path) -> None:
    good = seeds(target)
    for number in range(N_CHANGED):
        data = changed(good[number % len(good)], np.random.default_rng(number))
        try:
            check_memory(target, data, tmp_path / "input")
        except Exception as error:
            raise AssertionError(f"number {number}: {data.hex()}") from error


def changed(seed: bytes, rng: np.random.Generator) -> bytes:
    """Up to 8 times, a few of the first 200 bytes become others, none, zeros, 0xFF, or twice what they were."""
    data = bytearray(seed)
    for _ in range(rng.integers(1, 9)):
        at = int(rng.integers(min(len(data), 200) + 1))
        length = int(rng.integers(1, 9))
        parts = [rng.bytes(length), b"", bytes(length), b"\xff" * length, data[at : at + length] * 2]
        data[at : at + length] = parts[rng.integers(len(parts))]
    return bytes(data)


# What is wrong is found


@pytest.mark.parametrize(("n_bytes", "found"), [(MOST_MEMORY - (1 << 20), False), (MOST_MEMORY + 1, True)])
def test_memory_is_measured(n_bytes: int, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "wav", lambda data, _: np.zeros(n_bytes, np.uint8))
    if found:
        with pytest.raises(AssertionError, match="bytes of memory for an input of 3 bytes"):
            check_memory("wav", b"abc", tmp_path)
    else:
        check_memory("wav", b"abc", tmp_path)


def test_other_errors_than_ours_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "open_wav", lambda *_: {}["missing"])
    with pytest.raises(KeyError):
        check("wav", b"abc", tmp_path)


def test_a_pipe_that_gives_other_samples_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: a reader that takes what one read gives for the whole header."""
    open_wav = targets.open_wav
    monkeypatch.setattr(targets, "PIECES", (len(good := seeds("wav")[0]),))
    check("wav", good, tmp_path)
    monkeypatch.setattr(targets, "PIECES", (1, 3, 700))
    monkeypatch.setattr(targets, "open_wav", lambda file: open_wav(_OneRead(file)))
    with pytest.raises(AssertionError):
        check("wav", good, tmp_path)


class _OneRead:
    """A file that ends where the second read is not what was asked for."""

    def __init__(self, file: object) -> None:
        self.file, self.ended = file, False

    def read(self, count: int) -> bytes:
        part = b"" if self.ended else self.file.read(count)  # type: ignore[attr-defined]
        self.ended = len(part) < count
        return part
