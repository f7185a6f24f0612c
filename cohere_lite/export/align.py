"""The decoder's graph for tokens that are known, all at once, which tells where in the audio each layer's heads look
(extras/word_times.py): no caches, no logits, and no layer after the last one that is asked."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..model import read_config
from .step import needed_nodes

NAME = "generation_config.json"


def write_align(decoder: Path, heads: Sequence[Sequence[int]] | None) -> None:
    """Write align.PRECISION.onnx beside decoder.PRECISION.onnx, a graph of the fast contract, whose weights it shares.

        tokens (1, n) int64, cross_key_i, cross_value_i (1, heads, T', head_dim)
        -> attention_i float32 (1, heads, n, T'), each row's sum 1; row r belongs to token r, and predicts token r + 1

    heads: (layer, head) of those that follow the speech, which its metadata then name (alignment_heads, as JSON), for
    outputs of their layers alone; None where nobody knows: outputs of all layers."""
    model = onnx.load(decoder, load_external_data=False)
    cross = [node for node in model.graph.node if node.op_type == "MultiHeadAttention"]  # in the order of the layers
    layers = range(len(cross)) if heads is None else sorted({layer for layer, _ in heads})
    key = next(value.type.tensor_type for value in model.graph.input if value.name == "cross_key_0")
    _, n_heads, _, head_dim = (size.dim_value for size in key.shape.dim)
    if unknown := [pair for pair in heads or [] if pair[0] >= len(cross) or pair[1] >= n_heads]:
        raise ValueError(f"alignment_heads names {unknown[0]}; there are {len(cross)} layers of {n_heads} heads")
    constants = {
        "by_head": np.array([0, 0, n_heads, head_dim]),
        "offset": np.array(0),
        "one": np.array(1, np.int32),
        "second": np.array([1]),
    }
    nodes = [
        helper.make_node("Shape", ["tokens"], ["tokens_shape"]),
        helper.make_node("Gather", ["tokens_shape", "second"], ["n_tokens"]),
        helper.make_node("Cast", ["n_tokens"], ["lengths"], to=TensorProto.INT32),
        helper.make_node("Squeeze", ["lengths"], ["total"]),
        helper.make_node("Sub", ["lengths", "one"], ["last"]),
    ]
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention":  # of the prompt, so to say: nothing is past
            node.input[3:7] = ["", "", "last", "total"]  # onnxruntime 1.23 wants to be asked for what is present
        elif node.op_type == "MultiHeadAttention":
            del node.input[3:]  # no mask: one clip
        nodes.append(node)
    for layer in layers:
        nodes += _attention(cross[layer].input[0], layer, key.elem_type)
    outputs = [
        helper.make_tensor_value_info(f"attention_{layer}", TensorProto.FLOAT, [1, n_heads, "n_tokens", "frames"])
        for layer in layers
    ]
    nodes = needed_nodes(nodes, {value.name for value in outputs})
    read = {name for node in nodes for name in node.input}
    inputs = [value for value in model.graph.input if value.name in read - {*constants}]
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    weights += [numpy_helper.from_array(array, name) for name, array in constants.items() if name in read]
    model.graph.CopyFrom(helper.make_graph(nodes, "align", inputs, outputs, weights))
    if heads is not None:
        model.metadata_props.add(key="alignment_heads", value=json.dumps([[*map(int, pair)] for pair in heads]))
    unfinished = aligned(decoder).with_suffix(".unfinished")  # a graph that was cut short would look like one
    try:
        unfinished.write_bytes(model.SerializeToString())
        unfinished.replace(aligned(decoder))
    finally:
        unfinished.unlink(missing_ok=True)


def aligned(decoder: Path) -> Path:
    """Where a decoder's graph for word times is."""
    return decoder.with_name(decoder.name.replace("decoder", "align"))


def _attention(query: str, layer: int, elem_type: int) -> list[NodeProto]:
    """What the cross-attention weighs its values with, from its query (1, n, width): queries are scaled already."""
    own = [f"align_{part}_{layer}" for part in ("query", "rows", "keys", "scores", "floats")]
    split, rows, keys, scores, floats = own
    return [
        helper.make_node("Reshape", [query, "by_head"], [split]),
        helper.make_node("Transpose", [split], [rows], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", [f"cross_key_{layer}"], [keys], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", [rows, keys], [scores]),
        helper.make_node("Cast", [scores], [floats], to=TensorProto.FLOAT),
        helper.make_node("Softmax", [floats], [f"attention_{layer}"], axis=-1),
    ]


def read_alignment_heads(*folders: Path) -> list[list[int]] | None:
    """[layer, head] of those that follow the speech, as transformers' Whisper has them in generation_config.json
    (alignment_heads), of the first folder that has one; None where nobody has chosen any. Raises ValueError for what is
    no such list."""
    path = next((path for folder in folders if (path := folder / NAME).is_file()), None)
    heads = read_config(path).get("alignment_heads") if path else None
    pairs = isinstance(heads, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in heads)
    if heads is not None and not (pairs and heads and all(type(n) is int and n >= 0 for pair in heads for n in pair)):
        raise ValueError(f"{path}: alignment_heads is {heads!r}; it must be a list of [layer, head]")
    return heads
