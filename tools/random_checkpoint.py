"""Write a checkpoint of any shape with random bfloat16 weights, in the hub's own format and names.

    python -m tools.random_checkpoint OUT [--encoder-layers 48 --encoder-width 1280 ...]    (defaults: the real model)

Stands in for the real weights wherever only shapes matter: speed, memory, parity with transformers. Every layer has
its own numbers (onnxruntime shares the buffers of identical ones, which would falsify memory), scaled so that
activations stay near 1. One shard a layer, so that memory stays small. The vocabulary is a made-up one with the real
special tokens.  Needs numpy, safetensors, ml_dtypes.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

SPECIAL_TOKENS = [
    *("<unk>", "<|nospeech|>", "<pad>", "<|endoftext|>"),  # 2 and 3 as in the real vocabulary
    *("<|startofcontext|>", "<|startoftranscript|>", "<|pnc|>", "<|nopnc|>", "<|itn|>", "<|noitn|>"),
    *("<|notimestamp|>", "<|nodiarize|>", "<|emo:undefined|>", "<|en|>", "<|de|>", "<|fr|>", "<|es|>", "<|zh|>", "▁"),
]


@dataclass(frozen=True)
class Shape:
    """Sizes in channels unless they say otherwise; the defaults are Cohere Transcribe 03-2026's."""

    encoder_layers: int = 48
    encoder_width: int = 1280
    encoder_heads: int = 8
    encoder_ffn: int = 5120
    subsampling_channels: int = 256
    conv_kernel: int = 9  # frames
    n_mels: int = 128
    decoder_layers: int = 8
    decoder_width: int = 1024
    decoder_heads: int = 8
    decoder_ffn: int = 4096
    max_positions: int = 1024  # tokens
    vocab_size: int = 16384


Tensors = dict[str, np.ndarray]


def write_random_checkpoint(out: Path, shape: Shape, seed: int = 0) -> None:
    """Write config.json (transformers' style), tokens.txt and sharded model-*.safetensors (the hub's names)."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(transformers_config(shape), indent=2))
    pieces = SPECIAL_TOKENS + [f"▁w{i}" for i in range(shape.vocab_size - len(SPECIAL_TOKENS))]
    (out / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8")
    weight_map: dict[str, str] = {}
    for i, tensors in enumerate(_shards(shape, np.random.default_rng(seed))):
        name = f"model-{i:05}.safetensors"
        save_file({key: value.astype(ml_dtypes.bfloat16) for key, value in tensors.items()}, out / name)
        weight_map |= dict.fromkeys(tensors, name)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1))


def transformers_config(shape: Shape) -> dict:
    """config.json as transformers writes it."""
    return {
        "architectures": ["CohereAsrForConditionalGeneration"],
        "model_type": "cohere_asr",
        "encoder_config": {
            "model_type": "parakeet_encoder",
            "hidden_size": shape.encoder_width,
            "num_hidden_layers": shape.encoder_layers,
            "num_attention_heads": shape.encoder_heads,
            "intermediate_size": shape.encoder_ffn,
            "hidden_act": "silu",
            "conv_kernel_size": shape.conv_kernel,
            "subsampling_conv_channels": shape.subsampling_channels,
            "num_mel_bins": shape.n_mels,
            "scale_input": False,
        },
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.decoder_width,
        "num_hidden_layers": shape.decoder_layers,
        "num_attention_heads": shape.decoder_heads,
        "intermediate_size": shape.decoder_ffn,
        "hidden_act": "relu",
        "max_position_embeddings": shape.max_positions,
        "pad_token_id": 2,
        "eos_token_id": 3,
        "bos_token_id": 4,
        "decoder_start_token_id": SPECIAL_TOKENS.index("▁"),
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }


def hub_config(shape: Shape) -> dict:
    """config.json in the hub's original, nested style: the keys that a reader of the checkpoint needs."""
    return {
        "model_type": "cohere_asr",
        "encoder": {
            "feat_in": shape.n_mels,
            "d_model": shape.encoder_width,
            "n_layers": shape.encoder_layers,
            "n_heads": shape.encoder_heads,
            "ff_expansion_factor": shape.encoder_ffn // shape.encoder_width,
            "conv_kernel_size": shape.conv_kernel,
            "subsampling_factor": 8,
            "subsampling_conv_channels": shape.subsampling_channels,
        },
        "transf_decoder": {
            "config_dict": {
                "hidden_size": shape.decoder_width,
                "inner_size": shape.decoder_ffn,
                "num_attention_heads": shape.decoder_heads,
                "num_layers": shape.decoder_layers,
                "max_sequence_length": shape.max_positions,
                "hidden_act": "relu",
            }
        },
        "head": {"hidden_size": shape.decoder_width, "num_classes": shape.vocab_size},
    }


def _shards(shape: Shape, rng: np.random.Generator) -> Iterator[Tensors]:
    """The decoder's gains make attention sharp and branches stronger than the residual, which is tied to the output:
    with gains of 1, greedy decoding repeats one token for ever, whatever the audio."""

    def normal(std: float, *size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32) * np.float32(std)

    def linear(name: str, n_in: int, n_out: int, *kernel: int, bias: bool = True, gain: float = 1.0) -> Tensors:
        fan_in = n_in * int(np.prod(kernel))
        tensors = {f"{name}.weight": normal(gain * fan_in**-0.5, n_out, n_in, *kernel)}
        return tensors | ({f"{name}.bias": normal(0.05, n_out)} if bias else {})

    def norm(name: str, width: int) -> Tensors:
        return {f"{name}.weight": 1 + normal(0.1, width), f"{name}.bias": normal(0.05, width)}

    channels, width = shape.subsampling_channels, shape.encoder_width
    pre = "encoder.pre_encode"
    shard = linear(f"{pre}.conv.0", 1, channels, 3, 3)
    for i in (2, 5):
        shard |= linear(f"{pre}.conv.{i}", 1, channels, 3, 3) | linear(f"{pre}.conv.{i + 1}", channels, channels, 1, 1)
    yield shard | linear(f"{pre}.out", channels * shape.n_mels // 8, width)

    heads = shape.encoder_heads
    for i in range(shape.encoder_layers):
        layer = f"encoder.layers.{i}"
        shard = {}
        for part in ("feed_forward1", "feed_forward2"):
            shard |= norm(f"{layer}.norm_{part}", width)
            shard |= linear(f"{layer}.{part}.linear1", width, shape.encoder_ffn)
            shard |= linear(f"{layer}.{part}.linear2", shape.encoder_ffn, width)
        shard |= (
            norm(f"{layer}.norm_self_att", width) | norm(f"{layer}.norm_conv", width) | norm(f"{layer}.norm_out", width)
        )
        for part in ("q", "k", "v", "out"):
            shard |= linear(f"{layer}.self_attn.linear_{part}", width, width)
        shard |= linear(f"{layer}.self_attn.linear_pos", width, width, bias=False)
        for part in ("u", "v"):
            shard[f"{layer}.self_attn.pos_bias_{part}"] = normal(0.2, heads, width // heads)
        shard |= linear(f"{layer}.conv.pointwise_conv1", width, 2 * width, 1)
        shard |= linear(f"{layer}.conv.depthwise_conv", 1, width, shape.conv_kernel)
        shard |= linear(f"{layer}.conv.pointwise_conv2", width, width, 1)
        shard |= norm(f"{layer}.conv.batch_norm", width)
        shard[f"{layer}.conv.batch_norm.running_mean"] = normal(0.2, width)
        shard[f"{layer}.conv.batch_norm.running_var"] = np.exp(normal(0.3, width))
        yield shard

    width = shape.decoder_width
    embedding = "transf_decoder._embedding"
    yield {
        f"{embedding}.token_embedding.weight": normal(1, shape.vocab_size, width),
        f"{embedding}.position_embedding.pos_enc": normal(3, shape.max_positions, width),
        "log_softmax.mlp.layer0.bias": normal(0.5, shape.vocab_size),
        **norm(f"{embedding}.layer_norm", width),
        **norm("transf_decoder._decoder.final_layer_norm", width),
        **linear("encoder_decoder_proj", shape.encoder_width, width),
    }
    for i in range(shape.decoder_layers):
        layer = f"transf_decoder._decoder.layers.{i}"
        shard = (
            norm(f"{layer}.layer_norm_1", width)
            | norm(f"{layer}.layer_norm_2", width)
            | norm(f"{layer}.layer_norm_3", width)
        )
        for sub in ("first_sub_layer", "second_sub_layer"):
            for part, gain in [("query_net", 3), ("key_net", 3), ("value_net", 1), ("out_projection", 4)]:
                shard |= linear(f"{layer}.{sub}.{part}", width, width, gain=gain)
        shard |= linear(f"{layer}.third_sub_layer.dense_in", width, shape.decoder_ffn)
        yield shard | linear(f"{layer}.third_sub_layer.dense_out", shape.decoder_ffn, width, gain=4)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.random_checkpoint", description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    for field in fields(Shape):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    args = vars(parser.parse_args(argv))
    out, seed = args.pop("out"), args.pop("seed")
    write_random_checkpoint(out, Shape(**args), seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
