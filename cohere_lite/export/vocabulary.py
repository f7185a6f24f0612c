"""The vocabulary of a checkpoint, and tokens.txt for an exported model."""

from collections.abc import Sequence
from pathlib import Path

from ..tokens import read_tokens


def read_pieces(checkpoint: Path) -> Sequence[str]:
    """The pieces in the order of their ids, from tokens.txt, tokenizer.json or tokenizer.model. Raises ValueError or
    OSError."""
    for name in ("tokens.txt", "tokenizer.json"):
        if (checkpoint / name).is_file():
            return read_tokens(checkpoint / name).pieces
    if not (checkpoint / "tokenizer.model").is_file():
        raise FileNotFoundError(f"{checkpoint} has none of tokens.txt, tokenizer.json, tokenizer.model")
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "tokenizer.model"))
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


def write_tokens(pieces: Sequence[str], out: Path, vocab_size: int) -> None:
    """Write `out`, one "piece id" a line. Raises ValueError for other than vocab_size pieces, or one that such a list
    cannot hold; OSError."""
    if len(pieces) != vocab_size:
        raise ValueError(f"the vocabulary lists {len(pieces)} tokens, the model knows {vocab_size}")
    for i, piece in enumerate(pieces):
        if not piece or "\n" in piece or piece.endswith("\r"):
            raise ValueError(f"the vocabulary has {piece!r} for token {i}, which a line of tokens.txt cannot hold")
    out.write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8", newline="\n")
