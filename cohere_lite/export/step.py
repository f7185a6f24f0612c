"""The decoder's graph for one token of each clip, to be recorded once and launched as a whole (devices/recorded.py).

A recording repeats the same launches on the same addresses, so the graph has no node that runs on the CPU, and reads
nothing from the CPU's memory: positions and lengths are inputs, sizes are constants, and the attention to the encoder
covers the frames of the longest clip."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from .graph import MASKED


def write_step(decoder: Path, n_frames: int) -> None:
    """Write step.PRECISION.onnx beside decoder.PRECISION.onnx, a graph for devices, whose weights it shares.

        tokens (B, 1), last_position (B,), encoder_length (B,), all int32, past_*, and cross_* of n_frames
        -> logits, present_*, next_token, next_logprob, as the decoder's

    n_frames: encoder frames of the longest clip."""
    model = onnx.load(decoder, load_external_data=False)
    inputs = {value.name: value for value in model.graph.input}
    float_type = inputs["past_key_0"].type.tensor_type.elem_type
    _, heads, max_positions, _ = (size.dim_value for size in inputs["past_key_0"].type.tensor_type.shape.dim)
    integers = {
        "max_positions": np.array(max_positions, np.int32),
        "frames": np.arange(n_frames, dtype=np.int32),
        "second_axis": np.array([1]),
        "all_but_the_first": np.array([1, 2, 3]),
    }
    constants = [numpy_helper.from_array(array, name) for name, array in integers.items()]
    constants.append(helper.make_tensor("seen", float_type, [1, heads, 1, 1], [0.0] * heads))
    constants.append(helper.make_tensor("masked", float_type, [], [MASKED]))
    nodes = [
        helper.make_node("Gather", ["decoder.pos_emb.weight", "last_position"], ["position"]),
        helper.make_node("Unsqueeze", ["position", "second_axis"], ["positions"]),
        helper.make_node("Unsqueeze", ["encoder_length", "all_but_the_first"], ["n_seen"]),
        helper.make_node("Less", ["frames", "n_seen"], ["is_seen"]),
        helper.make_node("Where", ["is_seen", "seen", "masked"], ["cross_bias"]),
        *model.graph.node,
    ]
    instead: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Slice" and node.input[0] == "decoder.pos_emb.weight":
            instead[node.output[0]] = "positions"
        elif node.op_type == "GroupQueryAttention":
            node.input[5:7] = ["last_position", "max_positions"]
        elif node.op_type == "MultiHeadAttention":
            node.input[5] = "cross_bias"
        node.input[:] = [instead.get(name, name) for name in node.input]
    fed = [_integers("tokens", 1), _integers("last_position"), _integers("encoder_length")]
    for name, value in inputs.items():
        if name.startswith("cross_"):
            value.type.tensor_type.shape.dim[2].dim_value = n_frames
        if name.startswith(("past_", "cross_")):
            fed.append(value)
    nodes = needed_nodes(nodes, {value.name for value in model.graph.output})
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in (*model.graph.initializer, *constants) if tensor.name in read]
    model.graph.CopyFrom(helper.make_graph(nodes, "step", fed, model.graph.output, weights))
    decoder.with_name(decoder.name.replace("decoder", "step")).write_bytes(model.SerializeToString())


def _integers(name: str, *sizes: int) -> ValueInfoProto:
    """A value of int32, (B, *sizes)."""
    return helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", *sizes])


def needed_nodes(nodes: Iterable[NodeProto], values: set[str]) -> list[NodeProto]:
    """The nodes that these values come from, in order."""
    needed, kept = set(values), []
    for node in reversed([*nodes]):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]
