"""Graphs that have the names of a contract, and not the types and shapes: another model's, or of two models. Without
this file onnxruntime says at the first clip, in its words, that it cannot run them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..contracts.contract import Contract
from ..errors import ModelError
from ..mel import N_MELS
from ..session import BFLOAT16


def refuse_misfits(contract: Contract, given_by: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """given_by: the encoder's names of its outputs, by the decoder's;  config: config.json. Raises ModelError."""
    encoder, decoder = contract.encoder, contract.decoder
    of_decoder = contract.decoder_graph[0] | contract.also_fed | {*given_by}
    for session, known in ((encoder, contract.encoder_graph[0]), (decoder, of_decoder)):
        if more := [name for name in session.inputs if not {name, re.sub(r"\d+", "0", name)} & known]:
            raise ModelError(f"{session.path} takes {', '.join(more)}, too: not the {contract.name!r} contract's")
    fed = encoder.inputs[contract.encoder_input]
    if fed.dtype.kind != "f":
        kind = "bfloat16" if fed.dtype == BFLOAT16 else fed.dtype
        raise ModelError(f"{encoder.path} takes {kind}, and not float32 or float16")
    n_mels = fed.shape[contract.mel_axis] if len(fed.shape) == 3 else N_MELS
    if isinstance(n_mels, int) and n_mels != N_MELS:
        shape = f"{contract.encoder_input} {[*fed.shape]}"
        raise ModelError(f"{encoder.path} takes {shape}, another model's: Cohere Transcribe has {N_MELS} mel bins")
    if contract.name == "mems" and (n_mels := config.get("features_size", N_MELS)) != N_MELS:
        raise ModelError(f"config.json says features_size {n_mels!r}; Cohere Transcribe has {N_MELS} mel bins")
    for name in decoder.inputs.keys() & given_by.keys():
        given, taken = encoder.outputs[given_by[name]].shape, decoder.inputs[name].shape
        if given[-1:] != taken[-1:] and {type(size) for size in (*given[-1:], *taken[-1:])} == {int}:
            found = f"{encoder.path.name} gives {given_by[name]} {[*given]}"
            raise ModelError(f"{found}, {decoder.path.name} takes {[*taken]}: files of different models")
    if contract.name == "fast" and isinstance(decoder.inputs["past_key_0"].shape[2], str):
        raise ModelError(f"{decoder.path} is for browsers (--target web), with caches of any length; export without it")
    cache = decoder.inputs.get("in_n_layer_self_k_cache")
    if cache and len(cache.shape) != 5:
        found = f"{decoder.path} takes caches {[*cache.shape]}"
        raise ModelError(f"{found}, and not one by head: another model's (Whisper's?)")
