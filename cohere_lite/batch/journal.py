"""The folder of a batch: transcripts.jsonl, which is its state too, the settings, and a table made of the lines."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import OptionError

_LINES, _SETTINGS, _TABLE = "transcripts.jsonl", "settings.json", "transcripts.parquet"
_ROWS_AT_ONCE = 1000  # of the table: a row group


class Journal:
    """A line for each recording, written as soon as it is there, by this process alone: so each comes out once, however
    often Ray does it, and what is there is never done again. Until close, what failed in an earlier run and was tried
    again has two lines.

    done: ids of the recordings that have a line
    """

    def __init__(self, folder: Path, settings: dict[str, Any], asked: Container[str]) -> None:
        """Goes on with what a batch of the same settings left. What failed then, of the ids that are asked for now, is
        tried again: the recording may have been mended. Its line stays until there is another. Other lines stay.

        Raises OptionError for a folder of other settings, or of something else; OSError."""
        self.path, self._folder = folder / _LINES, folder
        self._check_settings(settings)
        self.done: set[str] = set()
        self._failed: set[str] = set()  # that are tried again
        n_bytes = n_lines = 0
        for text, line in self._lines():
            n_bytes += len(text)
            n_lines += 1
            is_tried_again = line["error"] is not None and line["id"] in asked
            (self._failed if is_tried_again else self.done).add(line["id"])
        with open(self.path, "ab") as file:
            file.truncate(n_bytes)  # what was being written when the process was killed is no line
        self._has_older = n_lines > len(self.done | self._failed)
        self._leave_out_older()  # which a process that was killed did not
        self._file = open(self.path, "ab")  # noqa: SIM115 - until close

    def add(self, line: bytes, id: str) -> bool:
        """Writes a recording's line, unless there is one; returns whether there was none."""
        if id in self.done:
            return False
        with self._named_in_errors():
            self._file.write(line)
            self._file.flush()
        self.done.add(id)
        self._has_older |= id in self._failed
        return True

    def close(self) -> None:
        """After the last line."""
        with self._named_in_errors():
            self._file.close()
            self._leave_out_older()

    @contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        """What writing raises, as of a full disk, does not say where."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.path)
            raise

    def write_table(self) -> Path:
        """transcripts.parquet, with the lines that there are."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        path = self._folder / _TABLE
        partial = path.with_name(f"{_TABLE}.partial")
        lines = (line for _, line in self._lines())
        with ParquetWriter(partial, schema := _schema()) as table:
            while rows := [*islice(lines, _ROWS_AT_ONCE)]:
                table.write_table(pa.Table.from_pylist([*map(_flat, rows)], schema))
        partial.replace(path)
        return path

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Those that are whole: as they are, and what they say."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith(b"\n"):
                    return
                try:
                    line = json.loads(text)
                    line["id"], line["error"]
                except (ValueError, LookupError, TypeError):
                    raise OptionError(f"{self.path}, line {number}, is none of a batch: use another --out") from None
                yield text, line

    def _leave_out_older(self) -> None:
        """Of the lines with one id, all but the last: the others failed, and it was tried again."""
        if self._has_older:
            last = {line["id"]: number for number, (_, line) in enumerate(self._lines())}
            rewritten = self.path.with_name(f"{_LINES}.partial")
            with open(rewritten, "wb") as new:
                new.writelines(text for number, (text, line) in enumerate(self._lines()) if last[line["id"]] == number)
            rewritten.replace(self.path)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        """Transcripts of other settings must not be mixed with these; what failed may have failed of its settings."""
        path = self._folder / _SETTINGS
        before, text = None, path.read_text(encoding="utf-8") if path.exists() else ""
        if text:
            with suppress(ValueError):
                before = json.loads(text)
            if not isinstance(before, dict) or before.keys() != settings.keys():
                raise OptionError(f"{path} is none of a batch: use another --out")
            changed = [key for key in settings if before[key] != settings[key]]
            if changed and any(line["error"] is None for _, line in self._lines()):
                raise OptionError(f"{self.path} holds transcripts with another {', '.join(changed)}: use another --out")
        elif self.path.exists() and self.path.stat().st_size > 0:  # empty where a run ended before its first line
            raise OptionError(f"{self.path} exists, and {path} does not: use another --out")
        if before != settings:
            written = path.with_name(f"{_SETTINGS}.partial")  # on a full disk the others stay
            written.write_text(json.dumps(settings, indent=1), encoding="utf-8")
            written.replace(path)


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    names = {name: _as_utf8(line[name]) for name in ("id", "file", "error") if line[name]}
    warnings = [*map(_as_utf8, line["warnings"])]
    return (
        line | names | {"warnings": warnings, "seconds": line["timing"]["seconds"], "model": json.dumps(line["model"])}
    )


def _as_utf8(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8, which a table does not take."""
    return text.encode("utf-8", "backslashreplace").decode()


def _schema() -> Any:
    import pyarrow as pa

    segment = {"start": pa.float64(), "end": pa.float64(), "text": pa.string(), "tokens": pa.list_(pa.int32())}
    segment |= {"avg_logprob": pa.float64(), "channel": pa.int32()}
    segment |= dict.fromkeys(("silent", "truncated", "looped"), pa.bool_())
    segment |= {"language": pa.string(), "language_probability": pa.float64()}
    columns = dict.fromkeys(("id", "file", "language", "text", "error", "model"), pa.string())
    columns |= dict.fromkeys(("complete", "truncated"), pa.bool_())
    columns |= dict.fromkeys(("duration", "seconds", "language_probability"), pa.float64())
    columns |= {"warnings": pa.list_(pa.string()), "segments": pa.list_(pa.struct([*segment.items()]))}
    return pa.schema([*columns.items()])
