"""What the encoder gave for several clips, laid side by side where it is, on a GPU: a graph of Pad and Concat, written
here byte by byte, since the runtime does without the package onnx. Numbers of fields: onnx/onnx.proto."""

from collections.abc import Sequence
from typing import Any

from ..session import OrtValue, Session

_IR_VERSION, _OPSET = 8, 17  # as our exporter's graphs
_FLOAT, _INT64, _BFLOAT16 = 1, 7, 16  # of TensorProto.DataType


class SideBySide:
    """Of one decoder. Holds a session for each number of clips that came."""

    def __init__(self, decoder: Session) -> None:
        self._decoder = decoder
        self._opened: dict[int, Session] = {}

    def __call__(self, name: str, values: Sequence[OrtValue], into: OrtValue | None = None) -> OrtValue:
        """Values (1, heads, frames, size) of the decoder's input `name` -> one of (clips, heads, most frames, size),
        zeros behind the shorter ones.  into: where it goes, with as many frames as that has; without, it is made"""
        count = len(values)
        if count not in self._opened:
            assert self._decoder.beside is not None  # opening.py has opened the decoder
            self._opened[count] = self._decoder.beside(graph_bytes(count, values[0].element_type()))
        longest = into.shape()[2] if into else max(value.shape()[2] for value in values)
        feeds: dict[str, Any] = {f"clip_{i}": value for i, value in enumerate(values)}
        feeds |= {f"pads_{i}": [0] * 6 + [longest - value.shape()[2], 0] for i, value in enumerate(values)}
        return self._opened[count].call(feeds, {"clips": into or self._decoder.inputs[name].device})["clips"]


def graph_bytes(n_clips: int, element_type: int) -> bytes:
    """An ONNX model: clip_i, pads_i -> clips.  element_type: a number of TensorProto.DataType."""
    graph = b""
    given, laid = "clip", "clips"
    if element_type == _BFLOAT16:  # of which neither CUDA nor the CPU has a Pad; float32 holds its numbers
        given, laid = "float", "floats"
        for i in range(n_clips):
            graph += _node("Cast", [f"clip_{i}"], f"float_{i}", to=_FLOAT)
    for i in range(n_clips):
        graph += _node("Pad", [f"{given}_{i}", f"pads_{i}"], f"padded_{i}")
    graph += _node("Concat", [f"padded_{i}" for i in range(n_clips)], laid, axis=0)
    if element_type == _BFLOAT16:
        graph += _node("Cast", [laid], "clips", to=_BFLOAT16)
    graph += _message(2, b"side by side")
    for i in range(n_clips):
        graph += _message(11, _value(f"clip_{i}", element_type, 4))
        graph += _message(11, _value(f"pads_{i}", _INT64, 1))
    graph += _message(12, _value("clips", element_type, 4))
    return _integer(1, _IR_VERSION) + _message(7, graph) + _message(8, _integer(2, _OPSET))


def _node(op: str, inputs: Sequence[str], output: str, **integers: int) -> bytes:
    """Of a graph.  integers: its attributes"""
    node = b"".join(_message(1, name.encode()) for name in inputs)
    node += _message(2, output.encode()) + _message(4, op.encode())
    for name, value in integers.items():
        node += _message(5, _message(1, name.encode()) + _integer(3, value) + _integer(20, 2))  # 2: it is an integer
    return _message(1, node)


def _value(name: str, element_type: int, n_axes: int) -> bytes:
    """A tensor whose sizes are free."""
    tensor = _integer(1, element_type) + _message(2, _message(1, b"") * n_axes)
    return _message(1, name.encode()) + _message(2, _message(1, tensor))


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])
