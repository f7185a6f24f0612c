"""The model the way its card publishes it: transformers' modules traced into a graph, then `quantize_dynamic` with
every Conv and BatchNormalization left in float.

    python -m tools.bench.card CHECKPOINT OUT

Writes cohere-encoder.int8.onnx and cohere-decoder.int8.onnx with their .data, and tokens.txt, in the published
("static") contract. At the real size this takes 20 GB of memory and of disk for a few minutes.
"""

import gc
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from transformers import CohereAsrForConditionalGeneration

from cohere_lite.export.__main__ import MODEL_TYPE

OPSET = 17
EXAMPLE_FRAMES = 400  # mel frames of the clip that is traced; every length is then accepted


class Encoder(nn.Module):
    """mel (B, n_mels, T) -> keys and values of the decoder's cross-attention, (layers, B, T_enc, width) each."""

    def __init__(self, model: CohereAsrForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = model.model.encoder
        self.proj = model.model.decoder.proj
        self.layers = nn.ModuleList(layer.encoder_attn for layer in model.model.decoder.layers)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        states = self.proj(self.encoder(mel.transpose(1, 2)).last_hidden_state)
        keys = torch.stack([layer.k_proj(states) for layer in self.layers])
        return keys, torch.stack([layer.v_proj(states) for layer in self.layers])


class Decoder(nn.Module):
    """One step over caches of all positions, (layers, B, heads, positions, head_dim), returned whole."""

    def __init__(self, model: CohereAsrForConditionalGeneration) -> None:
        super().__init__()
        self.decoder = model.model.decoder
        self.proj_out = model.proj_out

    def forward(
        self, tokens: Tensor, self_k: Tensor, self_v: Tensor, cross_k: Tensor, cross_v: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        decoder, n_tokens = self.decoder, tokens.shape[1]
        end = offset + n_tokens
        positions = torch.arange(n_tokens) + offset
        visible = torch.arange(self_k.shape[3])[None, :end] <= positions[:, None]
        x = decoder.embedding_layernorm(decoder.embed_tokens(tokens) + decoder.pos_emb(positions))
        for i, layer in enumerate(decoder.layers):
            normed = layer.input_layernorm(x)
            attention = layer.self_attn
            self_k[i, :, :, offset:end] = by_head(attention.k_proj(normed), attention.head_dim)
            self_v[i, :, :, offset:end] = by_head(attention.v_proj(normed), attention.head_dim)
            query = by_head(attention.q_proj(normed), attention.head_dim)
            x = x + attention.o_proj(attend(query, self_k[i, :, :, :end], self_v[i, :, :, :end], visible))
            normed = layer.post_attention_layernorm(x)
            attention = layer.encoder_attn
            query = by_head(attention.q_proj(normed), attention.head_dim)
            keys, values = by_head(cross_k[i], attention.head_dim), by_head(cross_v[i], attention.head_dim)
            x = x + attention.o_proj(attend(query, keys, values))
            x = x + layer.mlp(layer.final_layernorm(x))
        return self.proj_out(decoder.norm(x)), self_k, self_v


def by_head(x: Tensor, head_dim: int) -> Tensor:
    return x.unflatten(2, (-1, head_dim)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def write_card_model(checkpoint: Path, out: Path, scratch: Path) -> None:
    """`scratch`: a folder on a disk with room for the float32 graph."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint / "tokens.txt", out)
    _trace(checkpoint, scratch)
    gc.collect()  # the float32 model: quantize_dynamic is going to hold a second one
    for name in ("encoder", "decoder"):
        path = scratch / name / f"{name}.onnx"
        graph = onnx.load(path, load_external_data=False).graph
        protected = [node.name for node in graph.node if node.op_type in ("Conv", "BatchNormalization")]
        quantize_dynamic(
            path,
            out / f"cohere-{name}.int8.onnx",
            weight_type=QuantType.QInt8,
            nodes_to_exclude=protected,
            use_external_data_format=True,
        )
        shutil.rmtree(path.parent)
    _say_what_it_is(out / "cohere-encoder.int8.onnx")


def _say_what_it_is(encoder: Path) -> None:
    """The metadata that sherpa-onnx asks for."""
    model = onnx.load(encoder, load_external_data=False)
    onnx.helper.set_model_props(model, {"model_type": MODEL_TYPE})
    encoder.write_bytes(model.SerializeToString())


@torch.no_grad()
def _trace(checkpoint: Path, scratch: Path) -> None:
    model = CohereAsrForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    config = model.config
    layers, heads, positions = config.num_hidden_layers, config.num_attention_heads, config.max_position_embeddings
    cache = torch.zeros(layers, 1, heads, positions, config.hidden_size // heads)
    cross = torch.randn(layers, 1, EXAMPLE_FRAMES // 8, config.hidden_size)
    mel = torch.randn(1, config.encoder_config.num_mel_bins, EXAMPLE_FRAMES)
    caches = (cache, cache.clone())
    decoder_inputs = (torch.tensor([[1, 2, 3]]), *caches, cross, cross.clone(), torch.tensor(2))
    cache_names = ["n_layer_self_k_cache", "n_layer_self_v_cache"]
    cross_axes = {name: {1: "batch", 2: "encoder_frames"} for name in ("n_layer_cross_k", "n_layer_cross_v")}
    in_axes, out_axes = ({f"{way}_{name}": {1: "batch"} for name in cache_names} for way in ("in", "out"))
    token_axes = {0: "batch", 1: "n_tokens"}
    _export(Encoder(model), (mel,), scratch / "encoder", {"mel": {0: "batch", 2: "frames"}}, cross_axes)
    _export(
        Decoder(model),
        decoder_inputs,
        scratch / "decoder",
        {"tokens": token_axes, **in_axes, **cross_axes, "offset": {}},
        {"logits": token_axes, **out_axes},
    )


def _export(module: nn.Module, args: tuple, folder: Path, inputs: dict, outputs: dict) -> None:
    """Into a folder of its own: over 2 GB, the tracer writes a file per tensor."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that are indeed constant
        torch.onnx.export(
            module.eval(),
            args,
            str(folder / f"{folder.name}.onnx"),  # over 2 GB, a Path is not taken for a file
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: axes for name, axes in (inputs | outputs).items() if axes},
            opset_version=OPSET,
            dynamo=False,
        )


def main(argv: list[str] | None = None) -> int:
    checkpoint, out = (Path(arg) for arg in (sys.argv[1:] if argv is None else argv))
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        write_card_model(checkpoint, out, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
