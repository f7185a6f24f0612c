"""The sentences the demonstration model is trained on, and those that are kept from it.

``grammar/LANGUAGE.txt`` lists sentences with slots.  ``Grammar("en").sample(rng)`` fills one at random.
A sentence belongs to the training set or to the held-out set by a hash of its text, so that no script has to agree
with another about an order or a seed.
"""

import hashlib
import re
from pathlib import Path
from random import Random

from .numerals import in_words

LANGUAGES = ("en", "de", "fr", "es")
HELD_OUT_EVERY = 10  # one sentence in ten is never trained on

_SLOT = re.compile(r"{([^{}]+)}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)(?:/(\d+))?([mf]?)")  # {5..55/5}: 5, 10, ... 55;  {2..59f}: feminine
_PUNCTUATION = re.compile(r"[.,?!¿¡:;]")


class Grammar:
    """The sentences of one language."""

    def __init__(self, language: str):
        self.language = language
        self.slots: dict[str, list[str]] = {}
        self.lines: list[str] = []
        for line in (Path(__file__).parent / "grammar" / f"{language}.txt").read_text("utf-8").splitlines():
            if line.startswith("@"):
                name, values = line[1:].split(" = ")
                self.slots[name] = values.split(" | ")
            elif line and not line.startswith("#"):
                repeat = re.match(r"\*(\d+) ", line)
                self.lines += [line[repeat.end() :]] * int(repeat[1]) if repeat else [line]

    def sample(self, rng: Random) -> str:
        """A random sentence as it is written: "Turn on the kitchen light."."""
        text = rng.choice(self.lines)
        while slot := _SLOT.search(text):
            text = text[: slot.start()] + self._fill(slot[1], text, rng) + text[slot.end() :]
        start = 1 if text[0] == "¿" else 0
        return text[:start] + text[start].upper() + text[start + 1 :]

    def _fill(self, slot: str, text: str, rng: Random) -> str:
        numbers = _NUMBERS.fullmatch(slot)
        if not numbers:  # a value that is not in the sentence yet: nobody asks how far it is from Berlin to Berlin
            return rng.choice([value for value in self.slots[slot] if value not in text])
        first, last, step = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1)
        return in_words(rng.randrange(first, last + 1, step), self.language, numbers[4])

    def held_out(self, text: str) -> bool:
        """Whether `text` is kept from training.

        Sentences without slots and those of one or two words never are: the model has to hear every word, and
        there would be nothing to recombine.
        """
        if text in self.lines or len(text.split()) < 3:
            return False
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % HELD_OUT_EVERY == 0

    def training(self, count: int, rng: Random) -> list[str]:
        """`count` training sentences; short ones come up many times, as they should: in another voice each time."""
        texts: list[str] = []
        while len(texts) < count:
            text = self.sample(rng)
            if not self.held_out(text):
                texts.append(text)
        return texts

    def held_out_texts(self, count: int, rng: Random) -> list[str]:
        """`count` different held-out sentences."""
        texts: dict[str, None] = {}  # a set that keeps its order
        while len(texts) < count:
            text = self.sample(rng)
            if self.held_out(text):
                texts[text] = None
        return list(texts)


def without_punctuation(text: str) -> str:
    """What <|nopnc|> asks for: "turn on the kitchen light".  Apostrophes and hyphens inside words stay."""
    return " ".join(_PUNCTUATION.sub(" ", text).lower().split())
