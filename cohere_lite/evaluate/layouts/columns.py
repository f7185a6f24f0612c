"""The columns of a table -> utterances: which column holds what, by the names that data sets have published."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import EvaluateError
from .layout import NO_NAMES, Request

# Of several that a table has, the first is taken: in the leaderboard's order, then others.
TEXT = [
    *("text", "sentence", "normalized_text", "transcript", "transcription", "raw_text", "raw_transcription"),
    *("reference", "utterance", "label", "words", "txt", "normalized", "ground_truth", "target"),
]
_OFTEN_NUMBERS = ("utterance", "label", "words", "target")  # other tables have a number, a class or a count there
# Where the first is empty, the second says the same: VoxPopuli has either empty.
_RAW = {"normalized_text": "raw_text", "transcription": "raw_transcription"}
AUDIO = [
    *("audio", "audio_filepath", "audio_path", "audio_file", "audio_filename", "file_name", "filename", "path", "file"),
    *("wav", "wav_path", "wav_filename", "wav_file", "filepath", "file_path", "clip", "recording", "sound", "flac"),
]
SPEAKER = ["speaker_id", "client_id", "speaker", "spk_id", "spk", "speaker_name", "user_id"]
RECORDING = ["chapter_id", "meeting_id", "parent_id", "file_id", "call_id", "recording_id", "session_id", "meeting"]
LANGUAGE = ["locale", "language", "lang", "lang_id"]
START = ["offset", "start", "start_s", "start_time", "begin", "begin_time", "start_ts"]
END = ["end", "end_s", "end_time", "end_ts"]
DURATION = ["duration", "duration_s"]
# Unique in the sets that have them. FLEURS' id is its sentence's, which several people read: its path comes first.
ID = [("audio_id",), ("utterance_id",), ("utt_id",), ("file_id", "segment_id"), ("path",), ("id",), ("file_name",)]


class Columns(NamedTuple):
    """Names of columns; see Utterance. The first of `text` that is not empty counts."""

    text: list[str]
    audio: str
    id: tuple[str, ...]
    speaker: str | None
    recording: str | None
    language: str | None
    start: str | None
    end: str | None
    duration: str | None

    def names(self) -> list[str]:
        """All of them but the audio."""
        others = (self.speaker, self.recording, self.language, self.start, self.end, self.duration)
        return list(dict.fromkeys([*self.text, *self.id, *(name for name in others if name)]))


def find_columns(
    names: Sequence[str],
    request: Request,
    audio: str | None = None,
    text: str | None = None,
    numbers: Sequence[str] = (),
) -> Columns:
    """names: of all columns;  audio, text: what the columns' contents say, for audio rather than names, for text where
    no name is known;  numbers: columns of nothing else. Raises EvaluateError if there is no column with texts or none
    with recordings."""
    lower = {name.lower(): name for name in reversed(names)}

    def known(kind: str, published: Sequence[str]) -> list[str]:
        if named := request.columns.get(kind):
            if named not in names:
                raise EvaluateError(f"{request.spec} has no column {named!r}; it has {', '.join(names)}")
            return [named]
        return [lower[name] for name in published if name in lower]

    def first(kind: str, published: Sequence[str]) -> str | None:
        return next(iter(known(kind, published)), None)

    audio = first("audio", []) or audio or first("audio", AUDIO)
    texts = [name for name in known("text", TEXT) if name != audio]
    doubtful = [] if "text" in request.columns else [name for name in numbers if name.lower() in _OFTEN_NUMBERS]
    texts = [name for name in texts if name not in doubtful][:1] or ([text] if text else texts[:1])
    texts += [lower[raw] for name in texts if (raw := _RAW.get(name.lower())) in lower]
    if not audio or not texts:
        kind, holds = ("text", "texts") if audio else ("audio", "recordings")
        raise EvaluateError(
            f"{request.spec} has no column that is known to hold {holds} (it has {', '.join(names)}): "
            f"name it, as {request.spec}:{kind}=COLUMN"
        )
    return Columns(
        texts,
        audio,
        next((tuple(lower[name] for name in key) for key in ID if all(name in lower for name in key)), ()),
        first("speaker", SPEAKER),
        first("recording", [name for name in RECORDING if lower.get(name) != audio]),
        first("language", LANGUAGE),
        first("start", START),
        first("end", END),
        first("duration", DURATION),
    )


def described(row: Mapping[str, Any], columns: Columns, request: Request, path: str, fallback: str) -> dict[str, Any]:
    """The fields of an Utterance but its audio and its times, from a row by its columns' names.

    path: of the table, whose folders may name the language;  fallback: the id of a row that has none
    """
    texts = (_text(row.get(name), name, request) for name in columns.text)
    key = [str(row[name]) for name in columns.id if row.get(name) not in (None, "")]
    key = [posixpath.basename(part) if part.startswith("/") else part for part in key]  # of another machine's folders
    return {
        "id": "-".join(key) or fallback,
        "reference": next(filter(None, texts), ""),
        "language": request.language_of(path, row.get(columns.language) if columns.language else None),
        "speaker": _name(row, columns.speaker),
        "recording": _name(row, columns.recording),
    }


def _text(value: object, column: str, request: Request) -> str:
    """Raises EvaluateError for a list of words, say, whose brackets and commas would be words of the reference."""
    if value is None or value != value:  # NaN: how pandas writes that there is none
        return ""
    if not isinstance(value, str | int | float):
        raise EvaluateError(f"{request.spec}: its column {column} holds a {type(value).__name__}, which is no text")
    return str(value).strip()


def _name(row: Mapping[str, Any], column: str | None) -> str | None:
    value = str(row.get(column, "")) if column else ""
    return None if value.strip().lower() in NO_NAMES else value
