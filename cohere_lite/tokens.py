"""tokens.txt and the like -> prompt ids for the decoder, and text from the ids that it answers with. The pieces are
SentencePiece's: "▁" stands for a space, "<0xNN>" for one byte of UTF-8, "<|...|>" for a special token."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path

from .errors import ModelError, OptionError
from .graphfile import check_download

# The vocabulary has a token for some 180 languages, but the model was trained on these: LANGUAGES in transformers'
# processing_cohere_asr.py, and ru and tr from the model card. Asked for another, it answers fluently and wrongly.
TRAINED_LANGUAGES = ("ar", "de", "el", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "vi", "zh")

_SPACE = "▁"  # U+2581
_SPECIAL = re.compile(r"<\|.*\|>|<unk>|<pad>|<s>|</s>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of a model, in the order of their ids.  name: of the file that lists them, for messages"""

    pieces: tuple[str, ...] = field(repr=False)
    name: str = field(default="tokens.txt", repr=False)

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that this model can be asked for: trained, and in its vocabulary."""
        return tuple(code for code in TRAINED_LANGUAGES if f"<|{code}|>" in self._ids)

    @cached_property
    def end_of_text(self) -> int:
        """The id that ends a text."""
        return self.id("<|endoftext|>")

    def id(self, piece: str) -> int:
        """The id of a piece, such as "<|endoftext|>". Raises ModelError if there is none, or more than one."""
        ids = self._ids.get(piece, [])
        if len(ids) != 1:
            found = f"{piece!r} more than once: {ids}" if ids else f"no {piece!r}"
            raise ModelError(f"{self.name} has {found}; is it from a Cohere Transcribe model?")
        return ids[0]

    @cached_property
    def _ids(self) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for i, piece in enumerate(self.pieces):
            ids.setdefault(piece, []).append(i)
        return ids

    def prompt(self, language: str, *, punctuation: bool = True, itn: bool = False, style: str = "full") -> list[int]:
        """The ids that tell the decoder what to write; they come before the text.

        language: one of `languages`. punctuation: capitals and marks. itn: inverse text normalisation, "20" for
        "twenty". style: "full", the ten tokens of the reference's `CohereAsrProcessor.get_decoder_prompt_ids` (which
        never asks for itn); or "short", the two tokens of the model card, where punctuation and itn have no place.
        Raises OptionError for a value it does not know, ModelError if the vocabulary lacks one of the tokens."""
        self._check_language(language)
        language_token = f"<|{language}|>"
        if style == "full":
            # The leading "▁" is the model's decoder_start_token_id; without it every position is off by one.
            # The language comes twice, as spoken and as written: Canary, the prompt's ancestor, translated too.
            pieces = [_SPACE, "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>"]
            pieces += [language_token, language_token]
            pieces += ["<|pnc|>" if punctuation else "<|nopnc|>", "<|itn|>" if itn else "<|noitn|>"]
            pieces += ["<|notimestamp|>", "<|nodiarize|>"]
        elif style == "short":
            if itn or not punctuation:
                raise OptionError('the "short" prompt cannot ask for itn or for no punctuation; use "full"')
            pieces = [_SPACE, language_token]
        else:
            raise OptionError(f'prompt {style!r} is not known; known: "full", "short"')
        return [self.id(piece) for piece in pieces]

    def _check_language(self, language: str) -> None:
        if language not in self.languages:
            try:
                from .extras.languages import language_code
            except ImportError:
                code = None
            else:
                code = language_code(str(language))
            hint = f"; did you mean {code!r}?" if code in self.languages else ""
            raise OptionError(f"language {language!r} is not among this model's: {', '.join(self.languages)}{hint}")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, as SentencePiece decodes them: no spaces at the start, bytes joined to characters.

        Special tokens are left out, "<unk>" too, as transformers' `skip_special_tokens=True` does; SentencePiece would
        write " ⁇ " for "<unk>". Each byte that is part of no character gives one U+FFFD. Raises ModelError for an id
        that is not in the vocabulary.
        """
        text, pending = "", bytearray()  # pending: bytes since the last piece of another kind
        for token in ids:
            if not 0 <= token < len(self.pieces):
                raise ModelError(f"the decoder gave token {token}, but {self.name} ends at {len(self.pieces) - 1}")
            piece = self.pieces[token]
            if byte := _BYTE.fullmatch(piece):
                pending.append(int(byte[1], 16))
                continue
            text += _utf8(pending)
            pending.clear()
            if not _SPECIAL.fullmatch(piece):
                text += (piece if text else piece.removeprefix(_SPACE)).replace(_SPACE, " ")
        return text + _utf8(pending)


def _utf8(data: bytearray) -> str:
    """Decode as SentencePiece does. Python's own errors="replace" would give one U+FFFD for a cut-off sequence."""
    return re.sub("[\udc80-\udcff]", "\ufffd", data.decode("utf-8", "surrogateescape"))


def read_tokens(path: str | PathLike[str]) -> Vocabulary:
    """Read tokens.txt and the like: UTF-8, a piece, a space and its id on each line, ids 0 to n - 1 in any order;
    or, by its name, tokenizer.json (Hugging Face's) or vocab.json (pieces and their ids, or a list of pieces).

    Raises ModelError, with the line, if that is not what the file holds."""
    path = Path(path)
    check_download(path, "a list of tokens")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text: {error}") from error
    listed = _line_pieces(path, text)
    if path.suffix == ".json":
        try:
            from .extras.tokenizer import json_pieces
        except ImportError:
            raise ModelError(f"{path} needs cohere_lite/extras/tokenizer.py, which is not in this copy") from None
        listed = json_pieces(path, text)
    pieces: dict[int, str] = {}
    for piece, i, place in listed:
        if i in pieces and (place or pieces[i] != piece):
            raise ModelError(f"{path}{place}: id {i} is there for a second time")
        pieces[i] = piece
    for i in range(len(pieces)):
        if i not in pieces:
            raise ModelError(f"{path} has {len(pieces)} tokens, but none for id {i}: ids must run from 0 without gaps")
    return Vocabulary(tuple(pieces[i] for i in range(len(pieces))), path.name)


def _line_pieces(path: Path, text: str) -> Iterator[tuple[str, int, str]]:
    # Not splitlines(): a piece may be a character that it takes for the end of a line, such as U+2028.
    for number, line in enumerate(text.rstrip().split("\n"), start=1):
        piece, _, digits = line.removesuffix("\r").rpartition(" ")  # a piece may hold spaces itself
        if not piece or not digits.isdecimal() or len(digits) > 9:
            raise ModelError(f'{path}, line {number}: {line[:60]!r} is not a piece and its id, as in "▁the 42"')
        yield piece, int(digits), f", line {number}"
