"""Where our exports could run: each of their products, convolutions and attentions, and whatever else touches floats,
has a kernel on CUDA, DirectML and WebGPU for its types and inputs. kernels.json says which kernels there are, and
where that was read; what these providers do with them, only a machine that has them can say."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from cohere_lite.devices import providers
from cohere_lite.devices.side_by_side import graph_bytes
from cohere_lite.export.__main__ import export
from cohere_lite.export.graph import OPSET
from cohere_lite.model import DEMO_FOLDER

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
# {provider: {operator: [[first opset, last opset, {type variable: types}], ...]}}
KERNELS = json.loads((Path(__file__).parent / "kernels.json").read_text())
# onnxruntime's own operators: their inputs and outputs, and the variables of their types (docs/ContribOperators.md)
CONTRIB: dict[str, tuple[dict[str, str], list[str]]] = {
    "DynamicQuantizeMatMul": ({"A": "T1", "B": "T2", "b_scale": "T1", "b_zero_point": "T2", "bias": "T1"}, ["T1"]),
    "GroupQueryAttention": (
        {"query": "T", "key": "T", "value": "T", "past_key": "T_CACHE", "past_value": "T_CACHE"}
        | {"seqlens_k": "M", "total_sequence_length": "M"},
        ["T", "T_CACHE", "T_CACHE"],
    ),
    "MatMulNBits": (
        {"A": "T1", "B": "T2", "scales": "T1", "zero_points": "T3", "g_idx": "T4", "bias": "T1"},
        ["T1"],
    ),
    "MultiHeadAttention": (
        {"query": "T", "key": "T", "value": "T", "bias": "T", "key_padding_mask": "M", "attention_bias": "T"},
        ["T", "T", "T"],
    ),
    "QuickGelu": ({"X": "T"}, ["T"]),
}
HEAVY = {"MatMul", "MatMulNBits", "DynamicQuantizeMatMul", "Conv", "MultiHeadAttention", "GroupQueryAttention"}
FLOATS = {"float", "float16", "bfloat16"}
TYPES = {number: name.lower() for name, number in TensorProto.DataType.items()}  # "float", "float16", "int64", ...
EXPORTS = {"fp32": ("fp32", None), "fp16": ("fp16", None), "q8f16": ("fp16", 8), "q4f16": ("fp16", 4)}
EXPORTS |= {"bf16": ("bf16", None), "q8bf16": ("bf16", 8), "q4bf16": ("bf16", 4)}


def typed_nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, dict[str, str], dict[str, str]]]:
    """Each node, in order, with its inputs {name: type} as its operator calls them, and its variables {T: type}."""
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    graph = model.graph
    types = {value.name: TYPES[value.type.tensor_type.elem_type] for value in graph.input}
    types |= {tensor.name: TYPES[tensor.data_type] for tensor in graph.initializer}
    for node in graph.node:
        if node.domain:
            formal, results = CONTRIB[node.op_type]
            names, variables = list(formal), list(formal.values())
        else:
            schema = onnx.defs.get_schema(node.op_type, opset)
            names, variables = [value.name for value in schema.inputs], [value.type_str for value in schema.inputs]
            results = [value.type_str for value in schema.outputs]
        names += names[-1:] * len(node.input)  # the last one may repeat (Concat)
        variables += variables[-1:] * len(node.input)
        results = results + results[-1:] * len(node.output)
        inputs = {name: types[value] for name, value in zip(names, node.input, strict=False) if value}
        bound = {variable: types[value] for variable, value in zip(variables, node.input, strict=False) if value}
        if node.op_type == "Cast":
            bound[results[0]] = TYPES[node.attribute[0].i]
        if node.op_type == "Shape":
            bound[results[0]] = "int64"
        if node.op_type in {"Less", "Equal", "Greater"}:
            bound[results[0]] = "bool"
        for value, variable in zip(node.output, results, strict=False):
            types[value] = bound[variable] if variable in bound else variable.removeprefix("tensor(").removesuffix(")")
        yield node, inputs, {k: kind for k, kind in bound.items() if not k.startswith("tensor(")}
    for value in graph.output:  # or what this function knows of types is wrong
        assert types[value.name] == TYPES[value.type.tensor_type.elem_type], value.name


def has_kernel(provider: str, node: onnx.NodeProto, inputs: dict[str, str], bound: dict[str, str], opset: int) -> bool:
    if provider == "webgpu" and "key_padding_mask" in inputs:
        return False  # "not implemented", once it runs (onnxruntime-ep-webgpu 0.4.0)
    if provider == "directml" and node.op_type == "MatMulNBits" and len(node.input) != 4:
        return False  # GetInputCount() == 4, in DmlOperatorMatMulNBits.cpp
    rows = KERNELS[provider].get(f"{node.domain}.{node.op_type}" if node.domain else node.op_type, [])
    version = 1 if node.domain else opset
    return any(
        first <= version <= (last or version)
        and all(kind in types[variable].split() for variable, kind in bound.items() if variable in types)
        for first, last, types in rows
    )


def on_the_cpu(provider: str, path: Path) -> Counter[str]:
    """Operators that touch floats and have no kernel there, and how many nodes they are."""
    model = onnx.load(path, load_external_data=False)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    return Counter(
        node.op_type
        for node, inputs, bound in typed_nodes(model)
        if node.op_type in HEAVY or FLOATS & {*inputs.values(), *bound.values()}
        if node.op_type != "Shape"  # it reads no float
        if not has_kernel(provider, node, inputs, bound, opset)
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The embedded model's checkpoint, exported anew."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            precision, weight_bits = EXPORTS[name]
            export(CHECKPOINT, made[name], precision, weight_bits=weight_bits)
        return made[name]

    return folder


@pytest.mark.parametrize(
    ("provider", "name"),
    [(provider, name) for provider in ("cuda", "directml", "webgpu") for name in ("fp16", "q8f16", "q4f16")]
    + [("cuda", name) for name in ("bf16", "q8bf16", "q4bf16")]
    + [(provider, "fp32") for provider in ("directml", "webgpu")],
)
def test_a_kernel_for_every_node(exported: Callable[[str], Path], provider: str, name: str) -> None:
    for role in ("encoder", "decoder", "step"):
        assert on_the_cpu(provider, exported(name) / f"{role}.{name}.onnx") == {}


@pytest.mark.parametrize("provider", ["cuda", "directml", "webgpu"])
@pytest.mark.parametrize("name", ["fp16", "q8f16", "q4f16"])
def test_a_kernel_for_every_integer_of_a_step(exported: Callable[[str], Path], provider: str, name: str) -> None:
    """A recording holds no node that runs on the CPU, not even one that reads lengths."""
    model = onnx.load(exported(name) / f"step.{name}.onnx", load_external_data=False)
    nodes = [node.op_type for node, *typed in typed_nodes(model) if not has_kernel(provider, node, *typed, OPSET)]
    assert nodes == []


@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        ("cuda", "bfloat16"),
        *((provider, kind) for provider in ("cuda", "directml", "webgpu") for kind in ("float", "float16")),
    ],
)
def test_a_kernel_for_what_lays_clips_side_by_side(tmp_path: Path, provider: str, kind: str) -> None:
    (tmp_path / "graph.onnx").write_bytes(graph_bytes(2, TensorProto.DataType.Value(kind.upper())))
    assert on_the_cpu(provider, tmp_path / "graph.onnx") == {}


def test_cuda_has_no_float32_cache(exported: Callable[[str], Path]) -> None:
    """Attention over the caches, twice in two layers: float16 and bfloat16 alone."""
    assert on_the_cpu("cuda", exported("fp32") / "encoder.fp32.onnx") == {}
    assert on_the_cpu("cuda", exported("fp32") / "decoder.fp32.onnx") == {"GroupQueryAttention": 2}


@pytest.mark.parametrize(
    ("provider", "encoder", "decoder"),
    [
        ("cuda", {"DynamicQuantizeMatMul": 51}, {"GroupQueryAttention": 2}),
        ("webgpu", {"DynamicQuantizeMatMul": 51, "Cast": 6}, {"MultiHeadAttention": 2}),
        ("directml", {}, {"MatMulNBits": 13}),
    ],
)
def test_what_the_int8_export_leaves_on_the_cpu(provider: str, encoder: dict, decoder: dict) -> None:
    """The demonstration model; on CUDA and WebGPU these are the nodes that onnxruntime itself leaves there."""
    assert on_the_cpu(provider, DEMO_FOLDER / "encoder.int8.onnx") == encoder
    assert on_the_cpu(provider, DEMO_FOLDER / "decoder.int8.onnx") == decoder


def test_types_inputs_and_opsets_decide() -> None:
    """By kernels.json and has_kernel: convolutions of bfloat16, a third input alone, a mask."""
    conv = onnx.helper.make_node("Conv", ["x", "weight"], ["y"])
    assert has_kernel("cuda", conv, {}, {"T": "float16"}, 17)
    assert not has_kernel("cuda", conv, {}, {"T": "bfloat16"}, 17)
    assert has_kernel("cuda", conv, {}, {"T": "bfloat16"}, 22)
    for inputs in (["a", "b", "scale"], ["a", "b", "scale", ""]):
        product = onnx.helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft")
        assert has_kernel("directml", product, {}, {"T1": "float16"}, 17) == (len(inputs) == 4)
    attention = onnx.helper.make_node("MultiHeadAttention", ["q"], ["y"], domain="com.microsoft")
    for mask, provider in ((mask, provider) for mask in ("attention_bias", "key_padding_mask") for provider in KERNELS):
        if provider != "origin":
            expected = (provider, mask) != ("webgpu", "key_padding_mask")
            assert has_kernel(provider, attention, {mask: "float16"}, {"T": "float16"}, 17) == expected


def test_webgpus_kernels_are_those_of_the_table() -> None:
    """Of the plugin that is installed: at the opset of our exports, at least these."""
    pytest.importorskip("onnxruntime_ep_webgpu")
    from onnxruntime.capi.onnxruntime_pybind11_state import get_registered_ep_kernel_defs

    try:
        providers.find_plans(["webgpu"])
    except providers.ProviderError as error:
        pytest.skip(str(error))
    there: dict[tuple[str, str], set[str]] = {}
    for kernel in get_registered_ep_kernel_defs("WebGpuExecutionProvider"):
        first, last = kernel.version_range
        if first <= (1 if kernel.domain else OPSET) <= last:
            operator = f"{kernel.domain}.{kernel.op_name}" if kernel.domain else kernel.op_name
            for variable, kinds in kernel.type_constraints.items():
                there.setdefault((operator, variable), set()).update(
                    kind.removeprefix("tensor(")[:-1] for kind in kinds
                )
    recorded = {
        (operator, variable): kinds.split()
        for operator, rows in KERNELS["webgpu"].items()
        for first, last, types in rows
        if first <= (1 if "." in operator else OPSET) <= (last or OPSET)
        for variable, kinds in types.items()
    }
    assert len(recorded) > 50
    assert {key: kinds for key, kinds in recorded.items() if not there.get(key, set()).issuperset(kinds)} == {}
