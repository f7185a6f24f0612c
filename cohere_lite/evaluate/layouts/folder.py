"""A folder of recordings with a .txt of the same name beside each: speech.flac, speech.txt."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..errors import EvaluateError
from .layout import Utterance


def read_folder(folder: Path, language: str, left_out: Counter[str]) -> Iterator[Utterance]:
    """The utterances of a folder and of those in it, in the order of their paths.  left_out: takes note of recordings
    without a text, and of texts without a recording. Raises EvaluateError for a text that is not UTF-8."""
    for place, subfolders, names in os.walk(folder):
        subfolders.sort()
        recordings = defaultdict(list)
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix and not name.startswith("."):
                recordings[stem].append(Path(place, name))
        for stem, paths in recordings.items():
            texts = [path for path in paths if path.suffix == ".txt"]
            audio = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
            left_out["a text without a recording"] += len(texts) if not audio else 0
            left_out["a recording without a text"] += len(audio) if not texts else max(0, len(audio) - 1)
            if texts and audio:
                name = Path(place, stem).relative_to(folder).as_posix()
                yield Utterance(name, read_text(texts[0]), language, partial(Path, audio[0]))


# What ffmpeg and libsndfile read most; other files beside a .txt are no recordings.
AUDIO_SUFFIXES = {
    f".{kind}"
    for kind in [
        "wav",
        "flac",
        "mp3",
        "m4a",
        "mp4",
        "ogg",
        "oga",
        "opus",
        "webm",
        "aac",
        "wma",
        "aif",
        "aiff",
        "au",
        "caf",
        "amr",
        "mka",
        "mkv",
        "mov",
        "sph",
        "w64",
        "rf64",
        "3gp",
    ]
}


def read_text(path: Path) -> str:
    """A text file, without a byte order mark and space around it. Raises EvaluateError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise EvaluateError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
