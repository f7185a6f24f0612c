"""Tokens -> words: what stands between spaces, in Chinese and Japanese each character. Nothing is left out: punctuation
belongs to the word before it, an opening mark to the word after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple
from unicodedata import category

from ..tokens import Vocabulary

_CJK = re.compile("[\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]")  # Korean has spaces
_OPENING = "¿¡"  # the two that Unicode does not count among them (Ps, Pi)
# A word's beginning and letters, in the classes of _kind: opening marks, or others after a space, and what follows.
_WORD = re.compile("(?:o ?|(?<= )m+)*(?:c|w(?:[wm]|o(?=[wm]))*)")


class SpokenWord(NamedTuple):
    """first: where its letters begin in the tokens: 2.5 is the middle of the third;  tokens: all that these have a part
    of, from and up to"""

    text: str
    first: float
    tokens: tuple[int, int]


class _Character(NamedTuple):
    text: str
    first: float
    last: float


def split_words(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[SpokenWord]:
    """The words of a text, in order. They hold no space but that before a mark which stands alone ("Qui ?")."""
    characters = [*_characters(vocabulary, tokens)]
    kinds = "".join(_kind(character.text) for character in characters)
    starts = [match.start() for match in _WORD.finditer(kinds)][1:]
    words = []
    for start, end in pairwise([0, *starts, len(characters)]):
        text = " ".join("".join(character.text for character in characters[start:end]).split())
        letters = [at for at in range(start, end) if kinds[at] in "cw"] or [*range(start, end)]
        if text:
            first, last = characters[letters[0]].first, characters[letters[-1]].last
            words.append(SpokenWord(text, first, (int(first), -int(-last // 1))))
    return words


def _kind(character: str) -> str:
    """Space, letter or digit of a word (w), alone (c), opening mark (o), any other mark (m)."""
    general = category(character)
    if character.isspace():
        return " "
    if general[0] in "LN":
        return "c" if _CJK.match(character) else "w"
    return "o" if general in ("Ps", "Pi") or character in _OPENING else "m"


def _characters(vocabulary: Vocabulary, tokens: Sequence[int]) -> Iterator[_Character]:
    """Those of a token share it evenly. Tokens of bytes are taken together, by the bytes of each character."""
    pieces = [vocabulary.pieces[token] for token in tokens]
    for is_bytes, run in groupby(range(len(tokens)), lambda i: pieces[i].startswith("<0x")):
        numbers = [*run]
        for together in [numbers] if is_bytes else [[number] for number in numbers]:
            text = vocabulary.decode([tokens[number] for number in together])
            if pieces[together[0]].startswith("▁"):  # which decode leaves out at a beginning
                text = " " + text.removeprefix(" ")
            sizes = [len(c.encode()) - 2 * (c == "\ufffd") if is_bytes else int(not c.isspace()) for c in text]
            at, scale = 0, len(together) / max(sum(sizes), 1)
            for character, size in zip(text, sizes, strict=True):
                yield _Character(character, together[0] + at * scale, together[0] + (at + size) * scale)
                at += size
