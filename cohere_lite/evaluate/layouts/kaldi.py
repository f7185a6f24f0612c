"""Kaldi's data folders: wav.scp (recording, file), text (utterance, words), and, if there are, segments (utterance,
recording, start, end in seconds, channel if there are several; an end of -1 is the recording's) and utt2spk (utterance,
speaker)."""

import io
import posixpath
import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..errors import EvaluateError
from ..textgrid import number
from .layout import Request, Utterance, choose, refuse_columns
from .places import Folder


def read_kaldi(request: Request) -> Iterator[Utterance] | None:
    """The utterances of one data folder; None if there is none. Raises EvaluateError for recordings that a command
    would give, and for lines that cannot be read."""
    files = set(request.place.files)
    folders = [posixpath.dirname(path) for path in files if posixpath.basename(path) == "wav.scp"]
    texts = [path for path in (posixpath.join(folder, "text") for folder in folders) if path in files]
    if not texts:
        return None
    refuse_columns(request, "a Kaldi folder")
    return _read_folder(posixpath.dirname(choose(texts, request, "data folders")[0]), request)


def _read_folder(folder: str, request: Request) -> Iterator[Utterance]:
    files = dict(_lines(folder, "wav.scp", request))
    speakers = dict(_lines(folder, "utt2spk", request))
    segments = dict(_lines(folder, "segments", request))
    language = request.language_of(posixpath.join(folder, "text"))
    for name, words in _lines(folder, "text", request):
        is_part = name in segments
        part = _part(segments[name], name, request) if is_part else (name, None, None, None)
        recording, start_s, end_s, channel = part
        path = _find(files[recording], folder, request) if recording in files else None
        if path is None:
            request.left_out["a recording that is not there"] += 1
            continue
        whole = recording if is_part else None
        yield Utterance(
            name, words, language, partial(Path, path), speakers.get(name), whole, start_s, end_s, channel=channel
        )


_SEGMENT = re.compile(r"(\S+)\s+(\S+)\s+(\S+)(\s+\d+)?")


def _part(line: str, name: str, request: Request) -> tuple[str, float, float | None, int | None]:
    """Recording, start and end in seconds, and channel, of a line of segments without its first word, `name`."""
    match = _SEGMENT.fullmatch(line)
    start_s, end_s = (number(match[2]), number(match[3])) if match else (None, None)
    if match is None or start_s is None or end_s is None:
        raise EvaluateError(
            f"{request.spec}: segments has '{name} {line}'; "
            "a line of it is: UTTERANCE RECORDING START END [CHANNEL], in seconds"
        )
    return match[1], start_s, None if end_s == -1 else end_s, int(match[4]) if match[4] else None


def _lines(folder: str, name: str, request: Request) -> Iterator[tuple[str, str]]:
    """The first word of each line, and the rest. A file that is not there has no lines."""
    path = posixpath.join(folder, name)
    if path not in request.place.files:
        return
    try:
        with io.TextIOWrapper(request.place.open(path), encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    first, *rest = line.strip().split(None, 1)
                    yield first, rest[0] if rest else ""
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluateError(f"{request.spec}: {path} cannot be read: {error}") from error


def _find(entry: str, folder: str, request: Request) -> Path | None:
    """A file of wav.scp: from the data folder, or, as in Kaldi, from where the command runs. No command is run; the one
    of Kaldi's own recipes, `flac -c -d -s FILE |`, gives what the file has."""
    if entry.endswith("|"):
        try:
            command = shlex.split(entry[:-1])
        except ValueError:  # a quotation mark without its other one
            command = []
        if command[:1] != ["flac"] or any(word.startswith("-") and word.strip("-cds") for word in command[1:]):
            raise EvaluateError(f"{request.spec}: wav.scp has a command, which is not run: {entry}; name files there")
        entry = command[-1]
    if entry.rpartition(".ark:")[2].isdigit():
        raise EvaluateError(f"{request.spec}: wav.scp has an archive, which is not read: {entry}; name files there")
    if not isinstance(request.place, Folder):
        raise EvaluateError(f"{request.spec}: wav.scp is read from a folder of this machine")
    paths = request.place.root / folder / entry, request.place.root / entry, Path(entry)
    return next((path for path in paths if path.is_file()), None)
