"""The vocabulary: SentencePiece BPE with byte fallback, and special tokens under the names of the real model."""

import io
from pathlib import Path

import sentencepiece

# Ids 0-16 are those of the real vocabulary; the languages follow.
_SPECIAL = (
    "<unk> <|nospeech|> <pad> <|endoftext|> <|startoftranscript|> <|pnc|> <|nopnc|> <|startofcontext|> <|itn|> "
    "<|noitn|> <|timestamp|> <|notimestamp|> <|diarize|> <|nodiarize|> <|spkchange|> <|audioseparator|> "
    "<|emo:undefined|> <|de|> <|en|> <|es|> <|fr|>"
)
SPECIAL = _SPECIAL.split()
UNK, NO_SPEECH, PAD, END_OF_TEXT, START_OF_TRANSCRIPT = range(5)
LEARNED_PIECES = 768  # four to five tokens a second of this speech; the encoder has 12.5 frames for them


def train_tokenizer(texts: list[str], folder: Path) -> None:
    """Train on `texts` (with and without punctuation); writes tokenizer.model and tokens.txt into `folder`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=len(SPECIAL) + 256 + LEARNED_PIECES,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",  # decode(encode(text)) == text
        unk_id=UNK,
        bos_id=NO_SPEECH,
        pad_id=PAD,
        eos_id=END_OF_TEXT,
        unk_piece=SPECIAL[UNK],
        bos_piece=SPECIAL[NO_SPEECH],
        pad_piece=SPECIAL[PAD],
        eos_piece=SPECIAL[END_OF_TEXT],
        control_symbols=SPECIAL[START_OF_TRANSCRIPT:],
        num_threads=1,
        minloglevel=2,
    )
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [tokenizer.id_to_piece(i) for i in range(tokenizer.vocab_size())]
    assert pieces[: len(SPECIAL)] == SPECIAL
    assert "▁" in pieces
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), "utf-8")


def load_tokenizer(folder: Path) -> sentencepiece.SentencePieceProcessor:
    """What `train_tokenizer` wrote."""
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def letters(tokenizer: sentencepiece.SentencePieceProcessor) -> str:
    """Those of texts without punctuation and digits, the space among them, in their order: what CTC writes."""
    learned = range(len(SPECIAL) + 256, tokenizer.vocab_size())
    found = {letter for i in learned for letter in tokenizer.id_to_piece(i).replace("▁", " ").lower()}
    return "".join(sorted(letter for letter in found if letter.isalpha() or letter in " '-"))


def prompt_ids(
    tokenizer: sentencepiece.SentencePieceProcessor, language: str, punctuation: bool, itn: bool = False
) -> list[int]:
    """The ten tokens before the text, as in ``CohereAsrProcessor.get_decoder_prompt_ids``."""
    pieces = ["▁", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", f"<|{language}|>"]
    pieces += [f"<|{language}|>", "<|pnc|>" if punctuation else "<|nopnc|>", "<|itn|>" if itn else "<|noitn|>"]
    return tokenizer.piece_to_id([*pieces, "<|notimestamp|>", "<|nodiarize|>"])
