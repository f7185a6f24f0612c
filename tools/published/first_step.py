"""What family 03-2026 of contract C does at the first step only: two If nodes around a traced decoder. One makes the
cross-attention's keys and values from encoder_hidden_states, or takes them from the past; one gives them out, or, at
later steps, tensors of length 0.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from transformers import CohereAsrForConditionalGeneration

from .contracts import caches

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def add_first_step(decoder: onnx.ModelProto, model: CohereAsrForConditionalGeneration) -> None:
    """`decoder`: a traced MergedDecoder; its inputs cross_attn.* become values inside."""
    graph, config = decoder.graph, model.config
    heads, head_dim = config.num_attention_heads, config.head_dim
    cross, past, present = (
        list(caches(model, prefix, "encoder", "")) for prefix in ("cross_attn", "past_key_values", "present")
    )
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value), f"first_step/{name}")
        for name, value in [("by_head", [0, 0, heads, head_dim]), ("none", [0]), ("zero", 0), ("axis", [2]), ("two", 2)]
    )

    def node(op: str, name: str, inputs: list[str], output: str, **settings) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [output], f"/model/{name}", **settings)

    make, take, nothing, echo = [], [], [], []
    for i, layer in enumerate(model.model.decoder.layers):
        for j, (what, linear) in enumerate((("k", layer.encoder_attn.k_proj), ("v", layer.encoder_attn.v_proj))):
            at, name = 2 * i + j, f"layers.{i}/encoder_attn/{what}_proj"
            weights = (_initializer(graph, f"{name}.weight", linear.weight.T), f"{name}.bias")
            _initializer(graph, weights[1], linear.bias)
            make += [
                node("MatMul", f"{name}/MatMul", ["states", weights[0]], f"{name}/product"),
                node("Add", f"{name}/Add", [f"{name}/product", weights[1]], f"{name}/flat"),
                node("Reshape", f"{name}/Reshape", [f"{name}/flat", "first_step/by_head"], f"{name}/split"),
                node("Transpose", f"{name}/Transpose", [f"{name}/split"], f"{cross[at]}/made", perm=[0, 2, 1, 3]),
            ]
            take.append(node("Identity", f"{name}/take", [past[at]], f"{cross[at]}/taken"))
            cut = ["first_step/none", "first_step/none", "first_step/axis"]
            nothing.append(node("Slice", f"{name}/nothing", [cross[at], *cut], f"{cross[at]}/nothing"))
            echo.append(node("Identity", f"{name}/echo", [cross[at]], f"{cross[at]}/echo"))

    shape = ["batch_size", heads, "encoder_sequence_length_out", head_dim]

    def branch(nodes: list[onnx.NodeProto], ending: str) -> onnx.GraphProto:
        outputs = [helper.make_tensor_value_info(f"{name}/{ending}", FLOAT, None) for name in cross]
        return helper.make_graph(nodes, ending, [], outputs)

    def either(name: str, first: onnx.GraphProto, later: onnx.GraphProto, outputs: list[str]) -> onnx.NodeProto:
        return helper.make_node("If", ["is_first_step"], outputs, name, then_branch=first, else_branch=later)

    before = [
        node("Identity", "states", ["encoder_hidden_states"], "states"),
        node("Shape", "past_shape", ["past_key_values.0.decoder.key"], "past_shape"),
        node("Gather", "past_length", ["past_shape", "first_step/two"], "past_length", axis=0),
        node("Equal", "is_first_step", ["past_length", "first_step/zero"], "is_first_step"),
        either("/model/if_cross_attn_kv_cache", branch(make, "made"), branch(take, "taken"), cross),
        either("/model/if_cross_attn_public_cache", branch(echo, "echo"), branch(nothing, "nothing"), present),
    ]
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    known = {value.name: value for value in (*graph.input, *graph.output)}
    names = ["batch_size", "encoder_sequence_length", config.hidden_size]
    known["encoder_hidden_states"] = helper.make_tensor_value_info("encoder_hidden_states", FLOAT, names)
    past_shape = [*shape[:2], "past_encoder_sequence_length", head_dim]
    known |= {name: helper.make_tensor_value_info(name, FLOAT, past_shape) for name in past}
    known |= {name: helper.make_tensor_value_info(name, FLOAT, shape) for name in present}
    inputs, outputs = [value.name for value in graph.input[:4]] + ["encoder_hidden_states"], ["logits"]
    for i in range(config.num_hidden_layers):
        sides = [f"{i}.{side}.{what}" for side in ("decoder", "encoder") for what in ("key", "value")]
        inputs += [f"past_key_values.{name}" for name in sides]
        outputs += [f"present.{name}" for name in sides]
    for values, wanted in ((graph.input, inputs), (graph.output, outputs)):
        del values[:]
        values.extend(known[name] for name in wanted)


def _initializer(graph: onnx.GraphProto, name: str, value: Tensor) -> str:
    graph.initializer.append(numpy_helper.from_array(value.detach().contiguous().numpy(), name))
    return name
