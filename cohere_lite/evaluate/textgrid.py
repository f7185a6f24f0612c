"""Praat's TextGrids, as it saves them as text, long or short: the words in them.

Praat reads the numbers, the texts in quotation marks and the flags in angle brackets that stand free, and passes over
all else: the long form is the short one with words between. "!" begins a comment; two
quotation marks in a text are one.
"""

import re
from pathlib import Path
from typing import NamedTuple

from .errors import EvaluateError


class Word(NamedTuple):
    """A word, and when it was said, in seconds."""

    text: str
    start_s: float
    end_s: float


def read_textgrid(path: Path) -> list[Word]:
    """The words in the tier of intervals that is named "words" or "word", or that is the only one. Raises EvaluateError
    for a file that is no TextGrid, or has no such tier; OSError."""
    values = _Values(path)
    values.string("the file's type")
    if (kind := values.string("the class of what is in it")) != "TextGrid":
        raise values.error(f"it holds {kind!r}, not 'TextGrid'")
    values.span()
    tiers = [_read_tier(values) for _ in range(values.count("tiers"))]
    intervals = [(name, words) for kind, name, words in tiers if kind == "IntervalTier"]
    found = [words for name, words in intervals if name.lower() in ("words", "word")]
    found = found or [words for _, words in intervals]
    if len(found) != 1:
        names = ", ".join(repr(name) for name, _ in intervals) or "none"
        raise EvaluateError(f"{path} needs one tier of intervals with the name 'words'; there are: {names}")
    return found[0]


def _read_tier(values: "_Values") -> tuple[str, str, list[Word]]:
    """Its class, its name, and what is in it but for empty intervals."""
    kind, name = values.string("a tier's class"), values.string("a tier's name")
    values.span()
    words = []
    for _ in range(values.count("intervals")):
        start_s, end_s = values.span() if kind == "IntervalTier" else (values.number("a time"),) * 2
        if text := values.string("a text").strip():
            words.append(Word(text, start_s, end_s))
    return kind, name, words


_TOKEN = re.compile(r'!.*|"(?:[^"]|"")*"|\S+')
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def number(text: str) -> float | None:
    """None: it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


class _Values:
    """The numbers and texts of a file, one after the other. The methods raise EvaluateError."""

    def __init__(self, path: Path) -> None:
        self._path, self._text = path, _decoded(path)
        tokens = _TOKEN.finditer(self._text)
        self._rest = (match for match in tokens if match[0][0] == '"' or number(match[0]) is not None)
        self._at = 0  # where the last one is

    def string(self, what: str) -> str:
        """what: it should be, as in the others."""
        token = self._next(what)
        if len(token) < 2 or token[0] + token[-1] != '""':
            raise self.error(f"{token} in place of {what}")
        return token[1:-1].replace('""', '"')

    def number(self, what: str) -> float:
        if (value := number(token := self._next(what))) is None:
            raise self.error(f"{token} in place of {what}")
        return value

    def count(self, what: str) -> int:
        if not (value := self.number(f"the number of {what}")).is_integer():  # infinity is none
            raise self.error(f"{value:g} in place of the number of {what}")
        return int(value)

    def span(self) -> tuple[float, float]:
        """Start and end, in seconds."""
        start_s, end_s = self.number("a start"), self.number("an end")
        if end_s < start_s:
            raise self.error(f"an end, {end_s:g} s, before its start, {start_s:g} s")
        return start_s, end_s

    def error(self, what: str) -> EvaluateError:
        line = self._text.count("\n", 0, self._at) + 1
        return EvaluateError(f"{self._path}, line {line}: {what}")

    def _next(self, what: str) -> str:
        if (match := next(self._rest, None)) is None:
            self._at = len(self._text.rstrip())
            raise self.error(f"the TextGrid ends in place of {what}")
        self._at = match.start()
        return match[0]


def _decoded(path: Path) -> str:
    """Praat writes UTF-16, with a mark of its order, where a text is not plain ASCII."""
    data = path.read_bytes()
    if data.startswith(b"ooBinaryFile"):
        raise EvaluateError(f"{path} is a binary TextGrid: save it as a text file")
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise EvaluateError(f"{path} is neither UTF-8 nor UTF-16: {error.reason} at byte {error.start}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
