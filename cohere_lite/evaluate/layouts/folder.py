"""A folder of recordings with a .txt of the same name beside each: speech.flac, speech.txt."""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from ...extras.kinds import AUDIO_SUFFIXES
from ..errors import EvaluateError
from .layout import Request, Utterance, of_parts, refuse_columns
from .places import Folder, walk


def read_folder(request: Request) -> Iterator[Utterance] | None:
    """The utterances of a folder and of those in it, in the order of their paths; of the parts that are named, by the
    names of the folders. None for a repository. Raises EvaluateError for parts that are not there, for columns, and
    for a text that is not UTF-8."""
    if not isinstance(request.place, Folder):
        return None
    refuse_columns(request, "a folder of recordings with a .txt beside each")
    return _read(request.place, request)


def _read(place: Folder, request: Request) -> Iterator[Utterance]:
    folders = {f"{place.name}/{prefix}": prefix for prefix, _ in walk(place.root)} if request.parts else {}
    chosen = {folders[path] for path in of_parts([*folders], request, "folders")}
    for prefix, entries in groupby(walk(place.root), key=lambda entry: entry[0]):
        if request.parts and prefix not in chosen:
            continue
        files = defaultdict(list)
        for _, name in sorted(entries):
            files[os.path.splitext(name)[0]].append(place.root / prefix / name)
        for stem, paths in sorted(files.items()):
            texts = [path for path in paths if path.suffix == ".txt"]
            audio = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
            if texts and audio:
                name = prefix + stem
                language = request.language_of(f"{name}.txt")
                yield Utterance(name, _read_text(texts[0]), language, partial(Path, audio[0]))
            request.left_out["a text without a recording"] += len(texts) - bool(audio) * len(texts)
            request.left_out["a recording without a text"] += len(audio) - bool(texts) * len(audio)
            if len(audio) > 1 and texts:
                request.left_out["a second recording of the same name"] += len(audio) - 1


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise EvaluateError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
