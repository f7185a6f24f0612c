"""An official Cohere Transcribe checkpoint folder -> its dimensions and, one at a time, its tensors.

Reads config.json in both styles (the hub's original nested one and transformers'), and model.safetensors
(or its shards) with both styles of tensor names, in float32, float16 or bfloat16.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..model import read_config
from .vocabulary import read_pieces, write_tokens

# Hub name -> transformers name, tried in this order on every name; source: the entry `cohere_asr` of
# transformers 5.23, conversion_mapping.py. Names already in transformers' style pass through unchanged.
RENAMINGS = [
    (r"^model\.", ""),
    (r"encoder\.pre_encode\.conv\.", "encoder.subsampling.layers."),
    (r"encoder\.pre_encode\.out\.", "encoder.subsampling.linear."),
    (r"transf_decoder\._embedding\.position_embedding\.pos_enc$", "decoder.pos_emb.weight"),
    (r"transf_decoder\._embedding\.token_embedding", "decoder.embed_tokens"),
    (r"transf_decoder\._embedding\.layer_norm", "decoder.embedding_layernorm"),
    (r"transf_decoder\._decoder\.final_layer_norm", "decoder.norm"),
    (r"transf_decoder\._decoder\.layers", "decoder.layers"),
    (r"encoder_decoder_proj\.", "decoder.proj."),
    (r"encoder\.(.+)\.self_attn\.linear_q", r"encoder.\1.self_attn.q_proj"),
    (r"encoder\.(.+)\.self_attn\.linear_k", r"encoder.\1.self_attn.k_proj"),
    (r"encoder\.(.+)\.self_attn\.linear_v", r"encoder.\1.self_attn.v_proj"),
    (r"encoder\.(.+)\.self_attn\.linear_out", r"encoder.\1.self_attn.o_proj"),
    (r"encoder\.(.+)\.self_attn\.linear_pos", r"encoder.\1.self_attn.relative_k_proj"),
    (r"encoder\.(.+)\.self_attn\.pos_bias_", r"encoder.\1.self_attn.bias_"),
    (r"\.conv\.batch_norm", ".conv.norm"),
    (r"\.first_sub_layer\.", ".self_attn."),
    (r"\.second_sub_layer\.", ".encoder_attn."),
    (r"\.query_net", ".q_proj"),
    (r"\.key_net", ".k_proj"),
    (r"\.value_net", ".v_proj"),
    (r"\.out_projection", ".o_proj"),
    (r"\.third_sub_layer\.dense_in", ".mlp.fc1"),
    (r"\.third_sub_layer\.dense_out", ".mlp.fc2"),
    (r"\.layer_norm_1\.", ".input_layernorm."),
    (r"\.layer_norm_2\.", ".post_attention_layernorm."),
    (r"\.layer_norm_3\.", ".final_layernorm."),
    (r"log_softmax\.mlp\.layer0", "proj_out"),
]

# In the file, but not part of the computation: the mel filterbank and window of the original front end,
# BatchNorm's training counter.
NOT_WEIGHTS = re.compile(r"preprocessor\.featurizer\.|\.num_batches_tracked$")
MAY_BE_LEFT_OUT = re.compile(r"\.bias$|\.conv\.norm\.")  # of all layers alike: zeros, and what is folded already
FLOATS = ("F32", "F16", "BF16")  # safetensors' names


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model, in channels unless they say otherwise."""

    n_mels: int
    subsampling_layers: int  # each halves the frame rate
    encoder_layers: int
    encoder_width: int
    encoder_heads: int
    decoder_layers: int
    decoder_width: int
    decoder_heads: int
    max_positions: int  # tokens, prompt included
    vocab_size: int


class Checkpoint:
    """A folder with config.json and safetensors: tensors by transformers' names, read when asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError or ValueError for a folder that is incomplete or damaged."""
        self.folder = folder
        self.decoder_precision: str | None = None  # floats, to be quantised as asked for
        config_path = folder / "config.json"
        if not config_path.is_file():
            raise FileNotFoundError(f"{folder} has no config.json; a checkpoint has config.json and model.safetensors")
        self._places: dict[str, tuple[Path, str]] = {}  # our name -> (file, name in it)
        for path in _safetensors_files(folder):
            with _opened(path) as file:
                for stored in file.keys():  # noqa: SIM118 - not a dict, cannot be iterated
                    if not NOT_WEIGHTS.search(stored):
                        self._places[_transformers_name(stored)] = (path, stored)
        self._read: set[str] = set()
        config = read_config(config_path)
        languages = config.get("supported_languages") or []
        if not (isinstance(languages, list) and all(isinstance(code, str) for code in languages)):
            raise ValueError(f"{config_path} says supported_languages {languages!r}: no list of codes")
        self.languages = ",".join(languages)
        try:
            self.dimensions, self._input_scale = _dimensions(config, self)
        except KeyError as error:
            raise ValueError(f"{config_path} lacks {error}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{config_path}: a value of a kind that was not expected ({error})") from error

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def names(self) -> list[str]:
        """transformers' names of all weights, in alphabetical order."""
        return sorted(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """As `tensor(name)` has it, without reading the tensor. Raises ValueError for an unknown name."""
        path, stored = self._find(name)
        with _opened(path) as file:
            return tuple(file.get_slice(stored).get_shape())

    def tensor(self, name: str) -> np.ndarray:
        """A weight as float32, C-contiguous. Raises ValueError for an unknown name, another type, and what is not
        finite: integers would hide it."""
        path, stored = self._find(name)
        self._read.add(name)
        # Opened for each tensor: a file kept open stays mapped, and all that was read of it counts as our memory.
        with _opened(path) as file:
            if (dtype := file.get_slice(stored).get_dtype()) not in FLOATS:
                raise ValueError(f"{path}: {stored} is in {dtype}; weights are read in {', '.join(FLOATS)}")
            weight = np.ascontiguousarray(file.get_tensor(stored).astype(np.float32))
        if not np.isfinite(weight).all():
            raise ValueError(f"{path}: {stored} holds NaN or infinity: a damaged checkpoint")
        return weight

    def linear(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Weight float32 (n_in, n_out), for the product x @ weight, and bias (n_out,), zeros where there is none."""
        weight = self.tensor(f"{name}.weight")
        weight = weight.reshape(weight.shape[0], -1).T  # a pointwise convolution is a product too
        bias = self.tensor(f"{name}.bias") if f"{name}.bias" in self else np.zeros(weight.shape[1], np.float32)
        return weight, bias

    def matrix(self, name: str) -> np.ndarray:
        """The weights called `name`, (n_in, n_out); of a table, a column for each of its rows."""
        return self.tensor(f"{name}.weight").T

    def scale(self, name: str) -> float:
        """What the model multiplies the result of a product by: attention's scale, for the queries, and so on."""
        dims = self.dimensions
        if name.endswith(".linear2"):
            return 0.5  # the Conformer adds half of each feed-forward
        if name.endswith(".q_proj"):
            encoder = name.startswith("encoder.")
            width, heads = (
                (dims.encoder_width, dims.encoder_heads) if encoder else (dims.decoder_width, dims.decoder_heads)
            )
            return (width // heads) ** -0.5
        return self._input_scale if name == "encoder.subsampling.linear" else 1.0

    def relative_keys(self, name: str, sinusoids: np.ndarray) -> np.ndarray:
        """The keys of relative positions in an attention, float32 (positions, width). sinusoids: of the same shape."""
        return sinusoids @ self.linear(f"{name}.relative_k_proj")[0]

    def write_tokens(self, out: Path) -> None:
        """Write tokens.txt. Raises ValueError or OSError."""
        write_tokens(read_pieces(self.folder), out, self.dimensions.vocab_size)

    def finish(self) -> None:
        """Raises ValueError if there are weights that no graph used: a model that this exporter does not understand."""
        unused = sorted(set(self._places) - self._read)
        if unused:
            raise ValueError(f"{len(unused)} tensors of the checkpoint were not used, e.g. {', '.join(unused[:5])}")

    def _find(self, name: str) -> tuple[Path, str]:
        if name not in self._places:
            raise ValueError(f"the checkpoint has no tensor {name!r}; it has e.g. {', '.join(self.names()[:5])}")
        return self._places[name]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged ({error})") from error


def _safetensors_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = read_config(index).get("weight_map")
        if not (isinstance(places, dict) and places and all(isinstance(name, str) for name in places.values())):
            raise ValueError(f"{index} has no weight_map, of tensors and their files")
        for file in sorted({*places.values()}):
            with _opened(folder / file) as shard:
                if lost := {name for name, place in places.items() if place == file} - {*shard.keys()}:
                    raise ValueError(f"{folder / file} lacks {min(lost)}, which {index.name} says is there")
        return [folder / file for file in sorted({*places.values()})]
    single = folder / "model.safetensors"
    if not single.is_file():
        raise FileNotFoundError(f"{folder} has neither model.safetensors nor model.safetensors.index.json")
    return [single]


def _transformers_name(stored: str) -> str:
    for pattern, replacement in RENAMINGS:
        stored = re.sub(pattern, replacement, stored)
    return stored


def _dimensions(config: dict, checkpoint: Checkpoint) -> tuple[Dimensions, float]:
    """And what the encoder's input is multiplied by. Sizes are read from the tensors; config.json is asked only for
    what the tensors do not show, and for the number of layers, so that a lost one is missed."""
    is_hub_style = "transf_decoder" in config  # the original one
    if is_hub_style:
        encoder, decoder = config["encoder"], config["transf_decoder"]["config_dict"]
        decoder_heads, decoder_act = decoder["num_attention_heads"], decoder.get("hidden_act", "relu")
        kv_heads, encoder_act, n_mels = decoder_heads, "silu", encoder["feat_in"]
        scale_input = encoder.get("xscaling", False)
    elif "encoder_config" in config:  # transformers' style
        encoder, decoder = config["encoder_config"], config
        decoder_heads, decoder_act = decoder["num_attention_heads"], decoder["hidden_act"]
        kv_heads = decoder.get("num_key_value_heads") or decoder_heads
        encoder_act, n_mels, scale_input = encoder["hidden_act"], encoder["num_mel_bins"], encoder["scale_input"]
    else:
        raise ValueError(
            "config.json has neither `transf_decoder` (the hub's style) nor `encoder_config` (transformers')"
        )
    for name, found, known in [("encoder", encoder_act, "silu"), ("decoder", decoder_act, "relu")]:
        if found != known:
            raise ValueError(f"{name} activation {found!r}; this exporter writes {known!r}, as Cohere Transcribe has")
    if kv_heads != decoder_heads:
        raise ValueError(f"{kv_heads} key/value heads for {decoder_heads} heads; grouped heads are not supported")

    def count(pattern: str) -> int:
        return 1 + max((int(m[1]) for m in (re.match(pattern, name) for name in checkpoint.names()) if m), default=-1)

    def layers(part: str, said: int) -> int:
        found = count(rf"{part}\.layers\.(\d+)\.")
        if found != said:
            raise ValueError(f"config.json says that the {part} has {said} layers; the tensors are those of {found}")
        for name in checkpoint.names():
            if (match := re.match(rf"({part}\.layers)\.\d+\.(.+)", name)) and MAY_BE_LEFT_OUT.search(name):
                for other in (f"{match[1]}.{i}.{match[2]}" for i in range(found)):
                    if other not in checkpoint:
                        raise ValueError(f"the checkpoint has no {other}, but {name}: it is incomplete")
        return found

    heads, head_dim = checkpoint.shape("encoder.layers.0.self_attn.bias_u")
    max_positions, decoder_width = checkpoint.shape("decoder.pos_emb.weight")
    # Convolution modules stand at 0, 2, 3, 5, 6, ...: one, then a depthwise and a pointwise one per further halving.
    last_conv = count(r"encoder\.subsampling\.layers\.(\d+)\.weight") - 1
    dimensions = Dimensions(
        n_mels=n_mels,
        subsampling_layers=last_conv // 3 + 1,
        encoder_layers=layers("encoder", encoder["n_layers" if is_hub_style else "num_hidden_layers"]),
        encoder_width=heads * head_dim,
        encoder_heads=heads,
        decoder_layers=layers("decoder", decoder["num_layers" if is_hub_style else "num_hidden_layers"]),
        decoder_width=decoder_width,
        decoder_heads=decoder_heads,
        max_positions=max_positions,
        vocab_size=checkpoint.shape("decoder.embed_tokens.weight")[0],
    )
    return dimensions, float(heads * head_dim) ** 0.5 if scale_input else 1.0
