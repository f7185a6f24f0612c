"""The folder of a batch: transcripts.jsonl, which is its state too, the settings, and a table made of the lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import OptionError

_LINES, _SETTINGS, _TABLE = "transcripts.jsonl", "settings.json", "transcripts.parquet"
_ROWS_AT_ONCE = 1000  # of the table: a row group


class Journal:
    """A line for each recording, written as soon as it is there, by this process alone: so each comes out once, however
    often Ray does it, and what is there is never done again.

    done: ids of the recordings that have a line
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Goes on with what a batch of the same settings left. What failed then is tried again: the recording may have
        been mended. Raises OptionError for a folder of other settings, or of something else; OSError."""
        self.path, self._folder = folder / _LINES, folder
        _check_settings(folder / _SETTINGS, settings, self.path)
        self.done: set[str] = set()
        n_failed = 0
        for line in self._lines():
            n_failed += line["error"] is not None
            if line["error"] is None:
                self.done.add(line["id"])
        whole = _whole_bytes(self.path)
        self._file = open(self.path, "ab")  # noqa: SIM115 - until close
        self._file.truncate(whole)  # what was being written when the process was killed is no line
        if n_failed:
            self._leave_out_failures()

    def add(self, line: bytes, id: str) -> bool:
        """Writes a recording's line, unless there is one; returns whether there was none."""
        if id in self.done:
            return False
        self._file.write(line)
        self._file.flush()
        self.done.add(id)
        return True

    def close(self) -> None:
        """After the last line."""
        self._file.close()

    def write_table(self) -> Path:
        """transcripts.parquet, with the lines that there are."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        path = self._folder / _TABLE
        partial = path.with_name(f"{_TABLE}.partial")
        lines = self._lines()
        with ParquetWriter(partial, schema := _schema()) as table:
            while rows := [*islice(lines, _ROWS_AT_ONCE)]:
                table.write_table(pa.Table.from_pylist([*map(_flat, rows)], schema))
        partial.replace(path)
        return path

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Those that are whole."""
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
                yield line

    def _leave_out_failures(self) -> None:
        self._file.close()
        rewritten = self.path.with_name(f"{_LINES}.partial")
        with open(self.path, "rb") as file, open(rewritten, "wb") as new:
            new.writelines(line for line in file if json.loads(line)["error"] is None)
        rewritten.replace(self.path)
        self._file = open(self.path, "ab")  # noqa: SIM115 - until close


def _check_settings(path: Path, settings: dict[str, Any], lines: Path) -> None:
    """Transcripts of other settings must not be mixed with these."""
    if not path.exists():
        if lines.exists():
            raise OptionError(f"{lines} exists, and {path} does not: use another --out")
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise OptionError(f"{path} is none of a batch: use another --out")
    if changed := [key for key in settings if before.get(key) != settings[key]]:
        raise OptionError(f"{lines} holds transcripts with another {', '.join(changed)}: use another --out")


def _whole_bytes(path: Path) -> int:
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


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
    columns = dict.fromkeys(("id", "file", "language", "text", "error", "model"), pa.string())
    columns |= dict.fromkeys(("complete", "truncated"), pa.bool_())
    columns |= dict.fromkeys(("duration", "seconds"), pa.float64())
    columns |= {"warnings": pa.list_(pa.string()), "segments": pa.list_(pa.struct([*segment.items()]))}
    return pa.schema([*columns.items()])
