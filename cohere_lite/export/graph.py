"""An ONNX graph under construction. Weights go to the external data file as they come and are then forgotten,
so the memory needed is that of the largest tensor, not of the model."""

from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from .matrix import Blocks, Columns, Matrix, dense

OPSET = 17  # the first with LayerNormalization; every onnxruntime since 1.13 reads it
IR_VERSION = 8
CONTRIB = "com.microsoft"  # onnxruntime's own operators

INLINE_BYTES = 1024  # smaller tensors stay in the .onnx file: onnx's own default for external data
ALIGNMENT = 64  # bytes: a cache line, so that vector loads never cross one more than they must

# Matrix products, by the scales of their weights and activations:
#   float    none: both are floats
#   int8     one per output channel, and one for all activations: fastest for many rows at once
#   int8b    one per block of weights, and one per row and block of activations: fastest for few rows, and a row's
#   int4b    result does not depend on the other rows (clips decoded together must not change each other's text)
BLOCK_BITS = {"int8b": 8, "int4b": 4}
# Weights that share a scale: the largest of these that divides a row, to waste nothing on padding. Large blocks are
# faster (4 bits, a decoder step: 5.2 ms with 128, 6.9 with 32), and the demonstration model's word error rates are
# the same within a few words.
BLOCK_SIZES = (128, 64, 32)

_TYPES = ("float32", "float16", "int8", "uint8", "int32", "int64")
DTYPES = {np.dtype(name): helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in _TYPES}
DTYPES[np.dtype(ml_dtypes.bfloat16)] = TensorProto.BFLOAT16

MASKED = -10_000.0  # added to the scores of what must not be seen: its exponential is zero, and float16 ends at 65504
# Numbers below it are rounded more coarsely in float16, whose steps are 2**-24 there, than in bfloat16.
COARSE = 2.0**-16
COARSE_SHARE = 0.01  # of a weight's numbers, more of which are told


class StoredBlocks(NamedTuple):
    """Blocks in a graph: the names of their tensors (zero "": none), and how they are laid out."""

    weight: str
    scale: str
    zero: str
    n_in: int
    n_out: int
    bits: int
    size: int


class Graph:
    """Add inputs, nodes and weights in order, then `save`. Values are referred to by name.

    float_type: of weights and of what is computed with them: "float32", "float16" or "bfloat16". Where it is not
    float32, or products are those of floats, operators are chosen that CUDA, DirectML and WebGPU have kernels for.
    standard: only ONNX's own operators are wanted, and not onnxruntime's."""

    def __init__(self, path: Path, product: str, float_type: str = "float32", standard: bool = False) -> None:
        self.product = product
        self.standard = standard
        self.float_type = float_type
        # Conv has no bfloat16 before opset 22
        self.conv_type = "float32" if float_type == "bfloat16" else float_type
        self.for_devices = product == "float" or float_type != "float32"
        self._path = path
        self._data = open(_data_path(path), "wb")  # noqa: SIM115 - closed in save
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple, str] = {}
        self.keep_blocks = False  # even where INT8 products are faster
        self.moved: dict[str, tuple[float, float]] = {}  # by a second quantisation: squares of errors and of weights
        self.coarse: dict[str, tuple[float, float]] = {}  # in float16: shares of a weight's numbers, and of new zeros

    def __enter__(self) -> "Graph":
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def input(self, name: str, dtype: str, shape: list[int | str]) -> str:
        """Add an input of the graph; a size that varies is given as its name. Returns `name`."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[np.dtype(dtype)], shape))
        return name

    def output(self, name: str, dtype: str, shape: list[int | str]) -> str:
        """Declare the value called `name` an output of the graph; shape as for `input`. Returns `name`."""
        self._outputs.append(helper.make_tensor_value_info(name, DTYPES[np.dtype(dtype)], shape))
        return name

    def node(self, op: str, *inputs: str, out: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, named `out` or after the operator."""
        return self.nodes(op, *inputs, out=[out or self._new_name(op)], domain=domain, **attributes)[0]

    def nodes(self, op: str, *inputs: str, out: list[str] | int, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs. out: their names ("" leaves one out), or how many. Returns their names."""
        outputs = [f"{self._new_name(op)}_{i}" for i in range(out)] if isinstance(out, int) else out
        self._nodes.append(helper.make_node(op, list(inputs), outputs, domain=domain, **attributes))
        return outputs

    def cast(self, x: str, before: str, after: str, out: str | None = None) -> str:
        """x, of the type `before`, in the type `after`; x itself where they are one and it needs no name."""
        return x if before == after and out is None else self.node("Cast", x, to=DTYPES[np.dtype(after)], out=out)

    def constant(self, value: Any, dtype: str = "int64") -> str:
        """A small constant (shape, index, scale); equal ones are stored once."""
        array = np.asarray(value, dtype)
        key = (array.tobytes(), array.shape, dtype)
        if key not in self._constants:
            self._constants[key] = self._store(f"constant_{len(self._constants)}", array)
        return self._constants[key]

    def weight(self, name: str, array: np.ndarray, float_type: str | None = None) -> str:
        """Write a tensor, of a type in DTYPES, float32 in the given type or the graph's; return its name. Raises
        ValueError for numbers that float16 cannot hold."""
        if array.dtype == np.float32:
            array = self._rounded(name, array, float_type or self.float_type)
        return self._store(name, array)

    def _rounded(self, name: str, array: np.ndarray, float_type: str) -> np.ndarray:
        if float_type != "float16":
            return array.astype(float_type, copy=False)
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float16)
        if np.isinf(rounded).any():
            largest = array.flat[np.abs(array).argmax()]
            raise ValueError(f"{name} goes to {largest:.4g}, and float16 to 65504: use --precision bf16 or fp32")
        if n_numbers := np.count_nonzero(array):
            n_coarse = np.count_nonzero(np.abs(array[array != 0]) < COARSE)
            if n_coarse > COARSE_SHARE * n_numbers:
                self.coarse[name] = n_coarse / n_numbers, 1 - np.count_nonzero(rounded) / n_numbers
        return rounded

    def _store(self, name: str, array: np.ndarray) -> str:
        array = np.require(array, requirements="C")
        tensor = TensorProto(name=name, data_type=DTYPES[array.dtype], dims=array.shape)
        if array.nbytes < INLINE_BYTES:
            tensor.raw_data = array.tobytes()
        else:
            self._data.write(b"\0" * (-self._data.tell() % ALIGNMENT))
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": _data_path(self._path).name, "offset": self._data.tell(), "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            self._data.write(array.tobytes())
        self._initializers.append(tensor)
        return name

    def linear(self, name: str, x: str, weight: Matrix, bias: np.ndarray, product: str | None = None) -> str:
        """x (..., n_in) @ weight (n_in, n_out) + bias (n_out,), by the graph's product or the given one. Floats are
        quantised for it; what is quantised already is written as it is, wherever the product has a place for it."""
        product = product or self.product
        bias_name = self.weight(f"{name}.bias", bias)
        if product == "float":
            return self.node("Add", self.node("MatMul", x, self.weight(f"{name}.weight", dense(weight))), bias_name)
        if product == "int8" and not (self.keep_blocks and isinstance(weight, Blocks)):
            return self.column_product(x, self.store_columns(name, self.in_columns(weight)), bias_name)
        return self.block_product(
            x, self.store_blocks(name, self.in_blocks(weight, BLOCK_BITS.get(product, 8))), bias_name
        )

    def in_columns(self, weight: Matrix) -> Columns:
        """INT8 with a scale per column, as stored or quantised now."""
        if isinstance(weight, Columns):
            return weight
        numbers, scale = quantize_columns(dense(weight))
        columns = Columns.of(numbers, scale)
        if isinstance(weight, Blocks):
            self.note(f"products in {weight.bits}-bit blocks", weight.dense(), columns)
        return columns

    def in_blocks(self, weight: Matrix, bits: int) -> Blocks:
        """Blocks as stored, of 8 bits from INT8 columns, or of so many bits quantised now."""
        if isinstance(weight, Blocks):
            return weight
        size = block_size(weight.shape[0])
        if isinstance(weight, Columns):
            return weight.in_blocks(size)
        stored, scale = quantize_blocks(weight.T, bits, self.float_type)
        return Blocks(stored, scale, np.full(scale.shape, 2 ** (bits - 1), np.uint8), bits, size, len(weight))

    def note(self, what: str, before: np.ndarray, after: Columns) -> None:
        """Remember how much a second quantisation has moved weights."""
        error, total = self.moved.get(what, (0.0, 0.0))
        error += float(np.square(after.dense() - before, dtype=np.float64).sum())
        self.moved[what] = error, total + float(np.square(before, dtype=np.float64).sum())

    def store_columns(self, name: str, columns: Columns) -> list[str]:
        """Write them; the names of numbers, scale and zero point ("": none, signed and symmetric)."""
        stored = [self.weight(f"{name}.weight", columns.numbers), self.weight(f"{name}.scale", columns.scale)]
        return [*stored, self.weight(f"{name}.zero_point", columns.zero) if columns.zero.any() else ""]

    def column_product(self, x: str, stored: list[str], bias: str, out: str | None = None) -> str:
        """x (..., n_in) times the columns that were stored."""
        return self.node("DynamicQuantizeMatMul", x, *stored, bias, domain=CONTRIB, out=out)

    def store_blocks(self, name: str, blocks: Blocks) -> "StoredBlocks":
        """Write them."""
        weight, scale = self.weight(f"{name}.weight", blocks.stored), self.weight(f"{name}.scale", blocks.scale)
        zero = self.weight(f"{name}.zero_point", blocks.packed_zero_points()) if blocks.has_zero_points else ""
        return StoredBlocks(weight, scale, zero, *blocks.shape, blocks.bits, blocks.size)

    def block_product(self, x: str, stored: "StoredBlocks", bias: str, out: str | None = None) -> str:
        """x (..., n_in) times the blocks that were stored."""
        inputs = [x, stored.weight, stored.scale, stored.zero]
        sizes: dict[str, Any] = {"K": stored.n_in, "N": stored.n_out, "bits": stored.bits, "block_size": stored.size}
        if self.for_devices:
            # DirectML takes four inputs, named or not, and CUDA has its fast kernels without a bias. Activations stay
            # what they are: 0.02 % off. WebGPU and the CPU would take them in INT8 with accuracy_level 4, 0.6 % off.
            return self.node("Add", self.node("MatMulNBits", *inputs, domain=CONTRIB, **sizes), bias, out=out)
        inputs += ["", bias]  # "": no order of columns
        # 4: activations in INT8 too, a scale per row and block; otherwise weights become floats
        return self.node("MatMulNBits", *inputs, domain=CONTRIB, **sizes, accuracy_level=4, out=out)

    def save(self, metadata: dict[str, str]) -> None:
        """Write the .onnx file, with `metadata` in it; the weights are in the data file already."""
        self._data.close()
        graph = helper.make_graph(self._nodes, self._path.stem, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid(CONTRIB, 1)] * (not self.standard)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cohere_lite")
        helper.set_model_props(model, metadata)
        self._path.write_bytes(model.SerializeToString())

    def _new_name(self, op: str) -> str:
        return f"{op}_{len(self._nodes)}"


def quantize_columns(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (n_in, n_out) -> int8 (n_in, n_out) in -127..127 and float32 scale (n_out,), one per output channel."""
    scale = np.abs(weight).max(axis=0) / np.float32(127)
    scale[scale == 0] = 1  # a column of zeros stays zeros
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def block_size(n_in: int) -> int:
    """How many weights of a row of n_in share a scale."""
    return next((size for size in BLOCK_SIZES if n_in % size == 0), BLOCK_SIZES[-1])


def quantize_blocks(weight: np.ndarray, bits: int, scale_type: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """float32 (n_out, n_in) -> the weights of MatMulNBits: uint8 (n_out, blocks, bytes of a block), and float32 scales
    (n_out, blocks), which scale_type holds exactly. The last block of a row is padded with zeros. Numbers are stored
    plus 2**(bits - 1), the operator's default zero point; 4-bit numbers in pairs, low half first."""
    n_out, n_in = weight.shape
    size, middle = block_size(n_in), 2 ** (bits - 1)
    n_blocks = -(-n_in // size)
    blocks = np.zeros((n_out, n_blocks * size), np.float32)
    blocks[:, :n_in] = weight
    blocks = blocks.reshape(n_out, n_blocks, size)
    # The largest number becomes -middle, and the scale takes its sign: a step is largest / middle, where +(middle - 1)
    # would make it largest / (middle - 1).
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
    exact = -largest / np.float32(middle)
    scale = exact.astype(scale_type).astype(np.float32)  # rounded before weights are counted in it
    smallest = np.float32(ml_dtypes.finfo(scale_type).smallest_subnormal)
    scale = np.where((scale == 0) & (exact != 0), np.copysign(smallest, exact), scale)
    scale[scale == 0] = 1
    stored = (np.rint(blocks / scale).clip(-middle, middle - 1) + middle).astype(np.uint8)
    if bits == 4:
        stored = stored[..., 0::2] | stored[..., 1::2] << 4
    return stored, scale[..., 0]


def _data_path(path: Path) -> Path:
    return path.with_name(path.name + ".data")
