"""Parquet files with the recordings in them, as the hub has them: a column of {"bytes", "path"}, or of bytes.

pyarrow reads the columns that are small, for all rows, and a recording's bytes when they are asked for. The package
datasets is not needed for it; it would decode the recordings, and needs torch to do so."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..errors import EvaluateError
from .columns import described, find_columns
from .layout import Request, Utterance, choose, stem
from .places import Folder, Place, needed, one_line

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_ROWS_AT_ONCE = 16  # of recordings: some MB
_READ_BYTES = 1 << 20


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
    total = max((int(match[1]) for path in paths if (match := re.search(r"-of-(\d+)", path))), default=len(paths))
    if len(paths) < total:
        raise EvaluateError(f"{request.spec} is not complete: {len(paths)} of its {total} parquet files are there")


def _read_files(paths: list[str], request: Request) -> Iterator[Utterance]:
    for path in paths:
        try:
            reader = _Recordings(request.place, path)
            with reader.open() as table:
                yield from _read_file(table, reader, request)
        except (EvaluateError, ImportError):
            raise
        except Exception as error:  # of pyarrow, and of the hub's connections
            raise EvaluateError(f"{request.spec}: {path} cannot be read: {one_line(error)}") from error


def _read_file(table: "ParquetFile", reader: "_Recordings", request: Request) -> Iterator[Utterance]:
    import pyarrow as pa

    schema = table.schema_arrow
    columns = find_columns(schema.names, request, request.columns.get("audio") or _audio_column(schema))
    kind = schema.field(columns.audio).type
    reader.column = columns.audio
    if pa.types.is_struct(kind):
        reader.column = f"{columns.audio}.bytes"
        fields = {kind.field(i).name for i in range(kind.num_fields)}
        if "bytes" not in fields:
            raise EvaluateError(f"{request.spec}: column {columns.audio} holds {kind}; known is {{bytes, path}}")
    holds_paths = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    path_column = f"{columns.audio}.path" if pa.types.is_struct(kind) and "path" in fields else None
    wanted = [*columns.names(), *([path_column] if path_column else []), *([columns.audio] if holds_paths else [])]
    names = _class_names(schema)
    position = 0
    for group in range(table.num_row_groups):
        for row in table.read_row_group(group, columns=wanted).to_pylist():
            for name, classes in names.items():
                if isinstance(row.get(name), int) and 0 <= row[name] < len(classes):
                    row[name] = classes[row[name]]
            inner = (row.get(columns.audio) or {}).get("path") if path_column else row.get(columns.audio)
            fallback = str(inner) if isinstance(inner, str) and inner else f"{stem(reader.path)}-{position}"
            fields_of_row = described(row, columns, request, reader.path, fallback)
            # Times are those in the whole recording, of which the bytes are a part.
            sound: Callable[[], bytes | Path] = partial(reader.read, position, inner if path_column else None)
            yield Utterance(audio=request.place.audio(str(inner)) if holds_paths else sound, **fields_of_row)
            position += 1


def _audio_column(schema: Any) -> str | None:
    """The column whose type says that it holds recordings; the name decides between several."""
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [field.name for field in schema if holds_bytes(field.type)]
    return "audio" if "audio" in found else next(iter(found), None)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The names that a column of numbers stands for (ClassLabel), as `datasets` writes them beside the schema."""
    import json

    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("names")}
    except (KeyError, ValueError, AttributeError, TypeError):
        return {}


class _Recordings:
    """The recordings of one parquet file, read from it one after the other; the file is opened anew for an earlier one.
    For several threads."""

    def __init__(self, place: Place, path: str) -> None:
        self.place, self.path, self.column = place, path, ""
        self._lock = Lock()
        self._batches: Iterator[Any] = iter(())
        self._batch: list[bytes | None] = []
        self._start = self._group_end = 0

    def open(self) -> "ParquetFile":
        """The file. Raises OSError, ImportError."""
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise EvaluateError(f"{self.path}: {needed(error)}") from error
        source = self.place.root / self.path if isinstance(self.place, Folder) else self.place.open(self.path)
        # Not mapped, and not read ahead: a column of recordings may be larger than the memory.
        return ParquetFile(source, buffer_size=_READ_BYTES, pre_buffer=False)

    def read(self, row: int, path: str | None) -> bytes | Path:
        """path: of a recording that lies beside the table, and not in it. Raises EvaluateError."""
        with self._lock:
            try:
                content = self._at(row)
            except Exception as error:  # of pyarrow, and of the hub's connections
                raise EvaluateError(f"{self.path}, row {row}: {one_line(error)}") from error
        if content is not None:
            return content
        if path and self.place.exists(path):
            return self.place.audio(path)()
        raise EvaluateError(f"{self.path}, row {row}: no recording is in the table" + f", nor is {path}" * bool(path))

    def _at(self, row: int) -> bytes | None:
        if not self._start <= row < self._group_end:
            self._begin(row)
        while row >= self._start + len(self._batch):
            self._start += len(self._batch)
            self._batch = next(self._batches)
        return self._batch[row - self._start]

    def _begin(self, row: int) -> None:
        """At the first row of the row group that has this one."""
        table = self.open()
        start = 0
        for group in range(table.num_row_groups):
            end = start + table.metadata.row_group(group).num_rows
            if row < end:
                break
            start = end
        batches = table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[self.column], use_threads=False)
        self._batches = (_bytes(batch.column(0)) for batch in batches)
        self._batch, self._start, self._group_end = [], start, end


def _bytes(column: Any) -> list[bytes | None]:
    return [value.get("bytes") if isinstance(value, dict) else value for value in column.to_pylist()]
