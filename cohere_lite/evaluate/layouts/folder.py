"""A folder of recordings with a .txt of the same name beside each: speech.flac, speech.txt."""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...extras.kinds import AUDIO_SUFFIXES
from ..errors import EvaluateError
from .layout import Request, Utterance
from .places import Folder


def read_folder(request: Request) -> Iterator[Utterance] | None:
    """The utterances of a folder and of those in it, in the order of their paths; None for a repository. Raises
    EvaluateError for a text that is not UTF-8."""
    return _read(request.place.root, request) if isinstance(request.place, Folder) else None


def _read(folder: Path, request: Request) -> Iterator[Utterance]:
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = defaultdict(list)
        for name in sorted(names):
            files[os.path.splitext(name)[0]].append(Path(place, name))
        for stem, paths in sorted(files.items()):
            texts = [path for path in paths if path.suffix == ".txt"]
            audio = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
            if texts and audio:
                name = Path(place, stem).relative_to(folder).as_posix()
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
