"""An ONNX file as nodes and constants, without its weights in memory: they are read one at a time, when asked for. Its
inner names mean nothing here: exporters and optimisers change them all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, external_data_helper, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ..graphfile import check_external_data, read_graph_file

# Operators that only move or rename numbers.
MOVES = {"Identity", "Cast", "Dropout", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}
SHAPES = {"Shape", "Size", "ConstantOfShape"}  # what depends on these depends on no value
UNKNOWN = {"QLinearMatMul", "QLinearConv", "QAttention", "QGemm", "Loop", "Scan"}


@dataclass(eq=False)
class Node:
    """op: the operator's name ("com.microsoft.Attention" to tell it from the standard one);  place: in the order."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    proto: onnx.NodeProto
    place: int = 0

    def input(self, index: int) -> str:
        """Its name, "" where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


class OnnxFile:
    """Nodes in an order in which each comes after those that it reads from, with both branches of every If."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError or OSError for a file that is damaged, or whose weights are missing."""
        self.path = path
        check_external_data(read_graph_file(path))
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's own classes share no base but this one
            raise ValueError(f"{path}: not an ONNX file, or damaged ({error})") from error
        if model.functions:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.opsets = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        self.tensors: dict[str, TensorProto] = {}
        self.nodes: list[Node] = []
        self._flatten(model.graph, {}, "")
        self.inputs = {v.name: _sizes(v) for v in model.graph.input if v.name not in self.tensors}
        self.outputs = {v.name: _sizes(v) for v in model.graph.output}
        self.producer = {name: node for node in self.nodes for name in node.outputs if name}
        self.nodes = self._in_order()
        self.consumers: dict[str, list[Node]] = {}
        self.constant_names = set(self.tensors)
        self._sized = set(self.tensors)  # what depends on nothing but shapes
        self._small: dict[tuple[str, int | None], np.ndarray | None] = {}
        for place, node in enumerate(self.nodes):
            node.place = place
            if node.op in UNKNOWN:
                raise ValueError(f"{path.name}: a graph with {node.op}, which this converter does not read")
            for name in {*node.inputs} - {""}:
                self.consumers.setdefault(name, []).append(node)
            if node.op != "Phi" and all(name in self.constant_names for name in node.inputs if name) and node.inputs:
                self.constant_names.update(node.outputs)
            if node.op == "Shape" or (node.op != "Phi" and all(name in self._sized for name in node.inputs if name)):
                self._sized.update(node.outputs)

    def _flatten(self, graph: GraphProto, names: dict[str, str], prefix: str) -> dict[str, str]:
        """Add nodes and tensors, those of both branches of an If too: after them, "Phi" is one or the other. Returns
        what values are called here, by their names in the graph."""
        names = dict(names)
        for tensor in graph.initializer:
            names[tensor.name] = prefix + tensor.name
            self.tensors[prefix + tensor.name] = tensor
        for i, proto in enumerate(graph.node):
            attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
            names.update({name: prefix + name for name in proto.output if name})
            outputs = [names.get(name, "") for name in proto.output]
            if proto.op_type == "Constant":
                self.tensors[outputs[0]] = _constant(attributes)
            elif proto.op_type == "If":
                branches = [attributes["then_branch"], attributes["else_branch"]]
                known = [self._flatten(b, names, f"{prefix}{i}.{k}/") for k, b in enumerate(branches)]
                ends = [[inner[v.name] for v in branch.output] for inner, branch in zip(known, branches, strict=True)]
                for out, then, other in zip(outputs, *ends, strict=True):
                    self.nodes.append(Node("Phi", [then, other], [out], {}, proto))
            else:
                inputs = [names.get(name, name) for name in proto.input]
                contrib = proto.domain == "com.microsoft" and proto.op_type == "Attention"
                op = "com.microsoft.Attention" if contrib else proto.op_type
                self.nodes.append(Node(op, inputs, outputs, attributes, proto))
        return names

    def _in_order(self) -> list[Node]:
        """Every node after those that it reads from; not all exporters keep this order."""
        done: set[int] = set()
        ordered: list[Node] = []
        for first in self.nodes:
            pending = [(first, False)]
            while pending:
                node, read = pending.pop()
                if id(node) in done:
                    continue
                if read:
                    done.add(id(node))
                    ordered.append(node)
                    continue
                pending.append((node, True))
                needed = (self.producer.get(name) for name in reversed(node.inputs))
                pending += [(other, False) for other in needed if other is not None and id(other) not in done]
        return ordered

    def array(self, name: str) -> np.ndarray:
        """A tensor's numbers, as stored."""
        tensor = self.tensors[name]
        if external_data_helper.uses_external_data(tensor):
            place = {entry.key: entry.value for entry in tensor.external_data}
            read = TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            with open(self.path.parent / place["location"], "rb") as file:
                file.seek(int(place.get("offset", 0)))
                read.raw_data = file.read(int(place["length"])) if "length" in place else file.read()
            tensor = read
        return numpy_helper.to_array(tensor)

    def size(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        return tuple(self.tensors[name].dims)

    def value(self, name: str, last: int | None = None) -> np.ndarray | None:
        """What a value is, if it depends on nothing that is fed; with `last`, the last size of anything is taken to be
        that: attention's scale is often computed from it."""
        if name in self.tensors:
            return self.array(name)
        known = self.constant_names if last is None else self._sized
        if name not in known or len(self.producer[name].outputs) > 1:
            return None
        if (name, last) not in self._small:
            value = self._evaluate(self.producer[name], last)
            if value is not None and value.size > 64:
                return value
            self._small[name, last] = value
        return self._small[name, last]

    def _evaluate(self, node: Node, last: int | None) -> np.ndarray | None:
        if node.op == "Shape" and node.inputs[0] not in self.constant_names:
            return np.array([0, 0, 0, last])
        inputs = [self.value(part, last) if part else None for part in node.inputs]
        if any(array is None and part for array, part in zip(inputs, node.inputs, strict=True)):
            return None
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        fed = [f"x{i}" if part else "" for i, part in enumerate(node.inputs)]
        del proto.input[:], proto.output[:]
        proto.input.extend(fed)
        proto.output.append("y")
        feeds = {part: array for part, array in zip(fed, inputs, strict=True) if part}
        infos = [helper.make_value_info(part, onnx.TypeProto()) for part in feeds]
        graph = helper.make_graph([proto], "one", infos, [helper.make_value_info("y", onnx.TypeProto())])
        try:
            with np.errstate(all="ignore"):
                evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=self.opsets))
                return np.asarray(next(iter(evaluator.run(None, feeds))))
        except Exception:  # whatever the evaluator does not know or like is no constant to us
            return None

    def scalar(self, name: str, last: int | None = None) -> float | None:
        """The value of a constant of one element, None for anything else."""
        if name in self.tensors and math.prod(self.size(name)) != 1:
            return None
        value = self.value(name, last)
        if value is None or value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            return None
        return float(value.reshape(()))

    def vector(self, name: str) -> np.ndarray | None:
        """A constant of floats, float32; None for what is none."""
        if name not in self.constant_names:
            return None
        value = self.value(name)
        return None if value is None or value.dtype.kind not in "fV" else value.astype(np.float32)

    def root(self, name: str) -> tuple[str, bool, Node | None]:
        """The tensor behind a constant ("": something else), whether it is turned on the way, and the DequantizeLinear
        on the way."""
        turned, dequantised = False, None
        while name not in self.tensors:
            node = self.producer[name]
            if node.op == "DequantizeLinear":
                dequantised = node
            elif node.op == "Transpose":
                turned = not turned
                if node.attributes.get("perm", [1, 0]) != [1, 0]:
                    return "", False, None
            elif node.op not in ("Identity", "Cast"):
                return "", False, None
            name = node.inputs[0]
        return name, turned, dequantised

    def is_matrix(self, name: str) -> bool:
        """A constant with two sizes that are not 1 in front."""
        if name not in self.constant_names:
            return False
        shape = self.constant_shape(name)
        return len(shape) >= 2 and math.prod(shape[:-2]) == 1 and min(shape[-2:]) > 1

    def constant_shape(self, name: str) -> tuple[int, ...]:
        """Of a constant that need not be a tensor of the file."""
        tensor, turned, _ = self.root(name)
        if not tensor:
            value = self.value(name)
            return () if value is None else value.shape
        return self.size(tensor)[::-1] if turned else self.size(tensor)

    @cached_property
    def metadata_max_audio_s(self) -> float | None:
        """What an encoder says it takes, in seconds."""
        try:
            return float(self.metadata["max_audio_s"])
        except (KeyError, ValueError):
            return None


def _constant(attributes: dict[str, Any]) -> TensorProto:
    name, value = next(iter(attributes.items()))
    if name == "value":
        return value
    return numpy_helper.from_array(np.asarray(value, np.float32 if "float" in name else np.int64))


def _sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
