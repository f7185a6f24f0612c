"""A model folder of the published contract whose decoder answers by script: logits depend on the position alone.

Small enough to read, so what the runtime must do with it can be worked out by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

LAYERS, HEADS, HEAD_DIM, WIDTH = 1, 1, 2, 2
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
PIECES = [
    *("<unk>", "<pad>", "<|endoftext|>", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>"),
    *("<|pnc|>", "<|nopnc|>", "<|itn|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>", "<|en|>", "<|fr|>"),
    *("▁", "▁a", "▁b", "▁c"),
]
END, A, B, C = (PIECES.index(piece) for piece in ("<|endoftext|>", "▁a", "▁b", "▁c"))
CACHE_SHAPE = [LAYERS, "batch", HEADS, "positions", HEAD_DIM]

# How the decoder treats its caches; the answer is the same, as long as input and output are different buffers.
PASS_THROUGH, READ_AFTER_WRITE, COUNT_LEFTOVERS = "pass through", "read after write", "count leftovers"


def write_model(
    folder: Path,
    script: Sequence[int],
    max_positions: int,
    caches: str = PASS_THROUGH,
    bad_at: int | None = None,
    bad: float = np.nan,
    decoder_width: int = WIDTH,
    encoder_input: str = "mel",
    dtype: str = "float32",
) -> Path:
    """script[p]: the token that follows position p.  bad_at: position whose logits are all `bad`.  decoder_width:
    channels of the cross keys that the decoder takes; the encoder's have WIDTH.  encoder_input: "mel" or
    "audio";  dtype: of it, a name of TYPES."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES)), encoding="utf-8")
    table = np.full((max_positions, len(PIECES)), -1, np.float32)
    for position, token in enumerate(script):
        table[position, token] = 1
    if bad_at is not None:
        table[bad_at] = bad
    _save(folder / "encoder.onnx", _encoder(encoder_input, dtype))
    _save(folder / "decoder.onnx", _decoder(table, max_positions, caches, decoder_width))
    return folder


def _encoder(name: str, dtype: str):
    """Cross keys and values of a frame each, all of them the mean of the input: no decoder here looks at them."""
    axes = {"mel": [1, 2], "audio": [1]}[name]
    nodes = [
        helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=axes, keepdims=0),  # (B,)
        helper.make_node("Reshape", ["mean", "shape"], ["scalar"]),
        helper.make_node("Expand", ["scalar", "full"], ["n_layer_cross_k"]),
        helper.make_node("Identity", ["n_layer_cross_k"], ["n_layer_cross_v"]),
    ]
    constants = {"shape": np.array([1, -1, 1, 1]), "full": np.array([LAYERS, 1, 1, WIDTH])}
    cross = [LAYERS, "batch", "frames", WIDTH]
    shape = {"mel": ["batch", 128, "t"], "audio": ["batch", "samples"]}[name]
    outputs = {"n_layer_cross_k": cross, "n_layer_cross_v": cross}
    return _graph(nodes, constants, {name: shape}, outputs, {name: TYPES[dtype]})


def _decoder(table: np.ndarray, max_positions: int, caches: str, width: int):
    cache = [max_positions if size == "positions" else size for size in CACHE_SHAPE]
    nodes = [
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["n"]),
        helper.make_node("Add", ["offset", "n"], ["end"]),
        helper.make_node("Range", ["offset", "end", "one"], ["positions"]),
        helper.make_node("Gather", ["table", "positions"], ["scripted"]),
        helper.make_node("Unsqueeze", ["scripted", "zero"], ["batched"]),
    ]
    if caches == READ_AFTER_WRITE:
        # out = in + 1, then in + 1 - out is read: 0, unless both are one buffer
        nodes += [
            helper.make_node("Add", ["in_n_layer_self_k_cache", "one_f"], ["out_n_layer_self_k_cache"]),
            helper.make_node("Sub", ["in_n_layer_self_k_cache", "out_n_layer_self_k_cache"], ["difference"]),
            helper.make_node("Add", ["difference", "one_f"], ["fault"]),
        ]
    elif caches == COUNT_LEFTOVERS:
        # out = in + 1; what a clip finds at its start must be zeros
        nodes += [
            helper.make_node("Add", ["in_n_layer_self_k_cache", "one_f"], ["out_n_layer_self_k_cache"]),
            helper.make_node("Cast", ["offset"], ["later"], to=TensorProto.BOOL),
            helper.make_node("Not", ["later"], ["at_start"]),
            helper.make_node("Cast", ["at_start"], ["counts"], to=TensorProto.FLOAT),
            helper.make_node("Abs", ["in_n_layer_self_k_cache"], ["leftovers"]),
            helper.make_node("Mul", ["leftovers", "counts"], ["fault"]),
        ]
    else:
        nodes += [
            helper.make_node("Identity", ["in_n_layer_self_k_cache"], ["out_n_layer_self_k_cache"]),
            helper.make_node("Shape", ["in_n_layer_self_k_cache"], ["cache_shape"]),
            helper.make_node("Cast", ["cache_shape"], ["cache_shape_f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["cache_shape_f", "zero_f"], ["fault"]),
        ]
    nodes += [
        helper.make_node("Identity", ["in_n_layer_self_v_cache"], ["out_n_layer_self_v_cache"]),
        helper.make_node("ReduceMean", ["fault"], ["mean_fault"], keepdims=0),
        helper.make_node("Mul", ["mean_fault", "spoil"], ["shift"]),
        helper.make_node("Add", ["batched", "shift"], ["logits"]),
    ]
    spoil = np.zeros(len(PIECES), np.float32)
    spoil[C] = 1000  # a fault makes every answer "c"
    constants = {"one": np.array(1), "zero": np.array([0]), "table": table, "spoil": spoil}
    constants |= {"one_f": np.float32(1), "zero_f": np.float32(0)}
    cross = [LAYERS, "batch", "frames", width]
    inputs = {"tokens": ["batch", "n"], "in_n_layer_self_k_cache": cache, "in_n_layer_self_v_cache": cache}
    inputs |= {"n_layer_cross_k": cross, "n_layer_cross_v": cross, "offset": []}
    outputs = {
        "logits": ["batch", "n", len(PIECES)],
        "out_n_layer_self_k_cache": cache,
        "out_n_layer_self_v_cache": cache,
    }
    return _graph(nodes, constants, inputs, outputs)


def _graph(nodes, constants: dict, inputs: dict, outputs: dict, types: dict | None = None):
    def values(named: dict) -> list:
        kinds = {"tokens": TensorProto.INT64, "offset": TensorProto.INT64} | (types or {})
        return [helper.make_tensor_value_info(name, kinds.get(name, 1), shape) for name, shape in named.items()]

    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "scripted", values(inputs), values(outputs), stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _save(path: Path, model) -> None:
    save_model(model, path)
