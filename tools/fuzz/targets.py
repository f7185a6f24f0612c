"""What is fuzzed: for each reader of untrusted bytes a function that must hold for every input, and seeds.

A target raises a CohereLiteError for bytes that are refused; any other exception is a finding.
"""

import importlib
import io
import itertools
import json
import math
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray

from cohere_lite.errors import CohereLiteError
from cohere_lite.extras.precisions import graph_precision
from cohere_lite.graphfile import check_external_data, read_graph_file
from cohere_lite.model import DEMO_FOLDER
from cohere_lite.tokens import read_tokens
from cohere_lite.wav import open_wav

MOST_MEMORY = 32 << 20  # bytes, for an input of up to 64 KiB; open_wav alone may take 12 MiB
SEED_DATA = bytes(range(256)) * 3
PIECES = (1, 3, 700)  # bytes that the pipe gives at a time, over and over


def check(target: str, data: bytes, scratch: Path) -> None:
    """Raises any exception but ours; scratch: a file called "input", which is written."""
    with suppress(CohereLiteError):
        TARGETS[target](data, scratch)


def check_memory(target: str, data: bytes, scratch: Path) -> None:
    """The same, and AssertionError for more memory than MOST_MEMORY; five times as slow."""
    tracemalloc.start()
    try:
        check(target, data, scratch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MOST_MEMORY, f"{peak} bytes of memory for an input of {len(data)} bytes"


def wav(data: bytes, _: Path) -> None:
    """A file, and a pipe that gives it in pieces: the same samples or error, and no more than the bytes can hold."""
    error, frames = _outcome(io.BytesIO(data))
    piped_error, piped_frames = _outcome(_tests().Pipe(data, *PIECES))
    assert error == piped_error
    np.testing.assert_array_equal(frames, piped_frames)
    assert frames.size <= 2 * len(data)  # no coding has less than 4 bits a sample


def graphfile(data: bytes, scratch: Path) -> None:
    scratch.write_bytes(data)
    graph = read_graph_file(scratch)
    graph_precision(graph)
    check_external_data(graph)


def tokens(data: bytes, scratch: Path) -> None:
    """Every piece that was read can be written as text."""
    scratch = scratch.with_suffix(".json") if data[:1] in (b"{", b"[") else scratch
    scratch.write_bytes(data)
    vocabulary = read_tokens(scratch)
    vocabulary.decode(range(len(vocabulary)))
    for language in vocabulary.languages:
        vocabulary.prompt(language)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {"wav": wav, "graphfile": graphfile, "tokens": tokens}


def _outcome(file: BinaryIO) -> tuple[str, NDArray[np.float64]]:
    """The error's text, or all frames (n, channels)."""
    try:
        audio = open_wav(file)
        assert audio.duration is None or 0 <= audio.duration < math.inf
        return "", np.concatenate([*audio.blocks] or [np.zeros((0, 1))])
    except CohereLiteError as error:
        return str(error), np.zeros((0, 1))


# Seeds


def seeds(target: str) -> list[bytes]:
    """Good inputs of every kind; then what is left when their end is missing."""
    whole = list({"wav": _wav_seeds, "graphfile": _graph_seeds, "tokens": _token_seeds}[target]())
    return whole + [seed[: len(seed) * part // 8] for seed in whole[:8] for part in range(8)]


def _wav_seeds() -> Iterator[bytes]:
    """The matrix of tests/test_wav.py: every container and coding, one and two channels, known and unknown lengths."""
    tests = _tests()
    for build, coding, channels in itertools.product(tests.BUILDERS, tests.CODINGS, (1, 2)):
        yield build(SEED_DATA[: 24 * 8], channels=channels, **coding)
    for build in tests.BUILDERS:
        yield from (build(SEED_DATA, size=size) for size in (0, 0x7FFF0000, 0xFFFFFFFF))
    extension = struct.pack("<HHIH", 22, 16, 4, tests.PCM) + tests.GUID_TAIL
    yield tests.wav(SEED_DATA, tag=tests.EXTENSIBLE, extra=extension)
    yield tests.riff(tests.chunk(b"JUNK", b"x" * 28), tests.fmt(), bytes(8), tests.chunk(b"LIST", b"abc")[:-1])
    yield tests.riff(tests.fmt(), tests.chunk(b"data", b""), tests.chunk(b"LIST", b"INFO"))
    yield tests.wav(b"\xc0" * 3, bits=8) * 2
    yield from (b"fLaC\0\0\0\x22", b"\xff\xfb\x90\x64", b"<!doctype html>", "Übung".encode(), b"")


def _graph_seeds() -> Iterator[bytes]:
    """The demonstration model's graphs, without their nodes and with few initializers; then what is no graph."""
    for path in sorted(DEMO_FOLDER.glob("*.onnx")):
        model = onnx.load(path, load_external_data=False)
        del model.graph.node[:], model.graph.initializer[8:]
        yield model.SerializeToString()
        del model.graph.initializer[:], model.metadata_props[:]
        yield model.SerializeToString()
    # Weights that are there, in the file itself; too few of them.
    for location, length in ("input", "100"), ("input", "10000"):
        tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=length)
        del model.graph.initializer[:]
        model.graph.initializer.append(tensor)
        yield model.SerializeToString()
    yield from (b"version https://git-lfs.github.com/spec/v1", b"Entry not found", b"")


def _token_seeds() -> Iterator[bytes]:
    lines = (DEMO_FOLDER / "tokens.txt").read_bytes().splitlines(keepends=True)
    named = [line for line in lines if line.startswith(("▁ ".encode(), b"<|"))]  # languages, and what a prompt takes
    for kept in (lines[:12], named, lines[250:290]):
        pieces = [line.rpartition(b" ")[0] for line in kept]
        yield b"".join(b"%b %d\n" % (piece, i) for i, piece in enumerate(pieces))
    listed = {line.rpartition(b" ")[0].decode(): i for i, line in enumerate(named)}
    yield json.dumps(listed).encode()
    yield json.dumps({"model": {"vocab": listed}, "added_tokens": [{"id": 0, "content": next(iter(listed))}]}).encode()
    one = "\N{ARABIC-INDIC DIGIT ONE}"  # int() takes it, too
    yield from (b"\xef\xbb\xbfa 0\r\nb 1\r\n", f"{one} 0\nb {one}\n".encode(), b"")


def _tests() -> Any:
    """tests/test_wav.py, whose generators are used here; tests/ is no package."""
    folder = str(Path(__file__).parents[2] / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("test_wav")
