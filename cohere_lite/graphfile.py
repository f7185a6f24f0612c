"""What an ONNX file says of itself, read from its protobuf in milliseconds, without its weights: what the graph is
(names of inputs and outputs), and whether the files with its weights are complete. Field numbers: onnx/onnx.proto."""

import mmap
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from .errors import ModelError, ModelFileNotFound

_VARINT, _BYTES, _FIXED_BYTES = 0, 2, {1: 8, 5: 4}  # protobuf wire types
MODEL_GRAPH = 7
GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_NAME = {GRAPH_INITIALIZER: 8, _GRAPH_INPUT: 1, _GRAPH_OUTPUT: 1}  # the field with the name in each of them
_TENSOR_EXTERNAL_DATA = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
# Limits that keep a damaged file from filling the memory. The full-size encoder has some 3,000 names.
_MAX_NAMES, _MAX_NAME_BYTES = 100_000, 4096


class GraphFile(NamedTuple):
    """inputs, outputs: their names, in the graph's order;  external_bytes: how long the files with its weights must be,
    by their path relative to the graph's folder."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external_bytes: dict[str, int]

    def has(self, inputs: set[str], outputs: set[str]) -> bool:
        """Whether these are among its inputs and outputs."""
        return inputs <= {*self.inputs} and outputs <= {*self.outputs}


def read_graph_file(path: str | PathLike[str]) -> GraphFile:
    """Raises ModelError for a file that is not ONNX, or that keeps its weights outside of its folder."""
    path = Path(path)
    check_download(path, "an ONNX file")
    names: dict[int, list[str]] = {field: [] for field in _NAME}
    external: dict[str, int] = {}
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for model_field, content in fields(data, slice(0, len(data))):
                for field, message in fields(data, content) if model_field == MODEL_GRAPH else ():
                    if field in names:
                        names[field].append(_text(data, message, _NAME[field]))
                        if len(names[field]) > _MAX_NAMES:
                            raise ValueError("too many names")
                    if field == GRAPH_INITIALIZER:
                        location, length = _external(data, message)
                        external[location] = max(external.get(location, 0), length)
    except (LookupError, ValueError) as error:  # ValueError: also for an empty file, and text that is not UTF-8
        raise ModelError(f"{path}: not an ONNX file, or damaged ({path.stat().st_size} bytes)") from error
    if not names[_GRAPH_OUTPUT]:
        raise ModelError(f"{path}: not an ONNX file: it has no graph with outputs")
    external.pop("", None)  # weights inside the graph
    for location in external:  # newer versions of onnxruntime refuse these, too; Windows' rules cover the others'
        if PureWindowsPath(location).anchor or ".." in PureWindowsPath(location).parts:
            raise ModelError(f"{path} keeps its weights in {location!r}, outside of its folder")
    initializers = set(names[GRAPH_INITIALIZER])  # before IR version 4 they were listed as inputs, too
    inputs = tuple(name for name in names[_GRAPH_INPUT] if name not in initializers)
    return GraphFile(path, inputs, tuple(names[_GRAPH_OUTPUT]), external)


def check_external_data(graph: GraphFile) -> None:
    """Raises ModelFileNotFound or ModelError if a file with the graph's weights is missing, or not downloaded whole."""
    for location, needed in graph.external_bytes.items():
        path = graph.path.parent / location
        if not os.path.isfile(path):  # unlike Path.is_file, it is False for impossible names
            raise ModelFileNotFound(f"{graph.path} keeps its weights in {location!r}, which is not beside it")
        real = path.resolve()
        beside = graph.path.parent.resolve(), graph.path.resolve().parent  # the hub's cache has links, to one folder
        if not any(folder in real.parents for folder in beside):
            raise ModelError(f"{graph.path} keeps its weights in {location!r}, a link to {real}, outside of its folder")
        check_download(path, f"the weights of {graph.path.name}")
        if (size := path.stat().st_size) < needed:
            found = f"{path}: {size} bytes, but {graph.path.name} needs {needed}"
            raise ModelError(f"{found}: an incomplete copy or download; fetch it again")


def check_download(path: Path, expected: str) -> None:
    """Raises ModelError if `path` holds what a failed download left, and not what was expected."""
    try:
        from .extras.downloads import refuse_failed_download
    except ImportError:
        return  # such a file then fails to be read
    refuse_failed_download(path, expected)


def fields(data: mmap.mmap, message: slice) -> Iterator[tuple[int, slice]]:
    """(field number, where its content is) of the numbers, strings and messages in a message."""
    position = message.start
    while position < message.stop:
        key, position = varint(data, position)
        wire_type, start, length = key & 7, position, _FIXED_BYTES.get(key & 7, 0)
        if not length:
            number, position = varint(data, position)
            start, length = {_VARINT: (start, position - start), _BYTES: (position, number)}[wire_type]
        position = start + length
        if position > message.stop:
            raise IndexError("a field reaches beyond its message")
        if wire_type in (_VARINT, _BYTES):
            yield key >> 3, slice(start, position)


def varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """The number, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):  # ten bytes at most, protobuf's limit
        value |= (data[position] & 0x7F) << shift
        position += 1
        if data[position - 1] < 0x80:
            return value, position
    raise ValueError("a varint of more than ten bytes")


def _text(data: mmap.mmap, message: slice, wanted: int) -> str:
    content = next((content for field, content in fields(data, message) if field == wanted), slice(0, 0))
    if content.stop - content.start > _MAX_NAME_BYTES:
        raise ValueError("too long a name")
    return data[content].decode("utf-8")


def _external(data: mmap.mmap, tensor: slice) -> tuple[str, int]:
    """The file that holds a tensor, relative to the graph's folder ("": the graph itself), and how long it must be."""
    entries = {
        _text(data, entry, _ENTRY_KEY): _text(data, entry, _ENTRY_VALUE)
        for field, entry in fields(data, tensor)
        if field == _TENSOR_EXTERNAL_DATA
    }
    return entries.get("location", ""), int(entries.get("offset") or 0) + int(entries.get("length") or 0)
