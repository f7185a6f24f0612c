"""What an ONNX file says of itself, read from its protobuf in milliseconds, without loading a single weight.

Enough to tell what a graph is (names of inputs and outputs) and whether the files that hold its weights are complete;
and a file from what was downloaded in its place.
Field numbers: onnx/onnx.proto.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from .errors import ModelError, ModelFileNotFound

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA = 8, 13
_VALUE_NAME = 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
# First bytes (lower case) of what a failed download leaves behind, and what to call it.
_NOT_DOWNLOADED = {
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull replaces it by the file)",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"entry not found": "the hub's message that there is no such file",
    b"repository not found": "the hub's message that there is no such repository",
    b"invalid username or password": "the hub's message that there is no such repository, or a private one",
    b"access to model": "the hub's message that the repository is gated",
}


@dataclass(frozen=True)
class GraphFile:
    """inputs and outputs in the graph's order; external_bytes: how long each file beside it must be, by name."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external_bytes: dict[str, int]


def read_graph_file(path: str | PathLike[str]) -> GraphFile:
    """Raises ModelError for a file that is not ONNX."""
    path = Path(path)
    check_download(path, "an ONNX file")
    inputs, outputs, initializers = [], [], []
    external: dict[str, int] = {}
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for field, model_part in _fields(mapped, 0, len(mapped)):
                for number, span in _fields(mapped, *model_part) if field == _MODEL_GRAPH else ():
                    if number == _GRAPH_INPUT:
                        inputs.append(_text(mapped, span, _VALUE_NAME))
                    elif number == _GRAPH_OUTPUT:
                        outputs.append(_text(mapped, span, _VALUE_NAME))
                    elif number == _GRAPH_INITIALIZER:
                        initializers.append(_text(mapped, span, _TENSOR_NAME))
                        for location, end in _external(mapped, span):
                            external[location] = max(external.get(location, 0), end)
    except (IndexError, UnicodeDecodeError, ValueError) as error:  # ValueError: mmap of an empty file, or ours
        raise ModelError(f"{path}: not an ONNX file, or damaged ({path.stat().st_size} bytes)") from error
    if not outputs:
        raise ModelError(f"{path}: not an ONNX file: it has no graph with outputs")
    real_inputs = tuple(name for name in inputs if name not in set(initializers))  # before IR 4 weights were inputs too
    return GraphFile(path, real_inputs, tuple(outputs), external)


def check_external_data(graph: GraphFile) -> None:
    """Raises ModelFileNotFound or ModelError if a file with the graph's weights is missing, too short or another."""
    for location, needed in graph.external_bytes.items():
        path = graph.path.parent / location
        if not path.is_file():
            raise ModelFileNotFound(f"{graph.path} keeps its weights in {location!r}, which is not beside it")
        check_download(path, f"the weights of {graph.path.name}")
        if path.stat().st_size < needed:
            raise ModelError(
                f"{path}: {path.stat().st_size} bytes, but {graph.path.name} needs {needed}: "
                "an incomplete copy or download; fetch it again"
            )


def check_download(path: Path, expected: str) -> None:
    """Raises ModelError for what is saved in place of a file when its download fails and nobody looks.

    expected: what the file should be, for the message.
    """
    with open(path, "rb") as file:
        found = failed_download(file.read(256))
    if found:
        size = path.stat().st_size
        raise ModelError(f"{path}: not {expected}, but {found}, {size} bytes: a failed download; fetch it again")


def failed_download(start: bytes) -> str | None:
    """What a failed download left behind, by the first bytes of the file (up to 256); None if it is no such thing."""
    start = start.lstrip().lower()
    return next((found for beginning, found in _NOT_DOWNLOADED.items() if start.startswith(beginning)), None)


Span = tuple[int, int]  # start and end of a field's content, in bytes


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, Span]]:
    """(field number, span of its content); for a varint the span holds its bytes."""
    while position < end:
        key, position = _varint(data, position)
        start, wire = position, key & 7
        if wire == _VARINT:
            _, position = _varint(data, position)
        elif wire == _BYTES:
            length, start = _varint(data, position)
            position = start + length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"protobuf wire type {wire}")
        if position > end:
            raise IndexError("a field reaches beyond its message")
        yield key >> 3, (start, position)


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _text(data: mmap.mmap, message: Span, field: int) -> str:
    for number, (start, end) in _fields(data, *message):
        if number == field:
            return data[start:end].decode("utf-8")
    return ""


def _external(data: mmap.mmap, tensor: Span) -> Iterator[tuple[str, int]]:
    """(file name, last byte + 1) of a tensor kept outside the graph."""
    entries = dict(
        (_text(data, span, _ENTRY_KEY), _text(data, span, _ENTRY_VALUE))
        for number, span in _fields(data, *tensor)
        if number == _TENSOR_EXTERNAL_DATA
    )
    if "location" in entries:
        yield entries["location"], int(entries.get("offset") or 0) + int(entries.get("length") or 0)
