"""The weighted operations of a graph (products, convolutions, norms, look-ups in tables), whatever operators an
exporter or quantiser has written them with, and their weights as they are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import TensorProto

from .matrix import Blocks, Columns, Matrix, packed, unpacked
from .onnxfile import MOVES, SHAPES, Node, OnnxFile

MATMULS = {"MatMul", "FusedMatMul", "Gemm"}
INT8_MATMULS = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
CONVS = {"Conv", "ConvInteger", "FusedConv"}
LOOKUPS = {"Gather", "GatherBlockQuantized"}


@dataclass(eq=False)
class Weighted:
    """An operation with weights: kind "P" product, "C" convolution, "N" layer norm, "E" look-up in a table.

    out: its result, after the bias and what multiplies it;  shape: of the weights, (n_in, n_out) of a product;
    read: the weights (N: gamma), and bias: vectors, None where there is none;  factor: what multiplies the result;
    shapes: that it is given before
    """

    kind: str
    node: Node
    out: str
    shape: tuple[int, ...]
    read: Callable[[], Matrix]
    bias: Callable[[], np.ndarray] | None = None
    factor: float = 1.0
    shapes: list[str] = field(default_factory=list)
    weights: str = ""  # the tensor: operations with the same one are one
    norm: dict[str, np.ndarray] = field(default_factory=dict)  # C: the BatchNorm after it


class Weights(OnnxFile):
    """A file, and its weighted operations.  by_out: by what their results are called"""

    def __init__(self, path: Path) -> None:
        """Raises ValueError or OSError."""
        super().__init__(path)
        self.weighted = [found for node in self.nodes if (found := self._weighted(node))]
        self.by_out = {found.out: found for found in self.weighted}

    def _weighted(self, node: Node) -> Weighted | None:
        if node.op in MATMULS and self.is_matrix(node.inputs[1]) and node.inputs[0] not in self.constant_names:
            turned = bool(node.attributes.get("transB"))
            product = self._product(node, self._matrix(node.inputs[1], turned))
            product.factor = float(node.attributes.get("alpha", 1.0))
            if len(node.inputs) > 2 and node.inputs[2]:
                product.bias = self._vector_reader(node.inputs[2])
            return self._follow(product)
        if node.op == "MatMulNBits":
            return self._follow(self._blocks_product(node))
        if node.op in INT8_MATMULS and self.is_matrix(node.inputs[1]):
            return self._follow(self._int8_product(node))
        if node.op in CONVS and node.inputs[1] in self.constant_names:
            return self._conv(node)
        if node.op in ("LayerNormalization", "SkipLayerNormalization"):
            gamma, beta = node.inputs[1:3] if node.op == "LayerNormalization" else node.inputs[2:4]
            return self._norm(node, gamma, beta, node.attributes.get("epsilon", 1e-5), node.outputs[0])
        if node.op == "Add":
            return self._decomposed_norm(node)
        if node.op in LOOKUPS and self.is_matrix(node.inputs[0]) and node.attributes.get("axis", 0) == 0:
            return self._table(node)
        if node.op == "Slice" and self.is_matrix(node.inputs[0]) and node.outputs[0] not in self.constant_names:
            return self._table(node)
        return None

    def _matrix(self, name: str, turned: bool = False) -> tuple[tuple[int, int], Callable[[], Matrix], str]:
        """Shape (n_in, n_out), how to read it, and the tensor behind it."""
        tensor, turned_on_the_way, dequantised = self.root(name)
        n_in, n_out = self.constant_shape(name)[-2:]
        if turned:
            n_in, n_out = n_out, n_in
        turned ^= turned_on_the_way

        def read() -> Matrix:
            if not tensor:
                array = self.value(name)
                assert array is not None
                array = array.reshape(array.shape[-2:]).astype(np.float32)
                return np.ascontiguousarray(array.T if turned else array)
            array = self.array(tensor)
            array = array.reshape(array.shape[-2:])
            if dequantised is None:
                array = array.T if turned else array
                return np.ascontiguousarray(array.astype(np.float32))
            return self._dequantised(array, dequantised, turned)

        return (n_in, n_out), read, tensor or name

    def _dequantised(self, array: np.ndarray, node: Node, turned: bool) -> Matrix:
        scale, zero = self._parameters(node.inputs[1], node.input(2))
        size = node.attributes.get("block_size", 0)
        axis = node.attributes.get("axis", 1) % 2
        if size == 0:
            eight = array if array.dtype in (np.int8, np.uint8) else array.astype(np.int8)
            zero = None if zero is None else zero.astype(eight.dtype)
            if scale.size == 1 or axis == (0 if turned else 1):
                return Columns.of(np.ascontiguousarray(eight.T if turned else eight), scale, zero)
            shape = (-1, 1) if axis == 0 else (1, -1)
            weight = eight.astype(np.float32) - (0 if zero is None else zero.astype(np.float32).reshape(shape))
            weight = weight * scale.astype(np.float32).reshape(shape)
            return np.ascontiguousarray(weight.T if turned else weight)
        if axis == (0 if turned else 1):  # blocks along the outputs, which no product has
            wide = [np.repeat(part.astype(np.float32), size, axis=axis) for part in (scale, zero) if part is not None]
            weight = (array.astype(np.float32) - (wide[1] if len(wide) > 1 else 0)) * wide[0]
            return np.ascontiguousarray(weight.T if turned else weight)
        rows, scale = (part if turned else part.T for part in (array, scale))
        zero = None if zero is None else zero if turned else zero.T
        return _typed_blocks(np.ascontiguousarray(rows), scale, zero, size)

    def _parameters(self, scale: str, zero: str) -> tuple[np.ndarray, np.ndarray | None]:
        scales, zeros = self.value(scale), self.value(zero) if zero else None
        if scales is None or (zero and zeros is None):
            raise ValueError(f"{self.path.name}: scales of weights that are no constants")
        return scales.astype(np.float32), zeros

    def _product(self, node: Node, matrix: tuple[tuple[int, int], Callable[[], Matrix], str]) -> Weighted:
        shape, read, tensor = matrix
        return Weighted("P", node, node.outputs[0], shape, read, weights=tensor)

    def _int8_product(self, node: Node) -> Weighted:
        shape, _, tensor = self._matrix(node.inputs[1])
        zero, scale, bias, out = node.input(3), node.input(2), node.input(4), node.outputs[0]
        if node.op == "MatMulIntegerToFloat":
            scale, zero, bias = node.input(3), node.input(5), node.input(6)
        elif node.op == "MatMulInteger":
            scale, out, bias = *self._integer_scale(node), ""

        def read_columns() -> Matrix:
            scales, zeros = self._parameters(scale, zero)
            numbers = self.array(tensor)
            return Columns.of(numbers.reshape(numbers.shape[-2:]), scales, zeros)

        reader = self._vector_reader(bias) if bias else None
        return Weighted("P", node, out, shape, read_columns, reader, weights=tensor)

    def _integer_scale(self, node: Node) -> tuple[str, str]:
        """The scale of the weights of a MatMulInteger or ConvInteger, and its result in floats."""
        out, scale = node.outputs[0], ""
        while not scale or self._takes_dynamic_scale(out):
            consumers = self.consumers.get(out, [])
            if len(consumers) != 1 or consumers[0].op not in {"Mul", *MOVES}:
                break
            if consumers[0].op == "Mul":
                other = _other(consumers[0], out)
                constants = [leaf for leaf in self._leaves(other) if leaf in self.constant_names]
                scale = constants[0] if constants else scale
            out = consumers[0].outputs[0]
        if not scale:
            raise ValueError(f"{self.path.name}: a {node.op} without the scale of its weights")
        return scale, out

    def _takes_dynamic_scale(self, out: str) -> bool:
        consumers = self.consumers.get(out, [])
        if len(consumers) != 1 or consumers[0].op != "Mul":
            return False
        producer = self.producer.get(_other(consumers[0], out))
        return producer is not None and producer.op == "DynamicQuantizeLinear"

    def _leaves(self, name: str) -> Iterator[str]:
        """What is multiplied to make a value."""
        node = self.producer.get(name)
        if name in self.constant_names or node is None or node.op not in ("Mul", "Reshape", "Unsqueeze", "Identity"):
            yield name
        else:
            for part in node.inputs if node.op == "Mul" else node.inputs[:1]:
                yield from self._leaves(part)

    def _blocks_product(self, node: Node) -> Weighted:
        k, n = node.attributes["K"], node.attributes["N"]
        bits, size = node.attributes.get("bits", 4), node.attributes["block_size"]
        if node.input(4):
            raise ValueError(f"{self.path.name}: MatMulNBits with an order of columns (g_idx)")
        if bits not in (4, 8):
            raise ValueError(f"{self.path.name}: MatMulNBits of {bits} bits; 4 and 8 are supported")

        def read() -> Matrix:
            n_blocks = -(-k // size)
            stored = self.array(node.inputs[1]).reshape(n, n_blocks, size * bits // 8)
            scale = self.array(node.inputs[2]).astype(np.float32).reshape(n, n_blocks)
            zero = np.full((n, n_blocks), 2 ** (bits - 1), np.uint8)
            if node.input(3):
                zeros = self.array(node.inputs[3])
                if zeros.dtype != np.uint8:
                    numbers = _numbers(stored, bits).astype(np.float32)
                    weight = (numbers - zeros.astype(np.float32).reshape(n, n_blocks, 1)) * scale[..., None]
                    return np.ascontiguousarray(weight.reshape(n, -1)[:, :k].T)
                zero = _numbers(zeros.reshape(n, -1), bits)[:, :n_blocks]
            return Blocks(stored, scale, np.ascontiguousarray(zero), bits, size, k)

        bias = self._vector_reader(node.inputs[5]) if node.input(5) else None
        return Weighted("P", node, node.outputs[0], (k, n), read, bias, weights=node.inputs[1])

    def _vector_reader(self, name: str) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            value = self.value(name)
            if value is None:
                raise ValueError(f"{self.path.name}: a bias that is no constant")
            return value.astype(np.float32).reshape(-1)

        return read

    def _follow(self, product: Weighted) -> Weighted:
        """With the bias and the factor that come after the product."""
        n_out, out, factor = product.shape[-1] if product.kind == "P" else product.shape[0], product.out, product.factor
        shapes: list[str] = []
        while True:
            consumers = [node for node in self.consumers.get(out, []) if node.op not in SHAPES]
            if len(consumers) != 1:
                return product
            node = consumers[0]
            skip_bias = node.op == "SkipLayerNormalization" and node.input(4)
            if skip_bias and out in node.inputs[:2] and product.bias is None:
                product.bias = self._vector_reader(node.inputs[4])
                return product
            if node.op == "Add" and product.bias is None:
                bias = self.vector(_other(node, out))
                if bias is None or bias.size != n_out:
                    return product
                product.bias = lambda bias=bias, factor=factor: bias.reshape(-1) / np.float32(factor)
            elif node.op in ("Mul", "Div"):
                number = self.scalar(_other(node, out))
                if number is None or (node.op == "Div" and node.inputs[0] != out):
                    return product
                factor *= number if node.op == "Mul" else 1 / number
            elif node.op == "Reshape":
                shapes.append(node.inputs[1])
            elif node.op not in MOVES:
                return product
            out = node.outputs[0]
            if node.op not in MOVES:
                product.shapes = list(shapes)
                product.out, product.factor = out, factor

    def _conv(self, node: Node) -> Weighted:
        tensor, _, dequantised = self.root(node.inputs[1])
        shape = self.constant_shape(node.inputs[1])
        scale, zero, out = "", node.input(3), node.outputs[0]
        if node.op == "ConvInteger":
            scale, out = self._integer_scale(node)
        elif dequantised:
            scale, zero = dequantised.inputs[1], dequantised.input(2)
        pointwise = math.prod(shape[2:]) == 1 and node.attributes.get("group", 1) == 1

        def read() -> Matrix:
            if not scale:
                weight = self.vector(node.inputs[1])
                assert weight is not None
                return weight.reshape(shape[:2]).T if pointwise else weight
            numbers, (scales, zeros) = self.array(tensor), self._parameters(scale, zero)
            if pointwise:
                return Columns.of(np.ascontiguousarray(numbers.reshape(shape[:2]).T), scales, zeros)
            by_channel = (-1, *[1] * (len(shape) - 1))
            shift = 0 if zeros is None else zeros.astype(np.float32).reshape(by_channel)
            return (numbers.astype(np.float32) - shift) * scales.reshape(by_channel)

        found = Weighted("C", node, out, shape, read, weights=node.inputs[1])
        if node.op in ("Conv", "FusedConv") and node.input(2):
            found.bias = self._vector_reader(node.inputs[2])
        found = self._follow(found)
        if pointwise:
            found.kind, found.shape = "P", (shape[1], shape[0])
        else:
            self._batch_norm(found)
        return found

    def _batch_norm(self, conv: Weighted) -> None:
        """The BatchNormalization behind a convolution, if the exporter has left it there."""
        out = conv.out
        while len(consumers := [node for node in self.consumers.get(out, []) if node.op not in SHAPES]) == 1:
            node = consumers[0]
            if node.op == "BatchNormalization":
                names = ("weight", "bias", "running_mean", "running_var")
                for name, value in zip(names, node.inputs[1:5], strict=True):
                    conv.norm[name] = self._vector_reader(value)()
                self._check_epsilon(node.attributes.get("epsilon", 1e-5))
                conv.out = node.outputs[0]
            if node.op not in MOVES:
                return
            out = node.outputs[0]

    def _norm(self, node: Node, gamma: str, beta: str, epsilon: float, out: str) -> Weighted:
        self._check_epsilon(epsilon)
        read = self._vector_reader(gamma)
        shape = (math.prod(self.constant_shape(gamma)),)
        return Weighted("N", node, out, shape, read, self._vector_reader(beta) if beta else None, weights=gamma)

    def _check_epsilon(self, epsilon: float) -> None:
        if not 0.9e-5 < epsilon < 1.1e-5:
            raise ValueError(f"{self.path.name}: a norm with epsilon {epsilon:g}; Cohere Transcribe's have 1e-5")

    def _decomposed_norm(self, node: Node) -> Weighted | None:
        """Add(Mul(Div(x - mean, Sqrt(variance + epsilon)), gamma), beta)."""
        beta, normed = self._constant_and_other(node)
        gain = self._behind(normed, "Mul")
        gamma, ratio = self._constant_and_other(gain) if gain else ("", "")
        division = self._behind(ratio, "Div")
        root = self._behind(division.inputs[1], "Sqrt") if division else None
        sum_ = self._behind(root.inputs[0], "Add") if root else None
        if division is None or sum_ is None:
            return None
        epsilon, _ = self._constant_and_other(sum_)
        number = self.scalar(epsilon) if epsilon else None
        if number is None:
            return None
        found = self._norm(node, gamma, beta, number, node.outputs[0])
        return found

    def _constant_and_other(self, node: Node) -> tuple[str, str]:
        for i in (0, 1):
            if node.inputs[i] in self.constant_names:
                return node.inputs[i], node.inputs[1 - i]
        return "", ""

    def _behind(self, name: str, op: str) -> Node | None:
        """The node of this kind that makes a value, moves apart."""
        node = self.producer.get(name)
        while node is not None and node.op in MOVES:
            node = self.producer.get(node.inputs[0])
        return node if node is not None and node.op == op else None

    def _table(self, node: Node) -> Weighted:
        """A row for each index; read as a matrix with a column for each, (width, rows)."""
        data, out = node.inputs[0], node.outputs[0]
        following = self.consumers.get(out, [])
        after = following[0] if len(following) == 1 and following[0].op == "DequantizeLinear" else None
        (rows, width), read_plain, tensor = self._matrix(data)

        def read() -> Matrix:
            if node.op == "GatherBlockQuantized":
                size, bits = node.attributes.get("block_size", 128), node.attributes.get("bits", 4)
                scale, zero = self._parameters(node.inputs[2], node.input(3))
                numbers = self.array(tensor)
                if numbers.dtype == np.uint8:  # packed as MatMulNBits has them
                    numbers = _numbers(numbers.reshape(rows, -1), bits)
                    zero = np.full_like(scale, 2 ** (bits - 1), np.uint8) if zero is None else zero
                    if zero.dtype == np.uint8 and zero.size < scale.size:
                        zero = _numbers(zero.reshape(rows, -1), bits)[:, : scale.shape[1]]
                    return _blocks(numbers, scale, zero, bits, size)
                return _typed_blocks(numbers, scale, zero, size)
            if after is not None:
                return self._dequantised(self.array(tensor), after, turned=True)
            table = read_plain()
            if isinstance(table, Columns):  # DequantizeLinear, then Gather
                dequantised = self.root(data)[2]
                assert dequantised is not None
                return self._dequantised(self.array(tensor), dequantised, turned=True)
            assert isinstance(table, np.ndarray)
            return np.ascontiguousarray(table.T)

        if after is not None:
            out = after.outputs[0]
        if node.op == "GatherBlockQuantized":
            width = self.constant_shape(node.inputs[2])[1] * node.attributes.get("block_size", 128)
            if self.tensors[tensor].data_type not in (TensorProto.UINT8,):
                width = self.size(tensor)[-1]
        return Weighted("E", node, out, (width, rows), read, weights=tensor)


def _numbers(stored: np.ndarray, bits: int) -> np.ndarray:
    """4-bit numbers in pairs, low half first, or bytes -> uint8."""
    return unpacked(stored) if bits == 4 else stored


def _typed_blocks(rows: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, size: int) -> Blocks:
    """Numbers (n_out, n_in) of an ONNX type of 4 or 8 bits, scale and zero (n_out, blocks), as MatMulNBits has them."""
    bits = 8 if rows.dtype in (np.int8, np.uint8) else 4
    signed = np.issubdtype(rows.dtype, np.signedinteger) if bits == 8 else rows.dtype.name == "int4"
    middle = 2 ** (bits - 1)
    shift = middle if signed else 0
    numbers = (rows.astype(np.int16) + shift).astype(np.uint8)
    zeros = np.zeros(scale.shape, np.int16) if zero is None else zero.astype(np.int16)
    return _blocks(numbers, scale, (zeros + shift).astype(np.uint8), bits, size)


def _blocks(numbers: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: int, size: int) -> Blocks:
    n_out, n_in = numbers.shape
    n_blocks = -(-n_in // size)
    stored = np.zeros((n_out, n_blocks * size), np.uint8)
    stored[:, :n_in] = numbers
    stored = stored.reshape(n_out, n_blocks, size)
    stored = packed(stored) if bits == 4 else stored
    return Blocks(stored, scale.astype(np.float32), np.ascontiguousarray(zero), bits, size, n_in)


def _other(node: Node, name: str) -> str:
    return node.inputs[1] if node.inputs[0] == name else node.inputs[0]
