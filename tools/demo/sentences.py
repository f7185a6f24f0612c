"""The sentences the demonstration model is trained on, and those that are kept from it.

``grammar/LANGUAGE.txt`` lists sentences with slots, and after a line ``%short`` short items: single words, digits,
lone times.  ``Grammar("en").sample(rng)`` fills one at random, in both ways in which the model is asked to write it.
A sentence belongs to the training set or to the held-out set by a hash of what is spoken, so that no script has to
agree with another about an order or a seed.

One rule for numbers, small ones too: whatever is spoken as a number is written in digits.  An hour and minutes, a
price, a percentage and the day of a month take the form the language gives them ("7:30", "7h30"; "$5", "5 €"; "20%",
"20 %"; "the 3rd of May", "3. Mai"); every other word stays what it is ("half past 7", "20 degrees").
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

from .numerals import in_words, ordinal

LANGUAGES = ("en", "de", "fr", "es")
HELD_OUT_EVERY = 10  # one sentence in ten is never trained on

_SLOT = re.compile(r"{([^{}]+)}")
_BOTH = re.compile(r"\[([^][|]*)\|([^][|]*)\]")  # [spoken|written]
# {5..55/5}: 5, 10, ... 55;  {02..59}: written with two digits;  {2..59f}: feminine;  {1..31th}: ordinal;
# {0..9x3}: three digits one by one
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)(?:/(\d+))?([mf]|th|ten?|)(?:x(\d+))?")
_PUNCTUATION = re.compile(r"[?!¿¡;]|(?<!\d)[.,:]|[.,:](?!\d)")  # not inside of 7:30 and $5.50


@dataclass(frozen=True)
class Text:
    """A sentence as <|noitn|> and as <|itn|> ask for it; the same where it has no number.

    spoken:  "Set a timer for twenty minutes."
    written: "Set a timer for 20 minutes."
    """

    spoken: str
    written: str


class Grammar:
    """The sentences of one language."""

    def __init__(self, language: str):
        self.language = language
        self.slots: dict[str, list[str]] = {}
        self.lines: list[str] = []
        self.short_lines: list[str] = []
        lines = self.lines
        for line in (Path(__file__).parent / "grammar" / f"{language}.txt").read_text("utf-8").splitlines():
            if line.startswith("@"):
                name, values = line[1:].split(" = ")
                self.slots[name] = values.split(" | ")
            elif line == "%short":
                lines = self.short_lines
            elif line and not line.startswith("#"):
                repeat = re.match(r"\*(\d+) ", line)
                lines += [line[repeat.end() :]] * int(repeat[1]) if repeat else [line]
        self._fixed = {_text(line).spoken for line in self.lines + self.short_lines if not _SLOT.search(line)}

    def sample(self, rng: Random) -> Text:
        """A random sentence."""
        return self.fill(rng.choice(self.lines), rng)

    def fill(self, line: str, rng: Random) -> Text:
        """A line of the grammar with random values in its slots."""
        while slot := _SLOT.search(line):
            line = line[: slot.start()] + self._value(slot[1], line, rng) + line[slot.end() :]
        return _text(line)

    def _value(self, slot: str, line: str, rng: Random) -> str:
        numbers = _NUMBERS.fullmatch(slot)
        if not numbers:  # a value that is not in the line yet: nobody asks how far it is from Berlin to Berlin
            words = _SLOT.sub("", line)  # "rice" is not in "costs {price}"
            return rng.choice([value for value in self.slots[slot] if value not in words])
        first, last, step, form, count = numbers.groups()
        drawn = [rng.randrange(int(first), int(last) + 1, int(step or 1)) for _ in range(int(count or 1))]
        if form in ("th", "te", "ten"):
            return "[{}|{}]".format(*ordinal(drawn[0], form))
        spoken = " ".join(in_words(number, self.language, form) for number in drawn)
        return f"[{spoken}|{''.join(f'{number:0{len(first)}}' for number in drawn)}]"

    def held_out(self, spoken: str) -> bool:
        """Whether the sentence with these spoken words is kept from training.

        Sentences without slots and those of one or two words never are: the model has to hear every word, and
        there would be nothing to recombine.
        """
        if spoken in self._fixed or len(spoken.split()) < 3:
            return False
        return int.from_bytes(hashlib.sha256(spoken.encode()).digest()[:4], "big") % HELD_OUT_EVERY == 0

    def training(self, count: int, rng: Random) -> list[Text]:
        """`count` training sentences; short ones come up many times, as they should: in another voice each time."""
        return self._trained(self.lines, count, rng)

    def short(self, count: int, rng: Random) -> list[Text]:
        """`count` short training items: single words, digits in a row, lone times."""
        return self._trained(self.short_lines, count, rng)

    def _trained(self, lines: list[str], count: int, rng: Random) -> list[Text]:
        texts: list[Text] = []
        while len(texts) < count:
            text = self.fill(rng.choice(lines), rng)
            if not self.held_out(text.spoken):
                texts.append(text)
        return texts

    def held_out_texts(self, count: int, rng: Random) -> list[Text]:
        """`count` different held-out sentences."""
        texts: dict[Text, None] = {}  # a set that keeps its order
        while len(texts) < count:
            text = self.sample(rng)
            if self.held_out(text.spoken):
                texts[text] = None
        return list(texts)


def without_punctuation(text: str) -> str:
    """What <|nopnc|> asks for: "turn on the kitchen light", "wake me up at 7:30".

    Apostrophes, hyphens, and what stands between two digits stay; a German ordinal loses its point ("3 mai").
    """
    return " ".join(_PUNCTUATION.sub(" ", text).lower().split())


def _text(line: str) -> Text:
    """A line without slots: both ways of writing it, each with a capital at its beginning."""
    return Text(_capital(_BOTH.sub(r"\1", line)), _capital(_BOTH.sub(r"\2", line)))


def _capital(text: str) -> str:
    start = 1 if text[0] in "¿¡" else 0
    return text[:start] + text[start].upper() + text[start + 1 :]
