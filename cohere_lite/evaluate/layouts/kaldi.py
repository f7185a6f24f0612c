"""Kaldi's data folders: wav.scp (recording, file), text (utterance, words), and, if there are, segments (utterance,
recording, start, end in seconds) and utt2spk (utterance, speaker)."""

import io
import posixpath
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..errors import EvaluateError
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
    segments = {name: rest.split() for name, rest in _lines(folder, "segments", request)}
    language = request.language_of(posixpath.join(folder, "text"))
    for name, words in _lines(folder, "text", request):
        recording, *times = segments.get(name, [name])
        if len(times) not in (0, 2):
            raise EvaluateError(f"{request.spec}: segments has no start and end for {name}")
        path = _find(files[recording], folder, request) if recording in files else None
        if path is None:
            request.left_out["a recording that is not there"] += 1
            continue
        start_s, end_s = map(float, times) if times else (None, None)
        speaker = speakers.get(name)
        yield Utterance(
            name, words, language, partial(Path, path), speaker, recording if times else None, start_s, end_s
        )


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
        command = shlex.split(entry[:-1])
        if command[:1] != ["flac"] or any(word.startswith("-") and word.strip("-cds") for word in command[1:]):
            raise EvaluateError(f"{request.spec}: wav.scp has a command, which is not run: {entry}; name files there")
        entry = command[-1]
    if entry.rpartition(".ark:")[2].isdigit():
        raise EvaluateError(f"{request.spec}: wav.scp has an archive, which is not read: {entry}; name files there")
    if not isinstance(request.place, Folder):
        raise EvaluateError(f"{request.spec}: wav.scp is read from a folder of this machine")
    paths = request.place.root / folder / entry, request.place.root / entry, Path(entry)
    return next((path for path in paths if path.is_file()), None)
