"""Which of several models in a folder or repository: by precision, as their files tell it.

Encoder and decoder may differ: where no encoder, or no decoder, has the precision that is asked for, the only one that
there is goes with the other.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import ModelError, OptionError
from ..graphfile import GraphFile
from ..model import Graphs

# The default, the best first: on a CPU, and on everything else.
ON_CPU = ("int8", "q4", "q4f16", "uint8", "fp32", "fp16")
ON_OTHERS = ("fp16", "q4f16", "fp32", "q4", "int8", "uint8")
# In file names: what transformers.js, onnx-asr, the card and our exporter write. "q4f16" is not "q4".
_IN_NAMES = re.compile(r"(?<![a-z0-9])(q4f16|q4|int4|int8|q8|quantized|uint8|fp16|fp32|bnb4)(?![a-z0-9])")
_SAME = {"int4": "q4", "q8": "int8", "quantized": "int8"}

File = TypeVar("File")


def choose_model(folder: Path, found: Sequence[Graphs], precision: str | None, on_cpu: bool) -> tuple[Graphs, str]:
    """One of the models in a folder, and its precision: of the best kind, and of that the best precision. Raises
    OptionError for a precision that is not there, ModelError where it does not tell two apart."""
    there: list[str] = []
    for kind in dict.fromkeys((graphs.contract, graphs.encoder.path.parent) for graphs in found):  # in their order
        of_kind = [graphs for graphs in found if (graphs.contract, graphs.encoder.path.parent) == kind]
        by_path = {graph.path: graph for graphs in of_kind for graph in (graphs.encoder, graphs.decoder)}
        encoders = [*dict.fromkeys(graphs.encoder.path for graphs in of_kind)]
        decoders = [*dict.fromkeys(graphs.decoder.path for graphs in of_kind)]
        pairs = pairs_by_precision(encoders, decoders, lambda path: graph_precision(by_path[path]))  # noqa: B023
        label = best_precision(pairs, precision, on_cpu)
        if label is not None:
            for role, paths in zip(("encoder", "decoder"), pairs[label], strict=True):
                if len(paths) > 1:
                    names = ", ".join(sorted(path.name for path in paths))
                    raise ModelError(f"{folder} has more than one {role}: {names}; keep one pair in a folder")
            encoder, decoder = (by_path[paths[0]] for paths in pairs[label])
            precisions = dict.fromkeys(map(graph_precision, (encoder, decoder)))
            return Graphs(kind[0], encoder, decoder), " and ".join(precisions)
        there += [label for label in pairs if label not in there]
    raise OptionError(f"{folder} has no precision {precision!r}; it has {', '.join(there)}")


def pairs_by_precision(
    encoders: Sequence[File], decoders: Sequence[File], precision_of: Callable[[File], str]
) -> dict[str, tuple[list[File], list[File]]]:
    """Encoders and decoders of each precision that both can serve; more than one where it does not tell them apart."""
    labels = [{file: precision_of(file) for file in files} for files in (encoders, decoders)]
    found = {}
    for label in dict.fromkeys([*labels[0].values(), *labels[1].values()]):
        of_label = [[file for file, its in of.items() if its == label] for of in labels]
        only = [[*of] if len({*of.values()}) == 1 else [] for of in labels]
        encoder, decoder = (some or others for some, others in zip(of_label, only, strict=True))
        if encoder and decoder:
            found[label] = encoder, decoder
    return found


def best_precision(pairs: Iterable[str], precision: str | None, on_cpu: bool) -> str | None:
    """The precision that was asked for, or the best one for what will run it; None where it is not there."""
    order = ON_CPU if on_cpu else ON_OTHERS
    if precision is not None:
        precision = _SAME.get(precision.lower(), precision.lower())
        return precision if precision in pairs else None
    return min(pairs, key=lambda label: order.index(label) if label in order else len(order), default=None)


def named_precision(name: str) -> str | None:
    """The precision that a file's name tells."""
    found = _IN_NAMES.findall(name.lower())
    return _SAME.get(found[-1], found[-1]) if found else None


def graph_precision(graph: GraphFile) -> str:
    """By the name of the graph, of its weights (which stay as they are when graphs are renamed), or by its operators.
    Files that name none are float32, as published."""
    for name in (graph.path.name, *graph.external_bytes):
        if precision := named_precision(name):
            return precision
    with open(graph.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        operators = {b"MatMulNBits": "q4", b"MatMulInteger": "int8", b"DynamicQuantizeMatMul": "int8"}
        return next((found for name, found in operators.items() if data.find(name) >= 0), "fp32")
