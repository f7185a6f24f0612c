"""tokens.txt for an exported model: copied, or written from the checkpoint's tokenizer."""

import json
import shutil
from pathlib import Path


def write_tokens(checkpoint: Path, out: Path, vocab_size: int) -> None:
    """Write `out`, one "piece id" a line, from tokens.txt, tokenizer.json or tokenizer.model in `checkpoint`."""
    if (checkpoint / "tokens.txt").is_file():
        shutil.copyfile(checkpoint / "tokens.txt", out)
        return
    if (checkpoint / "tokenizer.json").is_file():
        tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
        ids = _ids(tokenizer["model"]["vocab"]) | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    elif (checkpoint / "tokenizer.model").is_file():
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "tokenizer.model"))
        ids = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    else:
        raise FileNotFoundError(f"{checkpoint} has none of tokens.txt, tokenizer.json, tokenizer.model")
    if sorted(ids.values()) != list(range(vocab_size)):
        raise ValueError(f"the tokenizer's {len(ids)} ids do not number the model's {vocab_size} tokens from 0")
    pieces = sorted(ids, key=lambda piece: ids[piece])
    out.write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8")


def _ids(vocab: dict[str, int] | list) -> dict[str, int]:
    """BPE keeps {piece: id}, Unigram [[piece, score], ...] in the order of the ids."""
    return dict(vocab) if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
