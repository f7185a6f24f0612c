"""What every layout of a data set is given, and what it gives: utterances, one after the other, without their sound."""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from ...extras.languages import language_code
from ...tokens import TRAINED_LANGUAGES
from ..errors import EvaluateError
from .places import Place, file_state, one_line


@dataclass(frozen=True)
class Utterance:
    """One recording, or a part of one, and what is said in it.

    id:           unique in its data set
    reference:    what is said, as the data set has it
    language:     its code, as the model knows it: "en"
    audio:        gives the file, or its bytes; read when it is called, and not kept. Raises EvaluateError if the data
                  set has none, OSError
    speaker:      the data set's name for who speaks; None: it does not say
    recording:    the call, meeting or chapter that this is a part of; None: it does not say
    start_s, end_s: the part of the audio, in seconds; None: from its beginning, to its end
    channel:      the one that is meant, from 0; None: the mean of all
    sound:        changes when the recording does: results of another one are none of this
    word_times:   words, and when they start, in seconds from the utterance's beginning; None: nobody has noted any
    """

    id: str
    reference: str
    language: str
    audio: Callable[[], bytes | Path]
    speaker: str | None = None
    recording: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    word_times: tuple[tuple[str, float], ...] | None = None
    channel: int | None = None
    sound: str = ""

    @property
    def path(self) -> Path | None:
        """Where the audio lies, if it is a file of its own on this machine."""
        audio = self.audio
        return audio() if isinstance(audio, partial) and audio.func is Path else None

    def state(self, place: Place) -> str:
        """What `sound` is made of, of an utterance in that place: a digest that changes when the file is another one or
        is written anew, and with the part. What is in the files is not read."""
        said = [*map(file_state, _files(self.audio))] or [place.state]
        said += [str(part) for part in (self.start_s, self.end_s, self.channel)]
        return hashlib.blake2b("\n".join(said).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _files(audio: object) -> list[Path]:
    """The files of their own on this machine that an utterance's audio is, or is joined of."""
    if not isinstance(audio, partial):
        return []
    if audio.func is Path:
        return [audio()]
    return [file for lists in audio.args if isinstance(lists, list) for sound in lists for file in _files(sound)]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    spec:     as the user wrote it, for messages
    place:    the files
    parts:    names of folders, configurations and splits that the files' paths must have: ("de", "test")
    defaults: the same, where no part is named; those that no file has are passed over
    columns:  "text", "audio", "speaker", "language" -> the column that the user says has it
    language: of data that does not say its own; None: it must, or is taken for English
    left_out: takes note of rows that cannot be used, by the reason
    """

    spec: str
    place: Place
    parts: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    language: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def language_of(self, path: str, value: object = None) -> str:
        """The language of an utterance.  path: of the file that it comes from, whose folders may name it;
        value: what the data set says of the utterance itself"""
        named = language_of(posixpath.join(self.place.name, path))
        return known_language(value) or self.language or named or _unknown_language(value) or "en"


_LANGUAGE = re.compile(r"(?:(?:fleurs|mcv|mls)_)?([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{2,4}){0,2}")
NO_NAMES = {"", "none", "nan", "null", "unknown", "n/a"}  # for a language or speaker that is not told
_SPLITS = ("test", "eval", "dev", "validation", "valid", "train")  # the first that is there, where none is named
_ALSO = {"validation": ("dev", "valid"), "dev": ("validation", "valid")}
_SUFFIX = re.compile(r"(\.tar)?\.\w+$")
_SHARD = re.compile(r"[-_.]?\d{4,}(-of-\d+)?(-[0-9a-f]+)?$")


def labels(path: str) -> list[str]:
    """The names that a file's path gives it: its folders, and the split that its own name says.
    "de/partial-test/0000.parquet" -> de, test; "data/test-00000-of-00004.parquet" -> data, test"""
    *folders, name = path.split("/")
    split = _SHARD.sub("", _SUFFIX.sub("", name))
    return [label.removeprefix("partial-") for label in (*folders, split) if label]


def of_parts(paths: list[str], request: Request, what: str) -> list[str]:
    """The files, or folders, of the parts that are named, all of them; what: see `choose`. Raises EvaluateError if
    there is none."""
    for part in request.parts:
        wanted = (part, *_ALSO.get(part, ()))
        found = [path for path in paths if {*wanted} & {*labels(path)}]
        found = found or [path for path in paths if part == language_of(path)]
        if not found:
            raise EvaluateError(f"{request.spec}: no {what} of {part!r} there; there are {_names(paths)}")
        paths = found
    return paths


def choose(paths: list[str], request: Request, what: str) -> list[str]:
    """The files of the one part of a data set that is asked for.  what: they are, for messages. Raises EvaluateError if
    there is none, or if there are several to choose from."""
    chosen = of_parts(paths, request, what)
    if not request.parts:
        for part in request.defaults:
            chosen = [path for path in chosen if part in labels(path)] or chosen
    if request.language and len({*map(_part_of, chosen)}) > 1:
        chosen = [path for path in chosen if language_of(path) == request.language] or chosen
    for split in _SPLITS:
        if len({*map(_part_of, chosen)}) > 1:
            chosen = [path for path in chosen if split in labels(path)] or chosen
    if len({*map(_part_of, chosen)}) > 1:
        raise EvaluateError(f"{request.spec} has several parts: {_names(chosen)}; name one, as {request.spec}:NAME")
    return chosen


@lru_cache(16)  # it is asked for every row of a file
def language_of(path: str) -> str | None:
    """The language that a path's folders name: "data/cmn_hans_cn/test.tsv" -> "zh", "fleurs_de/..." -> "de"."""
    for label in reversed(posixpath.dirname(path).split("/")):
        if (match := _LANGUAGE.fullmatch(label)) and (code := known_language(match[1])):
            return code
    return None


def known_language(value: object) -> str | None:
    """A language as a data set names it ("German", "de-AT") -> its code, if the model knows it."""
    code = language_code(value) if isinstance(value, str) else None
    return code if code in TRAINED_LANGUAGES else None


def _unknown_language(value: object) -> str | None:
    """What a data set says of a language that the model does not know: it must not be taken for English."""
    if not isinstance(value, str) or value.strip().lower() in NO_NAMES or not any(map(str.isalpha, value)):
        return None
    return language_code(value)


def _part_of(path: str) -> tuple[str, ...]:
    return tuple(labels(path))


def _names(paths: list[str]) -> str:
    """What can be named to choose among these files."""
    common = set.intersection(*(set(labels(path)) for path in paths))
    names = sorted({label for path in paths for label in labels(path)} - common) or sorted(common)
    return ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")


@contextmanager
def reading(path: str, request: Request) -> Iterator[None]:
    """While a file of a data set is read: an EvaluateError names it, whatever is wrong with it."""
    try:
        yield
    except EvaluateError:
        raise
    except Exception as error:  # of csv, json and pyarrow, of what is in the file, and of the hub's connections
        raise EvaluateError(f"{request.spec}: {path} cannot be read: {one_line(error)}") from error


def refuse_columns(request: Request, what: str) -> None:
    """Of a layout that has none.  what: it is, for the message. Raises EvaluateError if columns are named."""
    if request.columns:
        named = ", ".join(f"{kind}={column}" for kind, column in request.columns.items())
        raise EvaluateError(f"{request.spec}: {named} names a column of a table; this is {what}")


def stem(path: str) -> str:
    """A file's name without its folders and suffix."""
    return posixpath.splitext(posixpath.basename(path))[0]
