"""Parquet files with the recordings in them, as the hub has them: a column of {"bytes", "path"}, or of bytes.

pyarrow reads the small columns of all rows, and a recording's bytes when they are asked for. The package datasets would
decode the recordings, for which it needs torch, and would read all that come before one."""

import json
import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from ..errors import EvaluateError, NoRecordingError
from .columns import described, find_columns
from .layout import Request, Utterance, choose, reading, stem
from .places import Folder, Place, needed, one_line
from .tables import Row, finder

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, DataType, Schema
    from pyarrow.parquet import ParquetFile

# Of recordings. The file decides what memory they take: a page, which has 1,024 rows or the row group's; the hub's row
# groups have 100.
_ROWS_AT_ONCE = 16


def read_parquet(request: Request) -> Iterator[Utterance] | None:
    """The utterances of parquet files in a folder or repository; None if there are none. Raises EvaluateError for a
    table without texts or audio, for one that cannot be read, and for a part of a set of files."""
    paths = [path for path in request.place.files if path.endswith(".parquet")]
    if not paths:
        return None
    chosen = choose(paths, request, "parquet files")
    _check_complete(chosen, request)
    return _read_files(chosen, request)


def _check_complete(paths: list[str], request: Request) -> None:
    """A cache may hold some of a set's files only, and nobody would notice."""
    total = max((int(match[1]) for path in paths if (match := re.search(r"-of-(\d+)", path))), default=1)
    is_alone = isinstance(request.place, Folder) and request.place.only
    if len(paths) < total and not is_alone:
        raise EvaluateError(f"{request.spec} is not complete: {len(paths)} of its {total} parquet files are there")


def _read_files(paths: list[str], request: Request) -> Iterator[Utterance]:
    for path in paths:
        # The small columns of a row group are asked for together, and nothing of the large one between them.
        with reading(path, request), _open(request.place, path, read_ahead=1 << 16, pre_buffer=True) as table:
            yield from _read_file(table, path, request)


def _read_file(table: "ParquetFile", path: str, request: Request) -> Iterator[Utterance]:
    schema = table.schema_arrow
    numbers = [field.name for field in schema if str(field.type).startswith(("int", "uint", "float", "double"))]
    columns = find_columns(schema.names, request, _audio_column(schema), numbers=numbers)
    kind = schema.field(columns.audio).type
    inner = _fields(kind)
    if inner and "bytes" not in inner:
        raise EvaluateError(f"{request.spec}: its column {columns.audio} has {', '.join(inner)}, and no bytes")
    holds_paths = str(kind) in ("string", "large_string")
    if not inner and not holds_paths and "binary" not in str(kind):
        raise EvaluateError(f"{request.spec}: its column {columns.audio} holds {kind}, which is no recording")
    small = [columns.audio] * holds_paths + [f"{columns.audio}.path"] * ("path" in inner)
    recordings = _Recordings(request.place, path, f"{columns.audio}.bytes" if inner else columns.audio)
    find = finder(path, request)
    for position, row in enumerate(_rows(table, [*columns.names(), *small])):
        held = row.get(columns.audio)
        beside = held.get("path") if isinstance(held, dict) else held if holds_paths else None
        sound = find(beside or "") if holds_paths else partial(recordings.read, position, beside)
        if sound is None:
            request.left_out["a recording that is not there"] += 1
            continue
        if row.get("path"):  # in folders of whoever made the table
            row["path"] = posixpath.basename(row["path"])
        # Its times are those in the whole recording, of which these bytes are a part.
        yield Utterance(audio=sound, **described(row, columns, request, path, f"{stem(path)}-{position}"))


def _rows(table: "ParquetFile", columns: list[str]) -> Iterator[Row]:
    """The rows, of these columns. Numbers that stand for names (ClassLabel) are replaced by them: `datasets` writes
    them beside the schema."""
    names: dict[str, list[str]] = {}
    with suppress(KeyError, ValueError, AttributeError, TypeError):  # somebody else wrote it
        features = json.loads((table.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
        names = {name: feature["names"] for name, feature in features.items() if "names" in feature}
    for group in range(table.num_row_groups):
        for row in table.read_row_group(group, columns=columns).to_pylist():
            for name in names.keys() & row.keys():
                if isinstance(row[name], int) and 0 <= row[name] < len(names[name]):
                    row[name] = names[name][row[name]]
            yield row


def _audio_column(schema: "Schema") -> str | None:
    """The column whose type says that it holds recordings; its name decides between several."""
    found = [field.name for field in schema if "bytes" in _fields(field.type) or "binary" in str(field.type)]
    return "audio" if "audio" in found else next(iter(found), None)


def _fields(kind: "DataType") -> list[str]:
    """The names in a struct; of another type, none."""
    return [kind.field(i).name for i in range(kind.num_fields)] if str(kind).startswith("struct") else []


def _open(place: Place, path: str, read_ahead: int, pre_buffer: bool) -> "ParquetFile":
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise EvaluateError(f"{path}: {needed(error)}") from error
    source = place.root / path if isinstance(place, Folder) else place.open(path, read_ahead)
    return ParquetFile(source, buffer_size=read_ahead, pre_buffer=pre_buffer)


class _Recordings:
    """The recordings of one parquet file, read from it one after the other; for an earlier one, from the beginning of
    its row group. For several threads."""

    def __init__(self, place: Place, path: str, column: str) -> None:
        self._place, self._path, self._column = place, path, column
        self._lock = Lock()
        self._batches: Iterator[list[bytes | None]] = iter(())
        self._batch: list[bytes | None] = []
        self._start = self._group_end = 0  # rows: of the batch, and where its row group ends

    def read(self, row: int, path: str | None) -> bytes | Path:
        """path: of a recording that lies beside the table, and not in it. Raises EvaluateError."""
        with self._lock:
            try:
                content = self._at(row)
            except Exception as error:  # of pyarrow, and of the hub's connections
                self._group_end = 0  # for the next one to begin anew
                raise EvaluateError(f"{self._path}, row {row}: {one_line(error)}") from error
        if content is not None:
            return content
        if path and self._place.exists(path):
            return self._place.audio(path)()
        named = f", nor is {path} beside it" if path else ""
        raise NoRecordingError(f"{self._path}, row {row}: the table holds no recording{named}")

    def _at(self, row: int) -> bytes | None:
        if not self._start <= row < self._group_end:
            self._begin(row)
        while row >= self._start + len(self._batch):
            self._start += len(self._batch)
            self._batch = next(self._batches)
        return self._batch[row - self._start]

    def _begin(self, row: int) -> None:
        """At the first row of the row group that has this one."""
        table = _open(self._place, self._path, read_ahead=1 << 20, pre_buffer=False)
        end = group = 0
        while (end := (start := end) + table.metadata.row_group(group).num_rows) <= row:
            group += 1
        batches = table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[self._column], use_threads=False)
        self._batches = (_contents(batch.column(0)) for batch in batches)
        self._batch, self._start, self._group_end = [], start, end


def _contents(column: "ChunkedArray") -> list[bytes | None]:
    return [value["bytes"] if isinstance(value, dict) else value for value in column.to_pylist()]
