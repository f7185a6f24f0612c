"""A float32 graph on disk -> the model in a precision that people publish, with onnxruntime's own tools; and files."""

from pathlib import Path
from unittest.mock import patch

import onnx
from onnx.external_data_helper import set_external_data
from onnxruntime.quantization import QuantType, onnx_quantizer, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

BLOCK = 32  # weights that share a scale
MIN_EXTERNAL = 1024  # bytes; smaller tensors stay in the graph


def convert(source: Path, precision: str, float32: list[str]) -> onnx.ModelProto:
    """float32: the inputs and outputs that stay so when others become float16. Needs room beside `source`."""
    if precision == "fp32":
        return onnx.load(source)
    if precision == "fp16":
        return convert_float_to_float16(str(source), keep_io_types=float32)
    if precision == "q4f16":
        return _four_bits(convert(source, "fp16", float32), symmetric=True, tables=True)
    if precision == "q4":
        return _four_bits(onnx.load(source), symmetric=True, tables=True)
    if precision == "int4":
        return _four_bits(onnx.load(source), symmetric=False, tables=False)
    return _eight_bits(source, precision)


def _eight_bits(source: Path, precision: str) -> onnx.ModelProto:
    """The card's recipe: every Conv and BatchNormalization stays float32."""
    graph = onnx.load(source, load_external_data=False).graph
    made = source.parent / "quantised.onnx"
    # After replacing every Gemm, of which there is none here, the quantiser writes a copy and reads it again: it would
    # hold the float32 model three times.
    with patch.object(onnx_quantizer, "save_and_reload_model_with_shape_infer", lambda model: model):
        quantize_dynamic(
            source,
            made,
            weight_type=QuantType.QUInt8 if precision == "uint8" else QuantType.QInt8,
            per_channel=precision == "int8-per-channel",
            nodes_to_exclude=[node.name for node in graph.node if node.op_type in ("Conv", "BatchNormalization")],
            use_external_data_format=True,
            extra_options={"EnableSubgraph": True},  # weights in the branches of an If, too
        )
    model = onnx.load(made)
    for path in (made, made.with_name(f"{made.name}.data")):
        path.unlink()
    return model


def _four_bits(model: onnx.ModelProto, symmetric: bool, tables: bool) -> onnx.ModelProto:
    """tables: those of the embedding, too, if there are any; this asks for a later opset."""
    weights = {tensor.name for tensor in model.graph.initializer}
    tables &= any(node.op_type == "Gather" and node.input[0] in weights for node in model.graph.node)
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK,
        is_symmetric=symmetric,
        op_types_to_quantize=("MatMul", "Gather") if tables else ("MatMul",),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    quantizer = MatMulNBitsQuantizer(model, algo_config=config)
    quantizer.process()
    return quantizer.model.model


def save(model: onnx.ModelProto, path: Path, data: str | None, shards: int) -> None:
    """data: what is added to the name for the file with the weights, and _1, _2 ... for more; None: one file in all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= MIN_EXTERNAL]
    total, done = sum(len(tensor.raw_data) for tensor in large), 0
    for tensor in large if data else []:
        shard = done * shards // total
        done += len(tensor.raw_data)
        location = f"{path.name}{data}" + (f"_{shard}" if shard else "")
        set_external_data(tensor, location)
        (path.parent / location).unlink(missing_ok=True)  # onnx would add to it
    onnx.save(model, path)
