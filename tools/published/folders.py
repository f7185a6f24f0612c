"""The files beside the graphs, from what every checkpoint has: config.json and tokens.txt."""

import json
import re
import shutil
from pathlib import Path

from transformers import CohereAsrConfig, CohereAsrFeatureExtractor


def tokens(checkpoint: Path, out: Path) -> None:
    shutil.copy(checkpoint / "tokens.txt", out)


def vocabulary(checkpoint: Path, out: Path) -> None:
    shutil.copy(checkpoint / "tokens.txt", out / "vocabulary.txt")


def mems(checkpoint: Path, out: Path) -> None:
    config = CohereAsrConfig.from_pretrained(checkpoint)
    shutil.copy(checkpoint / "tokens.txt", out / "vocab.txt")
    known = {"features_size": config.encoder_config.num_mel_bins, "subsampling_factor": 8}
    known["max_sequence_length"] = config.max_position_embeddings
    _write(out / "config.json", {"model_type": "nemo-conformer-aed"} | known)


def merged(checkpoint: Path, out: Path) -> None:
    """As transformers.js reads them. Last, after the graphs: config.json counts their shards."""
    config = CohereAsrConfig.from_pretrained(checkpoint)
    ids = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
    generation = {name: getattr(config, name) for name in ids} | {"max_length": config.max_position_embeddings}
    extractor = CohereAsrFeatureExtractor(feature_size=config.encoder_config.num_mel_bins).to_dict()
    extractor = {name: value for name, value in extractor.items() if name != "mel_filters"}
    extractor |= {"feature_extractor_type": "CohereAsrFeatureExtractor", "processor_class": "CohereAsrProcessor"}
    pieces = [line.rsplit(" ", 1)[0] for line in (checkpoint / "tokens.txt").read_text("utf-8").splitlines()]
    shards = {path.name: len([*path.parent.glob(f"{path.name}_data*")]) for path in sorted(out.rglob("*.onnx"))}
    for_js = {"use_external_data_format": shards, "kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"}}
    _write(out / "config.json", config.to_dict() | {"transformers.js_config": for_js})
    _write(out / "generation_config.json", generation)
    _write(out / "preprocessor_config.json", extractor)
    _write(out / "processor_config.json", {"processor_class": "CohereAsrProcessor", "feature_extractor": extractor})
    _write(out / "tokenizer.json", tokenizer(pieces))
    names = {"tokenizer_class": "CohereAsrTokenizer", "processor_class": "CohereAsrProcessor"}
    special = {"bos": config.bos_token_id, "eos": config.eos_token_id, "pad": config.pad_token_id, "unk": 0}
    _write(
        out / "tokenizer_config.json",
        names | {f"{name}_token": pieces[i] for name, i in special.items()} | {"clean_up_tokenization_spaces": False},
    )


def tokenizer(pieces: list[str]) -> dict:
    """tokenizer.json: byte pairs with fallback to bytes; a merge for every two pieces that make a third."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    special = [piece for piece in pieces if re.fullmatch(r"<\|.*\|>|<unk>|<pad>", piece)]
    added = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    splits = ((piece[:i], piece[i:]) for piece in pieces if piece not in special for i in range(1, len(piece)))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[piece], "content": piece} | added for piece in special],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[0],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": [[left, right] for left, right in splits if left in ids and right in ids],
        },
    }


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
