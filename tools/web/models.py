"""A folder of models -> its entry in models.json, which tells the page what to fetch and how to run it.

folder      of its files, in models/
id          of this very version: the folder and a checksum
pairs       for each precision: {precision, device ("wasm" or "webgpu"), bytes, encoder and decoder: {graph, data},
            heads, head_dim, positions (of the caches; null where the graph leaves them open), max_positions,
            float_type (of the caches), max_audio_s}
files       {name: {bytes, sha256}}
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from cohere_lite.contracts.fast import FastContract
from cohere_lite.errors import ModelError
from cohere_lite.extras.precisions import graph_precision, pairs_by_precision
from cohere_lite.graphfile import GraphFile, check_external_data
from cohere_lite.model import find_graphs

# Chromium's largest buffer; onnxruntime-web reads a file of weights into one
MAX_FILE_BYTES = 0x7FE00000
PRECISIONS = ("int8", "q4", "fp32", "fp16", "q8f16", "q4f16")  # onnxruntime-web has no bfloat16
FLOAT_TYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}


def describe_model(source: Path, name: str) -> tuple[dict[str, Any], list[Path]]:
    """The entry, and the files that belong to it. Raises ModelError."""
    if not source.is_dir():
        raise ModelError(
            f"{source} is no folder; a model is a folder with an encoder, a decoder (.onnx) and tokens.txt"
        )
    if not (source / "tokens.txt").is_file():
        raise ModelError(f"{source} has no tokens.txt")
    pairs = [_pair(*graphs) for graphs in _pairs_of_graphs(source)]
    if not pairs:
        raise ModelError(
            f"{source} has no encoder and decoder of one precision in the fast layout: "
            "python -m cohere_lite.export SOURCE OUT --target web writes them"
        )
    names = {"tokens.txt", *(name for pair in pairs for name in _files(pair))}
    files = {name: _described(source / name) for name in sorted(names)}
    for pair in pairs:
        pair["bytes"] = sum(files[name]["bytes"] for name in {*_files(pair), "tokens.txt"})
    checksum = hashlib.sha256(json.dumps([pairs, files]).encode()).hexdigest()[:16]
    return {"folder": name, "id": f"{name}-{checksum}", "pairs": pairs, "files": files}, [source / n for n in files]


def _pairs_of_graphs(source: Path) -> Iterator[tuple[str, GraphFile, GraphFile]]:
    """(precision, encoder, decoder); for each device the best first."""
    found = [graphs for graphs in find_graphs(source, sorted(source.glob("*.onnx"))) if graphs.contract is FastContract]
    precisions = {graph.path: graph_precision(graph) for graphs in found for graph in (graphs.encoder, graphs.decoder)}
    encoders = {graphs.encoder.path: graphs.encoder for graphs in found}
    decoders = {graphs.decoder.path: graphs.decoder for graphs in found}
    for device in "wasm", "webgpu":
        pairs = pairs_by_precision([*encoders], [*decoders], precisions.__getitem__, on_cpu=device == "wasm")
        for precision, (encoder_paths, decoder_paths) in pairs.items():
            decoder = decoders[decoder_paths[0]]
            if precision in PRECISIONS and _device(decoder) == device:
                yield precision, encoders[encoder_paths[0]], decoder


def _device(decoder: GraphFile) -> str:
    """Exports for devices choose the next token by themselves; those for CPUs mask in a way that WebGPU has not."""
    return "webgpu" if "next_token" in decoder.outputs else "wasm"


def _pair(precision: str, encoder: GraphFile, decoder: GraphFile) -> dict[str, Any]:
    graphs = [onnx.load(graph.path, load_external_data=False) for graph in (encoder, decoder)]
    metadata = [{entry.key: entry.value for entry in graph.metadata_props} for graph in graphs]
    cache = next(value for value in graphs[1].graph.input if value.name == "past_key_0").type.tensor_type
    _, heads, positions, head_dim = (size.dim_value or None for size in cache.shape.dim)
    return {
        "precision": precision,
        "device": _device(decoder),
        "encoder": _graph(encoder),
        "decoder": _graph(decoder),
        "heads": heads,
        "head_dim": head_dim,
        "positions": positions,
        "max_positions": positions or int(metadata[1]["max_positions"]),
        "float_type": FLOAT_TYPES[cache.elem_type],
        "max_audio_s": float(metadata[0]["max_audio_s"]),
    }


def _graph(graph: GraphFile) -> dict[str, Any]:
    check_external_data(graph)
    for name in graph.external_bytes:
        if (size := (graph.path.parent / name).stat().st_size) > MAX_FILE_BYTES:
            raise ModelError(
                f"{graph.path.parent / name} has {size / 1e9:.1f} GB, and browsers take 2.1 GB in a file: export it "
                "with --target web, which writes smaller ones"
            )
    return {"graph": graph.path.name, "data": sorted(graph.external_bytes)}


def _files(pair: dict[str, Any]) -> list[str]:
    return [name for role in ("encoder", "decoder") for name in (pair[role]["graph"], *pair[role]["data"])]


def _described(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
