"""What was named on the command line -> the recordings, each once; and groups of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

from ..errors import OptionError
from ..extras.kinds import AUDIO_SUFFIXES
from ..extras.languages import language_code

_PATH_COLUMNS = ("path", "file", "audio")  # of parquet; the first that is there
_STATS_AT_ONCE = 32  # a network file system answers in a millisecond or so, and many requests at once
# Of a group: an hour of MP3, 17 minutes of WAV. A group that breaks off is begun anew, so it must not be long.
_GROUP_BYTES = 32_000_000
_GROUPS_PER_WORKER = 16  # at least, where there is less to do, for all to have some until the end
_MOST_GROUPS = 100_000  # Ray's driver keeps some kB of each


class Item(NamedTuple):
    """A recording.  id: in the output;  language: None for the command's;  n_bytes: 0 where there is no such file"""

    id: str
    path: str
    language: str | None = None
    n_bytes: int = 0


def find_items(names: Sequence[str]) -> tuple[list[Item], int]:
    """The recordings that these names stand for, in this order, each once; and how many came again.

    names: recordings, folders, lists (.txt: a path in a line; .parquet: a column of paths and, if it has them, `id` and
    `language`), and patterns with * for any of these; for lists .txt, if they end in it

    Raises OptionError for a name that stands for nothing, for a table without paths, and for an id of two recordings or
    in two languages; OSError for a folder or list that cannot be read.
    """
    found: dict[str, Item] = {}
    n_named = 0
    for name in names:
        before = n_named
        for item in _named_items(name):
            n_named += 1
            first = found.setdefault(item.id, item)
            if first.path != item.path:
                raise OptionError(f"the id {item.id!r} is that of two recordings: {first.path} and {item.path}")
            if first.language != item.language:
                both = " and ".join(language or "that of --language" for language in (first.language, item.language))
                raise OptionError(f"{item.id!r} is named in two languages, {both}: give each an id in a table")
        if n_named == before:
            raise OptionError(f"{name} holds no recordings; in folders, those are {' '.join(AUDIO_SUFFIXES)}")
    with ThreadPoolExecutor(_STATS_AT_ONCE) as pool:
        sizes = pool.map(_n_bytes, [item.path for item in found.values()])
        items = [item._replace(n_bytes=size) for item, size in zip(found.values(), sizes, strict=True)]
    return items, n_named - len(found)


def _named_items(name: str) -> Iterator[Item]:
    if os.path.lexists(name):
        yield from _items_at(name)
        return
    matches = sorted(glob.glob(name, recursive=True))
    if not matches:
        raise OptionError(f"{name}: there is no such file or folder, and nothing matches it as a pattern")
    for match in matches:
        # beside recordings, .txt files are transcripts, whose lines are no paths
        if _is_list(name) or not _is_list(match):
            yield from _items_at(match)


def _is_list(name: str) -> bool:
    return name.lower().endswith(".txt")


def _items_at(name: str) -> Iterator[Item]:
    """Of what is there; of a link that leads nowhere, too: that is said in its row."""
    if os.path.isdir(name):
        yield from map(_item, _files_in(name))
    elif name.lower().endswith(".parquet"):
        yield from _table_items(name)
    elif _is_list(name):
        with open(name, encoding="utf-8-sig", errors="surrogateescape") as lines:
            # spaces around a name are part of it
            yield from (_item(line.rstrip("\n"), os.path.dirname(name)) for line in lines if line.strip())
    else:
        yield _item(name)


def _item(path: str, folder: str = "") -> Item:
    """folder: that a relative path begins in"""
    path = os.path.abspath(os.path.join(folder, path))
    return Item(path, path)


def _files_in(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:  # os.walk would go on without this folder's recordings, and without a word
        raise error

    seen: set[str] = set()
    for place, subfolders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # by a link, which may lead to a folder above it
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(names) if name.lower().endswith(AUDIO_SUFFIXES))


def _table_items(name: str) -> Iterator[Item]:
    from pyarrow import ArrowException, types
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(name) as table:
            kinds = {field.name: field.type for field in table.schema_arrow}
            # not a list of strings, nor what data sets have as audio: {bytes, path}
            texts = {column for column, kind in kinds.items() if "string" in str(kind) and not types.is_nested(kind)}
            path = next((column for column in _PATH_COLUMNS if column in texts), None)
            if path is None:
                there = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
                raise OptionError(f"{name} needs a column of paths: path, file or audio; it has {there}")
            for batch in table.iter_batches(columns=[path, *({"id", "language"} & {*kinds})]):
                for row in batch.to_pylist():
                    yield _row_item(row, path, name)
    except ArrowException as error:
        raise OptionError(f"{name} cannot be read: {error}") from error


def _row_item(row: dict, path: str, table: str) -> Item:
    if not row[path]:
        raise OptionError(f"{table} has a row without a path")
    item = _item(row[path], os.path.dirname(table))
    name, language = row.get("id"), row.get("language")
    return Item(item.id if name is None else str(name), item.path, language_code(str(language)) if language else None)


def _n_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # what is wrong is said in its row; ValueError: a NUL in the name
        return 0


def in_groups(items: Sequence[Item], n_workers: int) -> list[list[Item]]:
    """Groups of about as much work each. A long recording is one by itself, so that no other one waits behind it.

    The longest and the shortest come in turns: so the longest begin early, and none is left to be waited for at the
    end; and short ones come out all the while. Lengths are those of the files, the only ones that are cheap to ask for.
    """
    total = sum(item.n_bytes for item in items)
    most = max(min(_GROUP_BYTES, total // (n_workers * _GROUPS_PER_WORKER)), total // _MOST_GROUPS)
    groups: list[list[Item]] = []
    room = -1
    for item in sorted(items, key=lambda item: -item.n_bytes):
        if item.n_bytes > room:
            groups.append([])
            room = most
        groups[-1].append(item)
        room -= item.n_bytes
    in_turns = chain.from_iterable(zip(reversed(groups), groups, strict=True))
    return [*in_turns][: len(groups)]
