"""Lists of recordings: CSV, TSV and JSONL, with a line for each, whatever their columns are called. Common Voice's
test.tsv beside clips/ is one; FLEURS' test.tsv has no names of columns, and its recordings are in audio/test.tar.gz."""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from os.path import isfile
from pathlib import Path
from typing import Any

from ..errors import EvaluateError
from ..textgrid import number as as_number
from .archive import Archive, read_from
from .columns import AUDIO, Columns, described, find_columns
from .layout import Request, Utterance, choose, labels, reading
from .places import Folder, Place

_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json")
_NO_TABLES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_FLEURS = ["sentence_number", "file_name", "raw_transcription", "transcription", "characters", "num_samples", "gender"]
_BESIDE = ("", "clips", "audio", "wavs", "wav")  # folders beside a list, where its recordings may be
_SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")  # no column is called so
_HEAD = 20  # rows that tell which column is which

Row = dict[str, Any]
Sound = Callable[[], bytes | Path]


def read_tables(request: Request) -> Iterator[Utterance] | None:
    """The utterances of a list in a folder or repository; None if there is none. Raises EvaluateError for a list
    without texts or recordings, and for one that cannot be read."""
    paths = find_lists(request.place)
    return _read_lists(choose(paths, request, "lists"), request) if paths else None


def find_lists(place: Place) -> list[str]:
    """The files that may list recordings; a JSON file only if it is the one file of these kinds."""
    paths = [path for path in place.files if path.endswith(_SUFFIXES) and posixpath.basename(path) not in _NO_TABLES]
    return [path for path in paths if not path.endswith(".json")] or (paths if len(paths) == 1 else [])


def _read_lists(paths: list[str], request: Request) -> Iterator[Utterance]:
    for path in paths:
        with reading(path, request):
            yield from _read_list(path, request)


def _read_list(path: str, request: Request) -> Iterator[Utterance]:
    rows = read_rows(request.place, path)
    head = [*islice(rows, _HEAD)]
    if not head:
        raise EvaluateError(f"{request.spec}: {path} is empty")
    find = finder(path, request)
    columns = _find_columns(head, path, request, find)
    for row in chain(head, rows):
        sound = find(str(row.get(columns.audio) or ""))
        if sound is None:
            request.left_out["a recording that is not there"] += 1
            continue
        start_s, end_s = _times(row, columns)
        fields = described(row, columns, request, path, str(row.get(columns.audio)))
        if start_s is not None and not (columns.id and columns.id != (columns.audio,)):
            fields["id"] += f"-{start_s}"  # the file's name is that of its other parts, too
        yield Utterance(audio=sound, start_s=start_s, end_s=end_s, **fields)


def read_rows(place: Place, path: str) -> Iterator[Row]:
    """The rows of a list by the names of its columns. Raises ValueError for a line that cannot be read, csv.Error."""
    with io.TextIOWrapper(place.open(path), encoding="utf-8-sig", newline="") as file:
        start = file.readline()
        if not path.endswith((".tsv", ".csv")):
            yield from _read_json(start, file)
            return
        delimiter = "\t" if path.endswith(".tsv") else max(",;|\t", key=start.count)
        # A quotation mark in a TSV file is a letter like others, but around a whole field.
        is_tsv = delimiter == "\t"
        source = chain([start], file)
        lines: Iterator[list[str]] = (
            csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
            if is_tsv
            else csv.reader(source, delimiter=delimiter)
        )
        names = next(lines, [])
        if _is_fleurs(names):
            names, lines = _FLEURS, chain([names], lines)
        for number, fields in enumerate(lines, 2):
            if any(fields[len(names) :]):  # or the end of a text would be lost
                raise ValueError(
                    f"row {number} has {len(fields)} fields, and there are {len(names)} columns: "
                    f"a text with {delimiter!r} in it needs quotation marks around it"
                )
            if fields:
                yield dict(zip(names, map(_unquoted, fields) if is_tsv else fields, strict=False))


def _read_json(start: str, file: io.TextIOWrapper) -> Iterator[Row]:
    if start.lstrip().startswith("["):
        yield from json.loads(start + file.read())
        return
    for number, line in enumerate(chain([start], file), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield row


def _is_fleurs(fields: list[str]) -> bool:
    return len(fields) == len(_FLEURS) and fields[0].isdigit() and fields[1].endswith(".wav")


def _unquoted(field: str) -> str:
    inner = field[1:-1].replace('""', "")
    return field[1:-1].replace('""', '"') if field[:1] == field[-1:] == '"' != field and '"' not in inner else field


def _archives_of(path: str, place: Place) -> list[str]:
    """The archives with the recordings of a list. FLEURS' de_de/test.tsv has de_de/audio/test.tar.gz; in copies of
    Common Voice, transcript/de/test.tsv has audio/de/test/de_test_0.tar and so on."""
    base, name = posixpath.split(posixpath.splitext(path)[0])
    beside = [posixpath.join(base, folder, f"{name}.tar{suffix}") for folder in ("audio", "") for suffix in (".gz", "")]
    inside = posixpath.join(base, name, "").replace("transcript/", "audio/")
    of_base = [archive for archive in place.files if archive.endswith(".tar") and archive.startswith(inside)]
    return [archive for archive in beside if place.exists(archive)][:1] or of_base


def finder(path: str, request: Request) -> Callable[[str], Sound | None]:
    """What finds a recording by the name that a list gives it. None: it is not there."""
    place, base, split = request.place, posixpath.dirname(path), labels(path)[-1:]
    archives = [Archive(place, archive) for archive in _archives_of(path, place)]
    folders = [posixpath.join(base, beside, *inner) for inner in ([], split) for beside in _BESIDE] + [""]

    def find(name: str) -> Sound | None:
        if archives:
            return partial(read_from, archives, posixpath.basename(name))
        if not name:
            return None
        # Normalised: a hub's paths have no "./".
        paths = (posixpath.normpath(posixpath.join(folder, name)) for folder in folders)
        if found := next((place.audio(path) for path in paths if place.exists(path)), None):
            return found
        # From where the command runs: last, for another file of the same name may be there.
        return partial(Path, name) if isinstance(place, Folder) and isfile(name) else None

    return find


def _find_columns(head: list[Row], path: str, request: Request, find: Callable[[str], Sound | None]) -> Columns:
    """By their names, and else by what is in them: files that are there; one column of sentences."""
    names = list(dict.fromkeys(name for row in head for name in row))
    known = [name for name in names if name.lower() in AUDIO]
    candidates = known + [name for name in names if name not in known]

    def holds_files(name: str) -> bool:
        return any(isinstance(row.get(name), str) and find(row[name]) for row in head)

    if heads := [name for name in names if name.lower().endswith(_SOUNDS) and find(name)]:
        raise EvaluateError(f"{request.spec}: {path} begins with {heads[0]!r}: its first line must name the columns")
    audio = next(filter(holds_files, candidates), None)
    if audio is None and known and "audio" not in request.columns:
        example = head[0].get(known[0])
        raise EvaluateError(f"{request.spec}: the recordings of {path} are not there, {example!r} for one")
    sentences = [name for name in names if name != audio and any(" " in str(row.get(name, "")).strip() for row in head)]
    numbers = [name for name in names if all(as_number(str(row.get(name) or 0)) is not None for row in head)]
    return find_columns(names, request, audio, sentences[0] if len(sentences) == 1 else None, numbers)


def _times(row: Row, columns: Columns) -> tuple[float | None, float | None]:
    """Start and end in the file, in seconds. A duration alone is that of the file."""

    def seconds(column: str | None) -> float | None:
        value = row.get(column) if column else None
        return None if value in (None, "") else float(value)

    start_s, end_s, duration_s = seconds(columns.start), seconds(columns.end), seconds(columns.duration)
    if start_s is not None and end_s is None and duration_s is not None:
        end_s = start_s + duration_s
    return start_s, end_s
