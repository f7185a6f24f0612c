"""A data set's name or place -> the utterances to be evaluated on: a seeded draw of them, without their sound."""

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import EvaluateError
from .layouts import read_utterances
from .layouts.layout import Request, Utterance, known_language
from .layouts.places import Folder, Place, find_repository
from .texts import IGNORED
from .times import WordTimes

__all__ = ["Data", "EvaluateError", "Utterance", "open_data"]


@dataclass(frozen=True)
class Data:
    """A draw from a data set.

    name:       for tables
    spec:       as it was asked for
    utterances: the draw, in the data set's order
    total:      how many utterances could have been drawn
    speakers:   how many people speak in the draw; None: the data set does not say
    left_out:   rows of the data set that cannot be scored, by the reason: "an empty reference"
    """

    name: str
    spec: str
    utterances: list[Utterance]
    total: int
    speakers: int | None
    left_out: dict[str, int] = field(default_factory=dict)


def open_data(spec: str, *, count: int | None = None, seed: int = 0, language: str | None = None) -> Data:
    """Draws `count` utterances of a data set, or takes all (None). The same seed draws the same ones from every copy of
    the data set that has its ids, and a larger count the same ones and others.

    spec:     a folder, a list (.csv, .tsv, .jsonl), a .parquet file, or a data set's name on the Hugging Face hub.
              Then, each after a colon, its configuration or language, its split ("test", if it has one, by default; of
              a folder of texts and recordings, all), and columns that are not known: "owner/name:de:validation",
              "calls.csv:text=said:audio=clip"
    language: of data that does not say its own; by default "en". Of data in several languages, this one among them,
              the one to take

    Raises EvaluateError for data that cannot be found, reached or read, or that has no texts or no recordings.
    """
    request = _parse(spec, language)
    times = WordTimes(request)
    utterances, total = _draw(_usable(request, times), count, seed, request)
    if not utterances:
        reasons = "; ".join(f"{reason}: {n}" for reason, n in (+request.left_out).items())
        raise EvaluateError(f"{spec} holds no recordings with texts" + f" ({reasons})" * bool(reasons))
    speakers = {utterance.speaker for utterance in utterances}
    name = ":".join([request.place.name, *request.parts])
    n_speakers = None if None in speakers else len(speakers)
    drawn = [replace(u, word_times=times.of(u), sound=u.state(request.place)) for u in utterances]
    return Data(name, spec, drawn, total, n_speakers, dict(+request.left_out))


# The configurations that the model card and the leaderboard take of the card's five data sets. The split comes first:
# People's Speech has its test set in a configuration of its own, and training data alone in "clean".
DEFAULTS = {
    "openslr/librispeech_asr": ("test", "clean"),
    "facebook/voxpopuli": ("test", "en"),
    "edinburghcstr/ami": ("test", "ihm"),
    "mlcommons/peoples_speech": ("test", "clean"),
    "distil-whisper/earnings22": ("test", "chunked"),
}
_COLUMNS = ("text", "audio", "speaker", "recording", "language")
_PACKED = (".tar", ".tar.gz", ".tgz", ".zip", ".7z")


def _parse(spec: str, language: str | None) -> Request:
    place, rest = _find_place(spec)
    parts = tuple(part for part in rest if part and "=" not in part)
    columns = dict(part.split("=", 1) for part in rest if "=" in part)
    if unknown := [name for name in columns if name not in _COLUMNS]:
        raise EvaluateError(f"{spec}: {unknown[0]}= is not known; known are {', '.join(_COLUMNS)}")
    if code := known_language(columns.get("language")):
        del columns["language"]  # it is a language, not a column
    defaults = DEFAULTS.get(place.name.lower(), ())
    return Request(spec, place, parts, defaults, columns, code or known_language(language) or language)


def _find_place(spec: str) -> tuple[Place, list[str]]:
    """The files, and what follows them in the spec. A path may have colons of its own (C:)."""
    pieces = spec.split(":")
    for end in range(len(pieces), 0, -1):
        named = ":".join(pieces[:end])
        path = Path(named)
        if named and path.is_dir():
            return Folder(path), pieces[end:]
        if path.is_file():
            if path.name.lower().endswith(_PACKED):
                raise EvaluateError(f"{path} is packed: unpack it, and name the folder")
            return Folder(path.parent, path.name), pieces[end:]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", pieces[0]):
        raise EvaluateError(f"{spec} is neither a file nor a folder here, nor a name on the hub (OWNER/NAME)")
    return find_repository(pieces[0]), pieces[1:]


def _usable(request: Request, times: WordTimes) -> Iterator[Utterance]:
    """The utterances that have something to be scored against."""
    for utterance in times.seen(read_utterances(request)):
        if not utterance.reference.strip():
            request.left_out["an empty reference"] += 1
        elif utterance.reference.strip() == IGNORED:
            request.left_out[f"a reference that says: {IGNORED}"] += 1
        else:
            yield utterance


def _draw(
    utterances: Iterator[Utterance], count: int | None, seed: int, request: Request
) -> tuple[list[Utterance], int]:
    """`count` of them, in their order, and how many there were; where some are in the language that is asked for, of
    these. No more of them are held."""
    totals: Counter[bool] = Counter()  # of those in another language, and of the others

    def places() -> Iterator[tuple[bool, bytes, int, Utterance]]:
        for number, utterance in enumerate(utterances):
            is_other = utterance.language != (request.language or utterance.language)
            totals[is_other] += 1
            # By a hash of the id, for the draw not to depend on the order of the rows.
            place = hashlib.blake2b(f"{seed} {utterance.id}".encode(errors="surrogatepass"), digest_size=8).digest()
            yield is_other, place, number, utterance

    drawn = [*places()] if count is None else heapq.nsmallest(count, places())
    is_other = not totals[False]  # all of them are
    if not is_other:
        request.left_out[f"in another language than {request.language}"] += totals[True]
    drawn = sorted((each for each in drawn if each[0] == is_other), key=lambda each: each[2])
    return _with_unique_ids([utterance for *_, utterance in drawn]), totals[is_other]


def _with_unique_ids(utterances: list[Utterance]) -> list[Utterance]:
    taken = {utterance.id for utterance in utterances}
    seen: Counter[str] = Counter()
    unique = []
    for utterance in utterances:
        name = utterance.id
        seen[name] += 1
        while seen[name] > 1 and f"{name}#{seen[name]}" in taken:
            seen[name] += 1
        unique.append(utterance if seen[name] == 1 else replace(utterance, id=f"{name}#{seen[name]}"))
    return unique
