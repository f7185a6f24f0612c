"""The graphs of each contract: a module, and the names and shapes of what it takes and gives; an axis with a name has
any length. A contract makes {part: Graph} from a model; `trace` makes a file of a Graph.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from transformers import CohereAsrForConditionalGeneration

from . import modules

Shapes = dict[str, tuple[int | str, ...]]

OPSET = 17
# Lengths in the example that is traced; batch axes have 1. In contract C, sequence_length is also that of mel frames.
EXAMPLE = {"samples": 64_000, "frames": 400, "encoder_frames": 50, "n_tokens": 3, "mems": 2, "sequence_length": 200}
EXAMPLE |= {"past_decoder_sequence_length": 2, "total_sequence_length": 202, "encoder_sequence_length": 25}
EXAMPLE |= {"past_encoder_sequence_length": 25}
INTEGERS = {"tokens", "offset", "input_ids", "attention_mask", "position_ids", "num_logits_to_keep", "length"}
INTEGERS |= {"encoder_mask"}


class Graph(NamedTuple):
    module: nn.Module
    inputs: Shapes
    outputs: Shapes
    metadata: dict[str, str] = {}  # noqa: RUF012
    dynamo: bool = False  # by the newer exporter


Contract = Callable[[CohereAsrForConditionalGeneration], dict[str, Graph]]


def card(
    model: CohereAsrForConditionalGeneration, audio: bool = False, batch: int | str = "batch", dynamo: bool = False
) -> dict[str, Graph]:
    """A; with `audio`, B.  dynamo: by the newer exporter, attention under masks."""
    config = model.config
    layers, width = config.num_hidden_layers, config.hidden_size
    cache = (layers, batch, config.num_attention_heads, config.max_position_embeddings, config.head_dim)
    cross: Shapes = {f"n_layer_cross_{x}": (layers, batch, "encoder_frames", width) for x in "kv"}
    past, present = ({f"{way}_n_layer_self_{x}_cache": cache for x in "kv"} for way in ("in", "out"))
    encoder = modules.AudioEncoder(model) if audio else modules.MelEncoder(model)
    features: Shapes = {"mel": (batch, config.encoder_config.num_mel_bins, "frames")}
    decoder = modules.MaskDecoder(model) if dynamo else modules.SliceDecoder(model)
    tokens: Shapes = {"tokens": (batch, "n_tokens")}
    logits: Shapes = {"logits": (batch, "n_tokens", config.vocab_size)}
    known = {"model_type": "cohere-transcribe-03-2026"}  # sherpa-onnx asks for it
    return {
        "encoder": Graph(encoder, {"audio": (batch, "samples")} if audio else features, cross, known, dynamo),
        "decoder": Graph(decoder, tokens | past | cross | {"offset": ()}, logits | present, {}, dynamo),
    }


def merged(model: CohereAsrForConditionalGeneration) -> dict[str, Graph]:
    """C, family 03-2026, before first_step.py has added what makes the cross-attention's keys and values."""
    inputs = growing_inputs(model)
    del inputs["encoder_hidden_states"]
    cross = caches(model, "cross_attn", "encoder", "encoder_sequence_length")
    return {
        "encoder": _states(model, modules.FusedEncoder(model)),
        "decoder": Graph(modules.MergedDecoder(model), inputs | cross, growing_outputs(model)),
    }


def arabic(model: CohereAsrForConditionalGeneration) -> dict[str, Graph]:
    """C, the Arabic family: plain attention, no branches; what is given as the cross-attention's past is not read."""
    unread = caches(model, "past_key_values", "encoder", "past_encoder_sequence_length")
    echoed = caches(model, "present", "encoder", "encoder_sequence_length")
    return {
        "encoder": _states(model, modules.Encoder(model)),
        "decoder": Graph(modules.EchoDecoder(model), growing_inputs(model) | unread, growing_outputs(model) | echoed),
    }


def masterx(model: CohereAsrForConditionalGeneration) -> dict[str, Graph]:
    """C, Masterx: an encoder that makes the cross-attention's keys and values, and two decoders for it."""
    positions = model.config.max_position_embeddings
    cross = caches(model, "cross_attn", "encoder", positions, 1) | {"cross_bias": (1, 1, 1, positions)}
    unread = caches(model, "past_key_values", "encoder", "past_encoder_sequence_length")
    encoder = _states(model, modules.HoistedEncoder(model))
    inputs, outputs = growing_inputs(model) | unread | cross, growing_outputs(model)
    fixed: dict[int | str, int] = {"batch_size": 1, "sequence_length": 1, "num_logits_to_keep": 1}
    fixed |= {"past_decoder_sequence_length": positions, "total_sequence_length": positions}
    fixed |= {"past_encoder_sequence_length": 0, "encoder_sequence_length": 1}
    one_in, one_out = (
        {name: tuple(fixed.get(axis, axis) for axis in shape) for name, shape in shapes.items()}
        for shapes in (inputs, outputs)
    )
    masks: Shapes = {name: (1, 1, positions, 1) for name in ("kv_keep_mask", "kv_write_mat")}
    masks["attn_bias"] = (1, 1, 1, positions)
    known = {"winstt_hoisted_cross_kv": "1", "winstt_cross_bucket": str(positions)}
    static = known | {"winstt_static_kv": str(positions)}
    return {
        "encoder": encoder._replace(outputs=encoder.outputs | cross),
        "decoder_dyn": Graph(modules.GrowingDecoder(model), inputs, outputs, known),
        "decoder": Graph(modules.StaticDecoder(model), one_in | masks, one_out, static),
    }


def mems(model: CohereAsrForConditionalGeneration) -> dict[str, Graph]:
    """D"""
    config = model.config
    width, states = config.hidden_size, config.num_hidden_layers + 1
    encoded: Shapes = {"encoder_embeddings": ("batch", "encoder_frames", width)}
    encoded["encoder_mask"] = ("batch", "encoder_frames")
    features: Shapes = {"audio_signal": ("batch", config.encoder_config.num_mel_bins, "frames"), "length": ("batch",)}
    inputs: Shapes = {"input_ids": ("batch", "n_tokens"), **encoded, "decoder_mems": (states, "batch", "mems", width)}
    outputs: Shapes = {"logits": ("batch", "n_tokens", config.vocab_size)}
    outputs["decoder_hidden_states"] = (states, "batch", "mems_and_tokens", width)
    return {
        "encoder": Graph(modules.MaskedEncoder(model), features, encoded),
        "decoder": Graph(modules.MemsDecoder(model), inputs, outputs),
    }


def caches(model, prefix: str, side: str, length: int | str, batch: int | str = "batch_size") -> Shapes:
    """PREFIX.0.SIDE.key, PREFIX.0.SIDE.value, PREFIX.1.SIDE.key ..."""
    config = model.config
    names = [f"{prefix}.{i}.{side}.{what}" for i in range(config.num_hidden_layers) for what in ("key", "value")]
    return dict.fromkeys(names, (batch, config.num_attention_heads, length, config.head_dim))


def growing_inputs(model: CohereAsrForConditionalGeneration) -> Shapes:
    return {
        "input_ids": ("batch_size", "sequence_length"),
        "attention_mask": ("batch_size", "total_sequence_length"),
        "position_ids": ("batch_size", "sequence_length"),
        "num_logits_to_keep": (),
        "encoder_hidden_states": ("batch_size", "encoder_sequence_length", model.config.hidden_size),
        **caches(model, "past_key_values", "decoder", "past_decoder_sequence_length"),
    }


def growing_outputs(model: CohereAsrForConditionalGeneration) -> Shapes:
    logits: Shapes = {"logits": ("batch_size", "num_logits_to_keep", model.config.vocab_size)}
    return logits | caches(model, "present", "decoder", "total_sequence_length")


def _states(model: CohereAsrForConditionalGeneration, module: nn.Module) -> Graph:
    features: Shapes = {"input_features": ("batch_size", "sequence_length", model.config.encoder_config.num_mel_bins)}
    states: Shapes = {"last_hidden_state": ("batch_size", "encoder_sequence_length", model.config.hidden_size)}
    return Graph(module, features, states)


@torch.no_grad()
def trace(graph: Graph, path: Path) -> None:
    """Into a folder of its own: over 2 GB, the tracer writes a file per tensor."""
    path.parent.mkdir(parents=True)
    axes = {
        name: {i: axis for i, axis in enumerate(shape) if isinstance(axis, str)}
        for name, shape in (graph.inputs | graph.outputs).items()
    }
    settings: dict[str, Any] = {"opset_version": OPSET, "dynamic_axes": axes}
    if graph.dynamo:
        open_axes = (dict.fromkeys(axes[name], torch.export.Dim.DYNAMIC) for name in graph.inputs)
        settings = {"dynamic_shapes": tuple(open_axes), "verbose": False}
    batch = 2 if graph.dynamo else 1  # the newer exporter takes a 1 for constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that are indeed constant
        torch.onnx.export(
            graph.module.eval(),
            tuple(_example(name, shape, batch) for name, shape in graph.inputs.items()),
            str(path),  # over 2 GB, a Path is not taken for a file
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamo=graph.dynamo,
            **settings,
        )
    # The tracer leaves out inputs that are not read, and is lost for shapes behind onnxruntime's own operators.
    model = onnx.load(path, load_external_data=False)
    for values, shapes in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        del values[:]
        for name, shape in shapes.items():
            kind = TensorProto.INT64 if name in INTEGERS else TensorProto.FLOAT
            values.append(helper.make_tensor_value_info(name, kind, shape))
    path.write_bytes(model.SerializeToString())


def _example(name: str, shape: tuple[int | str, ...], batch: int) -> Tensor:
    sizes = [axis if isinstance(axis, int) else EXAMPLE.get(axis, batch) for axis in shape]
    return torch.ones(sizes, dtype=torch.long) if name in INTEGERS else torch.randn(sizes)
