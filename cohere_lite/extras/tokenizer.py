"""The pieces of a vocabulary from Hugging Face's files: tokenizer.json, vocab.json."""

import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import ModelError


def json_pieces(path: Path, text: str) -> Iterator[tuple[str, int, str]]:
    """(piece, id, "") of each, in any order: tokenizer.json repeats some pieces of model.vocab among added_tokens.

    Raises ModelError."""
    try:
        listed = json.loads(text)
        added: list[dict] = []
        if isinstance(listed, dict) and isinstance(listed.get("model"), dict):
            listed, added = listed["model"]["vocab"], listed.get("added_tokens") or []
        if isinstance(listed, dict):
            listed = listed.items()
        else:  # a list of pieces or, in a Unigram tokenizer.json, of pieces and their scores
            listed = [(piece if isinstance(piece, str) else piece[0], i) for i, piece in enumerate([*listed])]
        for piece, i in [*listed, *((token["content"], token["id"]) for token in added)]:
            if not isinstance(piece, str) or type(i) is not int:
                raise ValueError(f"{piece!r} has id {i!r}")
            yield piece, i, ""
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: not a list of tokens as Hugging Face writes them ({error})") from error
