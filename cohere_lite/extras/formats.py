"""A Transcript, or its Segments as they come -> text for people, for players or for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from ..errors import OptionError
from ..transcript import added_texts

if TYPE_CHECKING:  # the command's --help needs this file, and must not wait for numpy
    from ..transcript import Segment, Transcript, Word

FORMATS = ("txt", "json", "srt", "vtt", "tsv")


def render(style: str, segments: Iterable[Segment], language: str | None) -> Iterator[str]:
    """The text of a recording in parts, each as soon as it is known; a few segments at most are held.

    segments: as they come, or those of a Transcript;  language: of segments that do not say theirs

    txt:      Transcript.text and a newline
    lines:    a line for each segment that has text, "[channel] " before it if the channels were split
    tsv:      a header, then start and end in milliseconds, the channel if they were split, and the text; segments
              without text are left out
    srt, vtt: subtitles that never overlap. SRT has no escapes: players may take "<b>" for a tag
    karaoke:  vtt with a time at each word, of segments that have words

    Raises OptionError for another style, and for subtitles in a copy without extras/subtitles.py.
    """
    if style == "txt":
        return _running_text(segments, language)
    if style == "lines":
        return _lines(segments)
    if style == "tsv":
        return _tsv(segments)
    if style not in ("srt", "vtt", "karaoke"):
        raise OptionError(f"style {style!r} is not known; known: txt, lines, tsv, srt, vtt, karaoke")
    try:
        from .subtitles import subtitles
    except ImportError as error:
        raise OptionError(f"{style} needs cohere_lite/extras/subtitles.py, which is not in this copy") from error
    return subtitles(segments, style)


def render_json(transcript: Transcript, *, file: str, model: dict[str, str], seconds: float) -> str:
    """A Transcript as one JSON object in one line. Read it by names: fields may be added; when one goes, or changes its
    type, unit or meaning, `version` changes.

    file: as the caller named it;  model: Transcriber.facts;  seconds: of work, more than 0
    """
    segments = [
        {name: value for name, value in asdict(segment).items() if name != "words"}
        | {"start": round(segment.start, 3), "end": round(segment.end, 3)}
        | {name: _rounded(getattr(segment, name)) for name in ("avg_logprob", "language_probability")}
        | ({} if segment.words is None else {"words": rounded_words(segment.words)})
        for segment in transcript.segments
    ]
    record = {
        "version": 1,
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": _rounded(transcript.language_probability),
        "truncated": transcript.truncated,
        "file": file,
        "duration": round(transcript.duration, 3),
        "complete": transcript.complete,
        "warnings": transcript.warnings,
        "model": model,
        "timing": {"seconds": round(seconds, 3), "speed": round(transcript.duration / seconds, 2)},
        "segments": segments,
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def rounded_words(words: Iterable[Word]) -> list[dict[str, Any]]:
    """As JSON has them, times in whole milliseconds."""
    return [{"text": word.text} | {k: round(v, 3) for k, v in asdict(word).items() if k != "text"} for word in words]


def _running_text(segments: Iterable[Segment], language: str | None) -> Iterator[str]:
    segments = iter(segments)
    if first := next(segments, None):
        segments = chain([first], segments)
    if first and first.channel is not None:
        yield from _lines(segments)
    else:
        yield from filter(None, added_texts(segments, language))
        yield "\n"


def _lines(segments: Iterable[Segment]) -> Iterator[str]:
    for segment in segments:
        if text := segment.text.strip():
            yield f"{speaker(segment.channel)}{text}\n"


def _tsv(segments: Iterable[Segment]) -> Iterator[str]:
    for number, segment in enumerate(segments):
        channel = [] if segment.channel is None else [segment.channel]
        if number == 0:
            yield "start\tend\tchannel\ttext\n" if channel else "start\tend\ttext\n"
        if text := one_line(segment.text):
            yield "\t".join(map(str, [milliseconds(segment.start), milliseconds(segment.end), *channel, text])) + "\n"


def speaker(channel: int | None) -> str:
    """ "[0] " to put before the text of a channel; "" if the channels are not split."""
    return "" if channel is None else f"[{channel}] "


def text_columns(text: str) -> int:
    """How wide a text is where letters have a fixed width."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def one_line(text: str) -> str:
    """White space, line breaks and control characters as single spaces between words."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def milliseconds(seconds: float) -> int:
    """Whole ones, as tsv and subtitles have them."""
    return round(seconds * 1000)
