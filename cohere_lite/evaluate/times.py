"""When each word was said, as people have noted it beside a data set; and how far off a model's times are from that.

CTM        NAME CHANNEL START DURATION WORD [CONFIDENCE], in seconds; NAME is an utterance's id, with times from its
           beginning, or a recording's, with times from the recording's. One file, "ctm" or *.ctm, or many
TextGrid   Praat's, long or short, beside the recording: speech.wav, speech.TextGrid
"""

import io
import math
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import EvaluateError
from .layouts.layout import Request, Utterance
from .layouts.places import Folder, Place
from .textgrid import Word, number, read_textgrid

Starts = Sequence[tuple[str, float]]  # words and when they start, in seconds, in order


class WordTimes:
    """The word times of a data set."""

    def __init__(self, request: Request) -> None:
        """Reads its CTM files. Raises EvaluateError for a line that cannot be read."""
        self._request = request
        self._words: defaultdict[str, dict[str, list[Word]]] = defaultdict(dict)  # by name, then by file
        self._ids: set[str] = set()  # names that are utterances' ids
        self._paths: defaultdict[str, set[Path | None]] = defaultdict(set)  # of the recordings that have a name
        for path in _ctm_files(request.place):
            for name, words in _read_ctm(path, request).items():
                self._words[name][path] = words

    def seen(self, utterances: Iterator[Utterance]) -> Iterator[Utterance]:
        """The same utterances, all of a data set: what none of them is named is counted as left out."""
        for utterance in utterances:
            for name, is_file in _names(utterance) if self._words else ():
                if name in self._words and is_file:
                    self._paths[name].add(utterance.path)
                elif name in self._words:
                    self._ids.add(name)
            yield utterance
        self._request.left_out["word times of what is not there"] += len({*self._words} - self._ids - {*self._paths})

    def of(self, utterance: Utterance) -> tuple[tuple[str, float], ...] | None:
        """Words and their starts in seconds from the utterance's beginning; None if nobody has noted any. Raises
        EvaluateError for a TextGrid that cannot be read, and where two files have the words, or two recordings the
        name."""
        found = []
        for name, is_file in _names(utterance):
            if is_file and name in self._ids:
                continue  # a/b.wav may be called b, unless there is b.wav
            if is_file and len(paths := self._paths.get(name, ())) > 1:
                one, other, *_ = sorted(map(str, paths))
                raise EvaluateError(f"{self._request.spec}: word times of {name} may be of {one} or of {other}")
            found += [(path, words, is_file) for path, words in self._words.get(name, {}).items()]
        if utterance.path and (grid := utterance.path.with_suffix(".TextGrid")).is_file():
            found.append((str(grid), read_textgrid(grid), True))
        if len(files := list(dict.fromkeys(path for path, _, _ in found))) > 1:
            raise EvaluateError(
                f"{self._request.spec}: {files[0]} and {files[1]} both have word times of {utterance.id}: leave one"
            )
        for _, words, is_file in found:
            return _part(words, utterance.start_s or 0.0, utterance.end_s or math.inf) if is_file else _part(words)
        return None


def _names(utterance: Utterance) -> list[tuple[str, bool]]:
    """What a CTM file may call it, and whether the times are then those of the file that it is a part of."""
    is_part = utterance.start_s is not None
    files = [utterance.path.stem] if utterance.path else []
    files += [utterance.recording] if is_part and utterance.recording else []
    own = [] if is_part and utterance.id in files else [(utterance.id, False)]
    return own + [(name, True) for name in files]


def _part(words: list[Word], start_s: float = 0.0, end_s: float = math.inf) -> tuple[tuple[str, float], ...] | None:
    """The words whose middle is in it: times of a part are rounded, and its words' are, too."""
    inside = [word for word in words if start_s <= (word.start_s + word.end_s) / 2 < end_s]
    return tuple((word.text, max(0.0, word.start_s - start_s)) for word in inside) or None


def _ctm_files(place: Place) -> list[str]:
    """Of a list, the one of its name; where there is none, as of a folder, all that are there."""
    if isinstance(place, Folder) and place.only:
        own = f"{posixpath.splitext(place.only)[0]}.ctm"
        if place.exists(own):
            return [own]
        place = Folder(place.root)
    return [path for path in place.files if path.endswith(".ctm") or posixpath.basename(path) == "ctm"]


def _read_ctm(path: str, request: Request) -> dict[str, list[Word]]:
    """The words of each name, in the order of their starts, of whichever channel: a model hears the mean of all."""
    found = defaultdict(list)
    try:
        with io.TextIOWrapper(request.place.open(path), encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not (fields := line.split()) or line.startswith(";;"):
                    continue
                if (word := _ctm_word(fields)) is None:
                    raise EvaluateError(
                        f"{request.spec}: {path}, line {number}: {line.strip()!r}; "
                        "a line of a CTM file is: NAME CHANNEL START DURATION WORD [CONFIDENCE]"
                    )
                found[fields[0]].append(word)
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluateError(f"{request.spec}: {path} cannot be read: {error}") from error
    return {name: sorted(words, key=lambda word: word.start_s) for name, words in found.items()}


def _ctm_word(fields: Sequence[str]) -> Word | None:
    """None: this is no line of a CTM file."""
    if len(fields) not in (5, 6):
        return None
    start_s, duration_s, confidence = map(number, (fields[2], fields[3], fields[5] if len(fields) == 6 else "NA"))
    if start_s is None or duration_s is None or (confidence is None and fields[5:] not in ([], ["NA"])):
        return None
    return Word(fields[4], start_s, start_s + duration_s) if min(start_s, duration_s) >= 0 else None


def start_errors_ms(said: Starts, heard: Starts) -> list[float]:
    """How much too late a model has the starts of words, in ms: of those that it recognised, whatever their capitals
    and marks. Raises ImportError without kaldialign."""
    from kaldialign import align

    said, heard = _letters(said), _letters(heard)
    errors, i, j = [], 0, 0
    for one, other in align([word for word, _ in said], [word for word, _ in heard], ""):
        if one == other:
            errors.append(1000 * (heard[j][1] - said[i][1]))
        i, j = i + bool(one), j + bool(other)
    return errors


def _letters(words: Starts) -> list[tuple[str, float]]:
    """Words as they are compared; none are Kaldi's silences, <eps>, and marks that stand alone."""
    plain = ((re.sub(r"<.*>|[\W_]", "", unicodedata.normalize("NFC", word).lower()), start) for word, start in words)
    return [(word, start) for word, start in plain if word]
