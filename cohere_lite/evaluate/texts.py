"""Two ways to compare what was said with what was recognised: the model card's, and the Open ASR Leaderboard's.

    card          in lower case, nothing else: every comma counts
    leaderboard   without punctuation, fillers, and differences of spelling that are none of hearing; "white paper" is
                  "whitepaper". The leaderboard has rules for English (leaderboard.py) and for de, es, fr, it, pt; the
                  other languages get the latter, with the marks that their letters are written with

Word counts are sums over a data set. The mean of utterances' rates is never taken: one without words would have a
count for its rate.
"""

import re
import unicodedata
from difflib import SequenceMatcher
from typing import NamedTuple

from .leaderboard import LEADERBOARD_REVISION, leaderboard_english

WAYS = {
    "card": "lower case",
    "leaderboard": f"normalised as the Open ASR Leaderboard does (revision {LEADERBOARD_REVISION[:8]})",
}
# Their texts have no spaces between words, or (Korean) spaces that writers set as they like: characters are counted.
BY_CHARACTERS = ("ja", "ko", "zh")
_LEADERBOARD_LANGUAGES = ("de", "es", "fr", "it", "pt")  # beside English
IGNORED = "ignore time segment in scoring"  # TED-LIUM's word for what is not transcribed
# Vowel signs that Arabic is usually written without (tanwin to sukun, small alef), and the stroke that stretches it.
_HARAKAT = re.compile("[\u064b-\u0652\u0670\u0640]")


class Scored(NamedTuple):
    """A reference and a hypothesis, compared.

    reference, hypothesis: the texts that were compared, a space between their words
    pairs: their words side by side: the same, or different (a substitution), or "" (an insertion, a deletion); a
        compound against its parts, which is no error, has them all: ("white paper", "whitepaper")
    words: how many the reference has; 0 if it is punctuation alone, in other languages than English
    """

    reference: str
    hypothesis: str
    pairs: list[tuple[str, str]]
    words: int
    substitutions: int
    deletions: int
    insertions: int


def scored(reference: str, hypothesis: str, language: str, way: str) -> Scored | None:
    """Compares two texts in a language.  way: "card" or "leaderboard". None for a reference that does not count: an
    empty one, or one that says so itself. Raises ImportError without kaldialign, and see leaderboard_text."""
    from kaldialign import align

    if way == "card":
        said, heard = card_text(reference), card_text(hypothesis)
        dropped = not said
    else:
        said = leaderboard_text(reference, language)
        # The model writes brackets, and what is between them was spoken: the rules would take it for a remark.
        heard = leaderboard_text(hypothesis.replace("(", " ").replace(")", " "), language)
        # English references are looked at once they are normalised, others as they are.
        dropped = (said if language == "en" else reference.strip()) in ("", IGNORED)
        if language != "en":
            said, heard = _join_alike(said, heard)
    if dropped:
        return None
    pairs = align(said.split(), heard.split(), "", merge_compounds=way == "leaderboard")
    wrong = [pair for pair in pairs if pair[0].replace(" ", "") != pair[1].replace(" ", "")]
    deletions, insertions = sum(not b for _, b in wrong), sum(not a for a, _ in wrong)
    return Scored(said, heard, pairs, len(said.split()), len(wrong) - deletions - insertions, deletions, insertions)


def card_text(text: str) -> str:
    """In lower case, a space between words."""
    return " ".join(text.lower().split())


def leaderboard_text(text: str, language: str) -> str:
    """The words that the leaderboard counts, a space between them. Raises ImportError without whisper-normalizer and
    num2words."""
    from whisper_normalizer.basic import remove_symbols

    if language == "en":
        return leaderboard_english(text)
    for remark in r"[<\[][^>\]]*[>\]]", r"\([^)]+?\)":
        text = re.sub(remark, "", text.lower())
    if language == "ar":
        text = _HARAKAT.sub("", text)
    text = remove_symbols(text, preserve_marks=language not in _LEADERBOARD_LANGUAGES).lower()
    return " ".join(_spell_numbers(re.sub(r"\s+", " ", text), language).split())


def characters(text: str, language: str) -> str:
    """A compared text as a character error rate sees it: without spaces in zh, ja and ko, without harakat in Arabic,
    each character in one form ("ガ" in one character, in two, and in half the width are the same)."""
    text = unicodedata.normalize("NFKC" if language in (*BY_CHARACTERS, "ar") else "NFC", text)
    if language == "ar":
        text = _HARAKAT.sub("", text)
    return ("" if language in BY_CHARACTERS else " ").join(text.split())


def _spell_numbers(text: str, language: str) -> str:
    """Digits as words, in the languages that num2words knows. "10 000" is one number (and "1 000 000" two: the
    leaderboard looks for thousands once)."""
    from num2words import num2words

    def spell(digits: re.Match[str]) -> str:
        try:
            return num2words(int(digits[0]), lang=language)
        except Exception:  # of many kinds, for languages and sizes that it does not know
            return digits[0]

    return re.sub(r"\d+", spell, re.sub(r"(\d)\s+(\d{3})\b", r"\1\2", text))


def _join_alike(reference: str, hypothesis: str) -> tuple[str, str]:
    """Joins words where the two differ in spaces alone: "l aqua" and "la qua" are both "laqua"."""
    said, heard = reference.split(), hypothesis.split()
    joined: tuple[list[str], list[str]] = [], []
    for _, *bounds in SequenceMatcher(None, said, heard).get_opcodes():
        parts = said[bounds[0] : bounds[1]], heard[bounds[2] : bounds[3]]
        differ_in_spaces = parts[0] != parts[1] and "".join(parts[0]) == "".join(parts[1])
        for words, part in zip(joined, parts, strict=True):
            words += ["".join(part)] if differ_in_spaces else part
    return " ".join(joined[0]), " ".join(joined[1])
