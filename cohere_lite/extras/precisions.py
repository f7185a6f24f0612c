"""Which of several models in a folder or repository: by precision, as their files tell it.

Encoder and decoder may differ: where no encoder, or no decoder, has the precision that is asked for, the only one that
there is goes with the other.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import TypeVar

from ..errors import ModelError, OptionError
from ..graphfile import GRAPH_INITIALIZER, MODEL_GRAPH, GraphFile, fields, varint
from ..model import Graphs

# The default, the best first: on a CPU, and on everything else.
# Of bfloat16 only CUDA has kernels. Blocks of 8 bits in float16 are slow on a CPU: 33 ms for a row times 4 million of
# them, 0.3 ms in 4 bits.
ON_CPU = ("int8", "q4", "q4f16", "uint8", "fp32", "fp16", "q8f16", "q8bf16", "q4bf16", "bf16")
ON_OTHERS = ("fp16", "q8f16", "q4f16", "fp32", "bf16", "q8bf16", "q4bf16", "q4", "int8", "uint8")
# In file names: what transformers.js, onnx-asr, the card and our exporter write. "q4f16" is not "q4".
_IN_NAMES = re.compile(r"(?<![a-z0-9])(q[48]b?f16|q4|int4|int8|q8|quantized|uint8|fp16|bf16|fp32|bnb4)(?![a-z0-9])")
_SAME = {"int4": "q4", "q8": "int8", "quantized": "int8"}

# Field numbers and types: onnx/onnx.proto
_GRAPH_NODE, _NODE_OPERATOR, _NODE_ATTRIBUTE, _TENSOR_DIM, _TENSOR_TYPE = 1, 4, 5, 1, 2
_ATTRIBUTE_NAME, _ATTRIBUTE_INT = 1, 3
_FLOATS = {1: "", 10: "f16", 16: "bf16"}  # types of tensors

File = TypeVar("File")


def choose_model(folder: Path, found: Sequence[Graphs], precision: str | None, on_cpu: bool) -> tuple[Graphs, str]:
    """One of the models in a folder, and its precision: the best precision, of that the best kind. Raises OptionError
    for a precision that is not there, ModelError where it does not tell two apart."""
    precisions = {graph.path: graph_precision(graph) for graphs in found for graph in (graphs.encoder, graphs.decoder)}
    models: dict[str, tuple[type, list[Path], list[Path]]] = {}
    for kind in dict.fromkeys((graphs.contract, graphs.encoder.path.parent) for graphs in found):  # the best first
        of_kind = [graphs for graphs in found if (graphs.contract, graphs.encoder.path.parent) == kind]
        encoders = [*dict.fromkeys(graphs.encoder.path for graphs in of_kind)]
        decoders = [*dict.fromkeys(graphs.decoder.path for graphs in of_kind)]
        for label, pair in pairs_by_precision(encoders, decoders, precisions.__getitem__, on_cpu).items():
            models.setdefault(label, (kind[0], *pair))
    chosen = best_precision(models, precision, on_cpu)
    if chosen is None:
        raise OptionError(f"{folder} has no precision {precision!r}; it has {', '.join(sorted(models))}")
    contract, encoders, decoders = models[chosen]
    for role, paths in (("encoder", encoders), ("decoder", decoders)):
        if len(paths) > 1:
            names = ", ".join(sorted(path.name for path in paths))
            raise ModelError(f"{folder} has more than one {role}: {names}; keep one pair in a folder")
    (graphs,) = [
        graphs
        for graphs in found
        if (graphs.contract, graphs.encoder.path, graphs.decoder.path) == (contract, encoders[0], decoders[0])
    ]
    return graphs, " and ".join(dict.fromkeys(precisions[path] for path in (encoders[0], decoders[0])))


def pairs_by_precision(
    encoders: Sequence[File], decoders: Sequence[File], precision_of: Callable[[File], str], on_cpu: bool
) -> dict[str, tuple[list[File], list[File]]]:
    """Encoders and decoders for each precision that one of them has, the precisions of both first. Where no encoder, or
    no decoder, has it, the best others go with it. More than one where precision does not tell them apart."""
    labels = [{file: precision_of(file) for file in files} for files in (encoders, decoders)]
    both, either = ({*labels[0].values()} & {*labels[1].values()}, {*labels[0].values()} | {*labels[1].values()})
    found = {}
    for label in sorted(either, key=lambda label: (label not in both, _rank(label, on_cpu))):
        pair = []
        for of in labels:
            its = label if label in of.values() else best_precision(of.values(), None, on_cpu)
            pair.append([file for file, precision in of.items() if precision == its])
        found[label] = pair[0], pair[1]
    return found if encoders and decoders else {}


def best_precision(there: Iterable[str], precision: str | None, on_cpu: bool) -> str | None:
    """The precision that was asked for, or the best one for what will run it; None where it is not there."""
    if precision is not None:
        precision = _SAME.get(precision.lower(), precision.lower())
        return precision if precision in there else None
    return min(there, key=lambda label: _rank(label, on_cpu), default=None)


def _rank(label: str, on_cpu: bool) -> int:
    order = ON_CPU if on_cpu else ON_OTHERS
    return order.index(label) if label in order else len(order)


def named_precision(name: str) -> str | None:
    """The precision that a file's name tells."""
    found = _IN_NAMES.findall(name.lower())
    return _SAME.get(found[-1], found[-1]) if found else None


def graph_precision(graph: GraphFile) -> str:
    """By the name of the graph, of its weights (which stay as they are when graphs are renamed), or by its operators
    and the type of most of its weights."""
    for name in (graph.path.name, *graph.external_bytes):
        if precision := named_precision(name):
            return precision
    try:
        operators, weights, bits = _contents(graph.path)
    except (LookupError, ValueError) as error:
        raise ModelError(f"{graph.path}: a damaged ONNX file") from error
    floats = _FLOATS[max(_FLOATS, key=weights.__getitem__)]
    if b"MatMulNBits" in operators:
        blocks = f"q{min(bits, default=4)}{floats}"
        return _SAME.get(blocks, blocks)
    if operators & {b"MatMulInteger", b"DynamicQuantizeMatMul"}:
        return "int8"
    return {"": "fp32", "f16": "fp16"}.get(floats, floats)


def _contents(path: Path) -> tuple[set[bytes], Counter[int], set[int]]:
    """The operators of a graph, how many numbers its weights have of each type, and the bits of those in blocks;
    subgraphs are left out."""
    operators: set[bytes] = set()
    weights: Counter[int] = Counter()
    bits: set[int] = set()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graphs = [content for field, content in fields(data, slice(0, len(data))) if field == MODEL_GRAPH]
        for field, message in (found for graph in graphs for found in fields(data, graph)):
            if field == _GRAPH_NODE:
                operators |= {data[name] for of_node, name in fields(data, message) if of_node == _NODE_OPERATOR}
                for attribute in (at for of_node, at in fields(data, message) if of_node == _NODE_ATTRIBUTE):
                    parts = dict(fields(data, attribute))
                    if _ATTRIBUTE_INT in parts and data[parts[_ATTRIBUTE_NAME]] == b"bits":
                        bits.add(varint(data, parts[_ATTRIBUTE_INT].start)[0])
            elif field == GRAPH_INITIALIZER:
                numbers = [(f, varint(data, at.start)[0]) for f, at in fields(data, message) if f <= _TENSOR_TYPE]
                kind = next((number for f, number in numbers if f == _TENSOR_TYPE), 0)
                weights[kind] += prod(number for f, number in numbers if f == _TENSOR_DIM)
    return operators, weights, bits
