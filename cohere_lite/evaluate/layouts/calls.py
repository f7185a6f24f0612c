"""Calls that come in chunks, with one reference for each call, as ArtificialAnalysis/Earnings22-Cleaned-AA-chunked: a
list of chunks (file_name, parent_id, chunk_index), and, in a data set whose name lacks "-chunked", one of calls (id,
transcript). The chunks follow one another without a gap, and are joined to calls again."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from ...audio import open_audio
from ...errors import AudioError
from ..errors import EvaluateError
from .columns import described, find_columns
from .layout import Request, Utterance, choose, reading
from .places import Folder, Place, find_repository
from .tables import Sound, find_lists, finder, read_rows

_SUFFIX = "-chunked"


def read_calls(request: Request) -> Iterator[Utterance] | None:
    """The calls of a data set of chunks, an utterance each; None if there are no such chunks. Raises EvaluateError if
    the references are not there."""
    lists = find_lists(request.place)
    if not lists or not request.place.name.endswith(_SUFFIX):
        return None
    paths = choose(lists, request, "lists")
    with reading(paths[0], request):
        first = next(read_rows(request.place, paths[0]), {})
    return _read_calls(paths, request) if {"parent_id", "chunk_index", "file_name"} <= {*first} else None


def _read_calls(paths: list[str], request: Request) -> Iterator[Utterance]:
    chunks: dict[str, dict[int, Sound]] = defaultdict(dict)
    for path in paths:
        find = finder(path, request)
        with reading(path, request):
            for row in read_rows(request.place, path):
                if sound := find(str(row["file_name"])):
                    chunks[str(row["parent_id"])][int(row["chunk_index"])] = sound
                else:
                    request.left_out["a recording that is not there"] += 1
    calls = replace(request, place=_calls_of(request), parts=(), defaults=())
    for path in choose(find_lists(calls.place), calls, "lists"):
        with reading(path, calls):
            rows = read_rows(calls.place, path)
            head = next(rows, {})
            columns = find_columns([*head], calls)
            for row in chain([head], rows):
                name = str(row.get("id"))
                if sorted(chunks[name]) != [*range(len(chunks[name]))] or not chunks[name]:
                    request.left_out["a call of which chunks are missing"] += 1
                    continue
                fields = {**described(row, columns, request, path, name), "id": name, "recording": name}
                yield Utterance(audio=partial(_joined, [sound for _, sound in sorted(chunks[name].items())]), **fields)


def _calls_of(request: Request) -> Place:
    """The data set with the references."""
    name = request.place.name.removesuffix(_SUFFIX)
    if not isinstance(request.place, Folder):
        return find_repository(name)
    folder = request.place.root.resolve().parent / name.rpartition("/")[2]
    if folder.is_dir():
        return Folder(folder)
    raise EvaluateError(f"{request.spec} has chunks of calls; their texts are in {name}: put it beside this folder")


def _joined(sounds: list[Sound]) -> bytes | Path:
    """One after the other, as a WAV file in float32. Raises AudioError."""
    frames, rates = [], set()
    for sound in sounds:
        with open_audio(sound()) as audio:
            frames += [block.astype("<f4") for block in audio.blocks]
            rates.add((audio.rate, frames[-1].shape[1]))
    if len(rates) != 1:
        raise AudioError(f"the chunks of a call differ in rate and channels: {sorted(rates)}")
    rate, channels = rates.pop()
    data = np.concatenate(frames).tobytes()
    form = struct.pack("<HHIIHH", 3, channels, rate, 4 * channels * rate, 4 * channels, 32)
    sizes = struct.pack("<I", len(data) + 36), struct.pack("<I", len(data))
    return b"RIFF" + sizes[0] + b"WAVEfmt \x10\0\0\0" + form + b"data" + sizes[1] + data
