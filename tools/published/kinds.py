"""Whose files there are stand-ins for, and how each folder is made."""

import gc
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx
import torch
from transformers import CohereAsrForConditionalGeneration

from . import contracts, folders
from .contracts import Contract, trace
from .first_step import add_first_step
from .precision import convert, save

SUFFIXES = {"fp32": "", "int8": "_quantized"}  # of graphs in contract C; of others "_" and the precision


@dataclass(frozen=True)
class Kind:
    """contract: {part: graph} from a model;  names: of the part's graph, {suffix} as in SUFFIXES;  precisions: side by
    side;  beside: writes the other files;  data, shards: as in `save`;  float32: as in `convert`, True for all;
    renamed: graphs, and only these, get another name in the end."""

    contract: Contract
    names: dict[str, str]
    beside: Callable[[Path, Path], None]
    precisions: tuple[str, ...] = ("int8",)
    data: str | None = ".data"
    shards: int = 1
    float32: bool = True
    renamed: dict[str, str] = field(default_factory=dict)


CARD_NAMES = {"encoder": "cohere-encoder.int8.onnx", "decoder": "cohere-decoder.int8.onnx"}
CARD = Kind(contracts.card, CARD_NAMES, folders.tokens)
FLOAT_NAMES = {part: name.replace(".int8", "") for part, name in CARD_NAMES.items()}
AUDIO = replace(CARD, contract=partial(contracts.card, audio=True))
MERGED = Kind(
    contracts.merged,
    {"encoder": "onnx/encoder_model{suffix}.onnx", "decoder": "onnx/decoder_model_merged{suffix}.onnx"},
    folders.merged,
    data="_data",
    float32=False,
)
MEMS = Kind(contracts.mems, {p: f"{p}-model.int8.onnx" for p in ("encoder", "decoder")}, folders.mems)

KINDS = {
    # A: the model card's own files, and what may come in their place
    "card": CARD,
    "card-per-channel": replace(CARD, precisions=("int8-per-channel",)),
    "card-uint8": replace(CARD, precisions=("uint8",)),
    "card-fp32": replace(CARD, precisions=("fp32",), names=FLOAT_NAMES),
    "card-fp16": replace(CARD, precisions=("fp16",), names=FLOAT_NAMES),
    "card-inline": replace(CARD, data=None),
    "card-batch-1": replace(CARD, contract=partial(contracts.card, batch=1)),
    "card-dynamo": replace(CARD, contract=partial(contracts.card, dynamo=True)),
    "card-renamed-as-C": replace(
        CARD, renamed={CARD_NAMES["encoder"]: "encoder_model.onnx", CARD_NAMES["decoder"]: "decoder_model_merged.onnx"}
    ),
    "sherpa": replace(CARD, names={p: f"{p}.int8.onnx" for p in ("encoder", "decoder")}),
    # B: Handy's, and cstr's
    "audio-int8": AUDIO,
    "audio-int4": replace(
        AUDIO,
        names={p: f"onnx/cohere-{p}.int4.onnx" for p in ("encoder", "decoder")},
        precisions=("int4",),
        beside=folders.vocabulary,
    ),
    # C: onnx-community's, the Arabic model's, Masterx's, and how voxtype keeps them
    "merged-fp32": replace(MERGED, precisions=("fp32",), shards=3),
    "merged-fp16": replace(MERGED, precisions=("fp16",), shards=2),
    "merged-int8": replace(MERGED, precisions=("int8",)),
    "merged-q4": replace(MERGED, precisions=("q4",)),
    "merged-q4f16": replace(MERGED, precisions=("q4f16",)),
    "merged-all": replace(MERGED, precisions=("fp32", "fp16", "int8", "q4", "q4f16"), shards=2),
    "merged-arabic": replace(MERGED, contract=contracts.arabic, precisions=("q4",)),
    "merged-arabic-fp16": replace(MERGED, contract=contracts.arabic, precisions=("fp16",)),
    "masterx": replace(
        MERGED,
        contract=contracts.masterx,
        names={
            "encoder": "onnx/encoder_model_int8.onnx",
            "decoder": "onnx/decoder_model_merged_int8.onnx",
            "decoder_dyn": "onnx/decoder_model_merged_int8_dyn.onnx",
        },
    ),
    "merged-flat": replace(
        MERGED,
        names={part: Path(name).name for part, name in MERGED.names.items()},
        precisions=("q4f16",),
        renamed={f"{name}_q4f16.onnx": f"{name}.onnx" for name in ("encoder_model", "decoder_model_merged")},
    ),
    # D: onnx-asr's
    "mems-int8": MEMS,
    "mems-fp32": replace(MEMS, names={p: f"{p}-model.onnx" for p in ("encoder", "decoder")}, precisions=("fp32",)),
}


def write_published(checkpoint: Path, out: Path, kind: str) -> None:
    """Make the folder `out`. By measure on a part of the model, it takes memory for 1.7 times its float32 weights, 13
    GB at the real size, and as much disk beside `out`, for a few minutes."""
    made = KINDS[kind]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        parts = _trace(made.contract, checkpoint, Path(scratch))
        gc.collect()  # the float32 model: `convert` is going to hold another
        for part, metadata in parts.items():
            source = Path(scratch, part, f"{part}.onnx")
            graph = onnx.load(source, load_external_data=False).graph
            stay = [value.name for value in (*graph.input, *graph.output) if made.float32 or _is_states(value.name)]
            for precision in made.precisions:
                model = convert(source, precision, stay)
                onnx.helper.set_model_props(model, metadata)
                suffix = SUFFIXES.get(precision, f"_{precision}")
                save(model, out / made.names[part].format(suffix=suffix), made.data, made.shards)
                del model
    for name, new_name in made.renamed.items():
        (out / name).rename(out / new_name)
    made.beside(checkpoint, out)


def _is_states(name: str) -> bool:
    """These are float32 in every file of contract C."""
    return name in ("input_features", "last_hidden_state", "encoder_hidden_states")


def _trace(contract: Contract, checkpoint: Path, scratch: Path) -> dict[str, dict[str, str]]:
    """Write scratch/PART/PART.onnx; -> {part: metadata}."""
    model = CohereAsrForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    graphs = contract(model)
    for part, graph in graphs.items():
        path = scratch / part / f"{part}.onnx"
        trace(graph, path)
        if contract is contracts.merged and part == "decoder":
            decoder = onnx.load(path)
            add_first_step(decoder, model)
            onnx.save(decoder, path)
    return {part: graph.metadata for part, graph in graphs.items()}
