"""A data set's name or place -> the utterances to be evaluated on: a seeded draw of them."""

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .errors import EvaluateError
from .layouts.folder import read_folder
from .layouts.layout import Utterance

__all__ = ["Data", "EvaluateError", "Utterance", "open_data"]


@dataclass(frozen=True)
class Data:
    """A draw from a data set.

    name:       for tables
    spec:       as it was asked for
    utterances: the draw, in the order of the draw
    total:      how many utterances the data set has, those left out not counted
    speakers:   how many people speak in the draw; None: the data set does not say
    left_out:   rows of the data set that cannot be scored, by the reason
    """

    name: str
    spec: str
    utterances: list[Utterance]
    total: int
    speakers: int | None
    left_out: dict[str, int] = field(default_factory=dict)


def open_data(spec: str, *, count: int | None = None, seed: int = 0, language: str | None = None) -> Data:
    """Draws `count` utterances of a data set, or takes all (None). The same seed draws the same ones from every copy of
    the data set, and a larger count draws more beside them.

    spec:     a folder
    language: of data that does not say its own; by default "en"

    Raises EvaluateError for data that cannot be found, reached or read, or that has no texts.
    """
    left_out: Counter[str] = Counter()
    rows = read_folder(Path(spec), language or "en", left_out)
    total = 0

    def counted():
        nonlocal total
        for utterance in rows:
            if utterance.reference.strip():
                total += 1
                yield utterance
            else:
                left_out["an empty reference"] += 1

    drawn = (
        [*counted()] if count is None else heapq.nsmallest(count, counted(), key=lambda u: _place_in_draw(u.id, seed))
    )
    if not drawn:
        raise EvaluateError(f"{spec} holds no recordings with texts")
    speakers = {utterance.speaker for utterance in drawn}
    return Data(Path(spec).name, spec, drawn, total, None if None in speakers else len(speakers), dict(+left_out))


def _place_in_draw(name: str, seed: int) -> bytes:
    """By a hash, for the draw not to depend on the order of the rows."""
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()
