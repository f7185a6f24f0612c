"""Model folders of the other published contracts whose decoders answer by script, as those of scripted.py, as long as
they are run right: whatever is wrong with what they are fed makes every answer "c".

Each token's row of the caches is its position: so a decoder can tell which rows it is shown."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scripted import PIECES, C

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
TYPES = {"float32": FLOAT, "float16": TensorProto.FLOAT16}
CONSTANTS = {
    "zero": np.array([0]), "one": np.array([1]), "i0": np.array(0), "i1": np.array(1), "last": np.array([2**62]),
    "f0": np.float32(0), "f1": np.float32(1), "f99": np.float32(99), "row": np.array([1, 1, -1, 1]),
    "pair": np.array([1, 2, 1, 8]), "flat": np.array([-1]), "two": np.array([2]),
    "joined": np.array([1, -1, 16]), "i1_32": np.array(1, np.int32),
}  # fmt: skip
PAST, PRESENT = "past_key_values.0.", "present.0."


def write_merged(
    folder: Path, script: Sequence[int], dtype: str = "float32", pinned: bool = False, fused: bool = False
) -> Path:
    """onnx-community's kind: graphs in onnx/, tokenizer.json and config.json above. Caches and logits are of `dtype`.
    fused: with GroupQueryAttention, whose past and present may be one buffer of all positions.
    pinned: Masterx's kind, with all shapes fixed, whose encoder gives the cross-attention's keys and values."""
    length = len(script) + 1
    faults = _pinned_faults() if pinned else _merged_faults(fused, TYPES[dtype])
    nodes = [
        *faults,
        ("Gather", ["table", "position_ids"], ["scripted"]),
        ("Add", ["scripted", "spoiled"], ["all_logits"]),
        ("Neg", ["num_logits_to_keep"], ["first_kept"]),
        ("Reshape", ["first_kept", "flat"], ["from"]),
        ("Slice", ["all_logits", "from", "last", "one"], ["float_logits"]),
        ("Cast", ["float_logits"], ["logits"], {"to": TYPES[dtype]}),
    ]
    n, t, p, frames = ("n", "t", "p", "frames") if not pinned else (1, length, length, 1)
    inputs = {
        "input_ids": (INT64, ["b", n]),
        "attention_mask": (INT64, ["b", t]),
        "position_ids": (INT64, ["b", n]),
        "num_logits_to_keep": (INT64, []),
        "encoder_hidden_states": (FLOAT, ["b", frames, 2]),
        **{f"{PAST}decoder.{part}": (TYPES[dtype], ["b", 2, p, 8]) for part in ("key", "value")},
        **{f"{PAST}encoder.{part}": (TYPES[dtype], ["b", 2, "e", 8]) for part in ("key", "value")},
    }
    outputs = {
        "logits": (TYPES[dtype], ["b", "kept", len(PIECES)]),
        **{f"{PRESENT}decoder.{part}": (TYPES[dtype], ["b", 2, "all", 8]) for part in ("key", "value")},
    }
    encoder_nodes = [
        ("ReduceMean", ["input_features"], ["mean"], {"axes": [1, 2]}),
        ("Reshape", ["mean", "three"], ["scalar"]),
        ("Expand", ["scalar", "frames"], ["last_hidden_state"]),
    ]
    encoder_outputs = {"last_hidden_state": (FLOAT, ["b", "frames", 2])}
    if pinned:
        cross = {f"cross_attn.0.encoder.{part}": (TYPES[dtype], ["b", 2, "e", 8]) for part in ("key", "value")}
        inputs |= cross | {"cross_bias": (TYPES[dtype], [1, 1, 1, "e"])}
        inputs |= {name: (TYPES[dtype], [1, 1, length, 1]) for name in ("kv_keep_mask", "kv_write_mat")}
        inputs |= {"attn_bias": (TYPES[dtype], [1, 1, 1, length])}
        encoder_outputs |= cross | {"cross_bias": (TYPES[dtype], [1, 1, 1, 4])}
        encoder_nodes += [("Expand", ["mean_4", "cross_shape"], ["cross"]), ("Reshape", ["mean", "four"], ["mean_4"])][
            ::-1
        ]
        encoder_nodes += [("Cast", ["cross"], [name], {"to": TYPES[dtype]}) for name in cross]
        encoder_nodes += [("Cast", ["bias"], ["cross_bias"], {"to": TYPES[dtype]})]
    else:
        outputs |= {f"{PRESENT}encoder.{part}": (TYPES[dtype], ["b", 2, "e", 8]) for part in ("key", "value")}
    constants = {"three": np.array([-1, 1, 1]), "frames": np.array([1, 3, 2]), "four": np.array([-1, 1, 1, 1])}
    constants |= {"cross_shape": np.array([1, 2, 4, 8]), "bias": np.array([[[[0, 0, 0, -np.inf]]]], np.float32)}
    encoder = _model(encoder_nodes, {"input_features": (FLOAT, ["b", "t", 128])}, encoder_outputs, constants)
    (folder / "onnx").mkdir(parents=True)
    onnx.save(encoder, folder / "onnx" / "encoder_model.onnx")
    name = "decoder_model_merged.onnx"
    onnx.save(_model(nodes, inputs, outputs, _script(script, length)), folder / "onnx" / name)
    added = [{"content": piece, "id": i} for i, piece in enumerate(PIECES) if piece.startswith("<")]
    vocab = {piece: i for i, piece in enumerate(PIECES) if not piece.startswith("<|en")}
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"vocab": vocab}}))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": length}))
    return folder


def _merged_faults(fused: bool, dtype: int) -> list[tuple]:
    """Keys and values must be those of the positions before, the mask as long as all of them and full of ones, and from
    the second step on the cross-attention's keys and values those of the first."""
    nodes: list[tuple] = [
        ("Cast", ["position_ids"], ["position"], {"to": FLOAT}),
        ("Reshape", ["position", "row"], ["column"]),
        ("Expand", ["column", "pair"], ["new"]),
        ("Shape", [f"{PAST}decoder.key"], ["past_shape"]),
        ("Gather", ["past_shape", "two"], ["n_past"]),
        ("Equal", ["n_past", "zero"], ["is_first"]),
        ("Shape", ["attention_mask"], ["mask_shape"]),
        ("Gather", ["mask_shape", "i1"], ["n_mask"]),
        ("ReduceSum", ["attention_mask"], ["n_seen"], {"keepdims": 0}),
        ("Range", ["i0", "n_seen", "i1"], ["seen"]),
        ("Cast", ["seen"], ["expected"], {"to": FLOAT}),
        ("Reshape", ["expected", "row"], ["expected_column"]),
        ("Sub", ["n_mask", "n_seen"], ["unseen"]),
        ("Cast", ["unseen"], ["fault_mask"], {"to": FLOAT}),
        ("ReduceMean", ["encoder_hidden_states"], ["mean"], {"keepdims": 0}),
        ("Where", ["is_first", "mean", "f99"], ["cross_number"]),
        ("Expand", ["cross_number", "pair"], ["cross"]),
    ]
    for part in ("key", "value"):
        if not fused:
            nodes += [
                ("Cast", [f"{PAST}decoder.{part}"], [f"past_{part}"], {"to": FLOAT}),
                ("Concat", [f"past_{part}", "new"], [f"all_{part}"], {"axis": 2}),
                ("CastLike", [f"all_{part}", f"{PAST}decoder.{part}"], [f"{PRESENT}decoder.{part}"]),
                ("Sub", [f"all_{part}", "expected_column"], [f"difference_{part}"]),
                ("ReduceL1", [f"difference_{part}"], [f"fault_{part}"], {"keepdims": 0}),
            ]
        nodes += [
            ("CastLike", ["cross", f"{PAST}encoder.{part}"], [f"{PRESENT}encoder.{part}"]),
            ("Cast", [f"{PAST}encoder.{part}"], [f"cross_{part}"], {"to": FLOAT}),
            ("Sub", [f"cross_{part}", "mean"], [f"cross_difference_{part}"]),
            ("ReduceMean", [f"cross_difference_{part}"], [f"cross_mean_{part}"], {"keepdims": 0}),
            ("Abs", [f"cross_mean_{part}"], [f"cross_off_{part}"]),
            ("LessOrEqual", [f"cross_off_{part}", "tolerance"], [f"cross_is_right_{part}"]),
            ("Not", [f"cross_is_right_{part}"], [f"cross_is_off_{part}"]),
            ("Cast", [f"cross_is_off_{part}"], [f"cross_fault_{part}"], {"to": FLOAT}),
            ("Where", ["is_first", "f0", f"cross_fault_{part}"], [f"fault_cross_{part}"]),
        ]
    if fused:
        # Queries of zeros: attention is the mean of the values so far, of 0 .. p, which is p / 2.
        caches = [f"{kind}decoder.{part}" for kind in (PAST, PRESENT) for part in ("key", "value")]
        nodes += [
            ("Transpose", ["new"], ["by_row"], {"perm": [0, 2, 1, 3]}),
            ("Reshape", ["by_row", "joined"], ["new_float"]),
            ("Cast", ["new_float"], ["rows"], {"to": dtype}),
            ("Sub", ["rows", "rows"], ["query"]),
            ("Cast", ["n_seen"], ["total"], {"to": TensorProto.INT32}),
            ("Sub", ["total", "i1_32"], ["last_position"]),
            ("Reshape", ["last_position", "flat"], ["lengths"]),
            ("GroupQueryAttention", ["query", "rows", "rows", *caches[:2], "lengths", "total"],
             ["mean_row", *caches[2:]], {"domain": "com.microsoft", "num_heads": 2, "kv_num_heads": 2}),
            ("Add", ["mean_row", "mean_row"], ["twice"]),
            ("Sub", ["twice", "rows"], ["difference"]),
            ("Cast", ["difference"], ["difference_f"], {"to": FLOAT}),
            ("ReduceL1", ["difference_f"], ["fault_key"], {"keepdims": 0}),
            ("Identity", ["f0"], ["fault_value"]),
        ]  # fmt: skip
    return [*nodes, *_spoil("fault_mask", "fault_key", "fault_value", "fault_cross_key", "fault_cross_value")]


def _pinned_faults() -> list[tuple]:
    """What the mask shows must be the positions up to this one; keys and values of the clip, its padding masked."""
    nodes: list[tuple] = [
        ("Cast", ["position_ids"], ["position"], {"to": FLOAT}),
        ("Reshape", ["position", "row"], ["column"]),
        ("Expand", ["column", "pair"], ["new"]),
        ("Cast", ["kv_keep_mask"], ["keep"], {"to": FLOAT}),
        ("Cast", ["kv_write_mat"], ["write"], {"to": FLOAT}),
        ("Cast", ["attn_bias"], ["attn"], {"to": FLOAT}),
        ("Reshape", ["attn", "row"], ["bias"]),
        ("Equal", ["bias", "f0"], ["visible"]),
        ("Cast", ["visible"], ["visible_f"], {"to": FLOAT}),
        ("ReduceSum", ["visible_f"], ["n_visible"], {"keepdims": 0}),
        ("Sub", ["n_visible", "f1"], ["last_visible"]),
        ("Sub", ["last_visible", "position"], ["off"]),
        ("ReduceL1", ["off"], ["fault_bias"], {"keepdims": 0}),
        ("ReduceSum", ["encoder_hidden_states"], ["dead"], {"keepdims": 0}),
        ("Abs", ["dead"], ["fault_dead"]),
        ("Cast", ["cross_attn.0.encoder.key"], ["cross_key"], {"to": FLOAT}),
        ("Cast", ["cross_attn.0.encoder.value"], ["cross_value"], {"to": FLOAT}),
        ("Sub", ["cross_key", "cross_value"], ["cross_off"]),
        ("ReduceL1", ["cross_off"], ["fault_cross"], {"keepdims": 0}),
        ("Cast", ["cross_bias"], ["cross_bias_f"], {"to": FLOAT}),
        ("ReduceMax", ["cross_bias_f"], ["fault_cross_bias"], {"keepdims": 0}),
    ]
    for part in ("key", "value"):
        nodes += [
            ("Cast", [f"{PAST}decoder.{part}"], [f"past_{part}"], {"to": FLOAT}),
            ("Mul", [f"past_{part}", "keep"], [f"kept_{part}"]),
            ("MatMul", ["write", "new"], [f"written_{part}"]),
            ("Add", [f"kept_{part}", f"written_{part}"], [f"all_{part}"]),
            ("CastLike", [f"all_{part}", f"{PAST}decoder.{part}"], [f"{PRESENT}decoder.{part}"]),
            ("Sub", [f"all_{part}", "indices"], [f"difference_{part}"]),
            ("Where", ["visible", f"difference_{part}", "f0"], [f"seen_{part}"]),
            ("ReduceL1", [f"seen_{part}"], [f"fault_{part}"], {"keepdims": 0}),
        ]
    return [*nodes, *_spoil("fault_bias", "fault_dead", "fault_cross", "fault_cross_bias", "fault_key", "fault_value")]


def write_mems(folder: Path, script: Sequence[int]) -> Path:
    """onnx-asr's kind."""
    encoder_nodes = [
        ("ReduceMean", ["audio_signal"], ["mean"], {"axes": [1, 2]}),
        ("Reshape", ["mean", "three"], ["scalar"]),
        ("Expand", ["scalar", "frames"], ["encoder_embeddings"]),
        ("Expand", ["i1", "mask_shape"], ["ones"]),
        ("Shape", ["audio_signal"], ["shape"]),
        ("Gather", ["shape", "two"], ["n_frames"]),
        ("Equal", ["n_frames", "length"], ["right"]),  # the mask is zeros where `length` is not the number of frames
        ("Cast", ["right"], ["right_i"], {"to": INT64}),
        ("Mul", ["ones", "right_i"], ["encoder_mask"]),
    ]
    constants = {"three": np.array([-1, 1, 1]), "frames": np.array([1, 3, 2]), "mask_shape": np.array([1, 3])}
    inputs = {"audio_signal": (FLOAT, ["b", 128, "t"]), "length": (INT64, ["b"])}
    outputs = {"encoder_embeddings": (FLOAT, ["b", "f", 2]), "encoder_mask": (INT64, ["b", "f"])}
    folder.mkdir(parents=True)
    onnx.save(_model(encoder_nodes, inputs, outputs, constants), folder / "encoder-model.int8.onnx")
    nodes = [
        ("Shape", ["decoder_mems"], ["mems_shape"]),
        ("Gather", ["mems_shape", "i2"], ["past"]),
        ("Shape", ["input_ids"], ["ids_shape"]),
        ("Gather", ["ids_shape", "i1"], ["n"]),
        ("Add", ["past", "n"], ["total"]),
        ("Range", ["i0", "total", "i1"], ["positions"]),
        ("Range", ["past", "total", "i1"], ["new_positions"]),
        ("Cast", ["positions"], ["positions_f"], {"to": FLOAT}),
        ("Reshape", ["positions_f", "row"], ["expected"]),
        ("Cast", ["new_positions"], ["new_f"], {"to": FLOAT}),
        ("Reshape", ["new_f", "row"], ["new_column"]),
        ("Expand", ["new_column", "mem_shape"], ["new"]),
        ("Concat", ["decoder_mems", "new"], ["decoder_hidden_states"], {"axis": 2}),
        ("Sub", ["decoder_hidden_states", "expected"], ["difference"]),
        ("ReduceL1", ["difference"], ["fault_mems"], {"keepdims": 0}),
        ("ReduceMin", ["encoder_mask"], ["least"], {"keepdims": 0}),
        ("Sub", ["i1", "least"], ["unmasked"]),
        ("Cast", ["unmasked"], ["fault_mask"], {"to": FLOAT}),
        *_spoil("fault_mems", "fault_mask"),
        ("Gather", ["table", "new_positions"], ["scripted"]),
        ("Unsqueeze", ["scripted", "zero"], ["batched"]),
        ("Add", ["batched", "spoiled"], ["logits"]),
    ]
    inputs = {
        "input_ids": (INT64, ["b", "n"]), "encoder_embeddings": outputs["encoder_embeddings"],
        "encoder_mask": outputs["encoder_mask"], "decoder_mems": (FLOAT, [2, "b", "p", 2]),
    }  # fmt: skip
    results = {"logits": (FLOAT, ["b", "n", len(PIECES)]), "decoder_hidden_states": (FLOAT, [2, "b", "all", 2])}
    constants = _script(script, len(script) + 1) | {"i2": np.array(2), "mem_shape": np.array([2, 1, 1, 2])}
    onnx.save(_model(nodes, inputs, results, constants), folder / "decoder-model.int8.onnx")
    lines = "".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES))
    (folder / "vocab.txt").write_text(lines.replace("<pad>", "<0x00>"), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"max_sequence_length": len(script) + 1}))
    return folder


def _spoil(*faults: str) -> list[tuple]:
    """Any fault makes every answer "c"."""
    return [
        ("Sum", list(faults), ["fault"]),
        ("LessOrEqual", ["fault", "tolerance"], ["is_right"]),
        ("Not", ["is_right"], ["is_fault"]),  # of NaN, too
        ("Cast", ["is_fault"], ["fault_f"], {"to": FLOAT}),
        ("Mul", ["fault_f", "spoil"], ["spoiled"]),
    ]


def _script(script: Sequence[int], length: int) -> dict[str, np.ndarray]:
    table = np.full((length, len(PIECES)), -1, np.float32)
    table[np.arange(len(script)), list(script)] = 1
    spoil = np.zeros(len(PIECES), np.float32)
    spoil[C] = 1000
    indices = np.arange(length, dtype=np.float32).reshape(1, 1, -1, 1)
    return {"table": table, "spoil": spoil, "indices": indices, "tolerance": np.float32(0.01)}


def _model(nodes: list[tuple], inputs: dict, outputs: dict, constants: dict) -> onnx.ModelProto:
    made = [helper.make_node(op, taken, given, **(more[0] if more else {})) for op, taken, given, *more in nodes]
    used = {name for node in made for name in node.input}
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in (CONSTANTS | constants).items() if k in used]
    values = [[helper.make_tensor_value_info(name, *how) for name, how in named.items()] for named in (inputs, outputs)]
    graph = helper.make_graph(made, "scripted", *values, stored)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8
    )
