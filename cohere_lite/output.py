"""Segments -> text for people, for players or for programs, as the segments come; and the files to write it to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, count, islice
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width, normalize

from .cut import join
from .transcribe import Segment

FORMATS = ("txt", "json", "srt", "vtt", "tsv")

# Those of str.splitlines: a model may write them, letter by letter, and a line must stay one.
_LINE_BREAKS = re.compile(r"\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


def render(
    style: str, segments: Iterable[Segment], language: str, facts: Callable[[], dict[str, Any]]
) -> Iterator[str]:
    """The transcript of a recording, in parts, each as soon as it is known; all but "json" hold a few segments at most.

    txt:   one line, the texts joined as chunk.join does, line breaks as spaces; of split channels what "lines" gives
    lines: a line for each segment that has text, "[channel] " before it if channels were split
    tsv:   a header, then start and end in milliseconds, channel if they were split, and text; segments without are left
           out
    srt, vtt: subtitles, never overlapping (see _timeline). SRT has no escapes: players may take "<b>" for a tag
    json:  one object in one line, with what facts() gives when the segments have ended. Read it by names: fields may be
           added; when one goes, or changes its type, unit or meaning, the version becomes another

        version    1
        text       what txt prints, without the newline at its end
        language   the code that was asked for
        truncated  some segment is
        ...        facts()
        segments   [{start, end: seconds, 3 decimals; text; tokens: ids; avg_logprob: 4 decimals, null where silent;
                   channel: from 0, null unless split; silent; truncated; looped}, ...], as in transcribe.Segment
    """
    segments = iter(segments)
    first = list(islice(segments, 1))
    split = any(segment.channel is not None for segment in first)
    segments = chain(first, segments)
    if style == "json":
        yield _json(list(segments), language, split, facts)
    elif style == "tsv":
        yield from _tsv(segments, split)
    elif style in ("srt", "vtt"):
        from .extras.subtitles import subtitles

        yield from subtitles(segments, style)
    elif style == "lines" or split:
        yield from _lines(segments)
    else:
        yield from _running_text(segments, language)


def _running_text(segments: Iterable[Segment], language: str) -> Iterator[str]:
    begun = ""  # stands for what is written already: join only asks whether there is something
    for segment in segments:
        if added := join([begun, segment.text], language)[len(begun) :]:
            begun = "."
            yield _LINE_BREAKS.sub(" ", added)
    yield "\n"


def _lines(segments: Iterable[Segment]) -> Iterator[str]:
    for segment in segments:
        if text := segment.text.strip():
            yield f"{speaker(segment.channel)}{_LINE_BREAKS.sub(' ', text)}\n"


def speaker(channel: int | None) -> str:
    """ "[0] " before what is said of a channel; nothing if they are not split."""
    return "" if channel is None else f"[{channel}] "


def _tsv(segments: Iterable[Segment], split: bool) -> Iterator[str]:
    yield "start\tend\tchannel\ttext\n" if split else "start\tend\ttext\n"
    for segment in segments:
        if text := one_line(segment.text):
            channel = [segment.channel] if split else []
            yield "\t".join(map(str, [milliseconds(segment.start), milliseconds(segment.end), *channel, text])) + "\n"


def _json(segments: Sequence[Segment], language: str, split: bool, facts: Callable[[], dict[str, Any]]) -> str:
    text = "".join(_lines(segments) if split else _running_text(segments, language)).removesuffix("\n")
    rounded = [
        asdict(now)
        | {"start": round(now.start, 3), "end": round(now.end, 3)}
        | {"avg_logprob": None if now.avg_logprob is None else round(now.avg_logprob, 4)}
        for now in segments
    ]
    truncated = any(segment.truncated for segment in segments)
    told = {"version": 1, "text": text, "language": language, "truncated": truncated, **facts(), "segments": rounded}
    return json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n"


def text_columns(text: str) -> int:
    """How wide a text is where letters have a fixed width."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def one_line(text: str) -> str:
    """White space, line breaks and control characters as single spaces between words."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def output_paths(files: Sequence[str], folder: Path, style: str) -> list[Path]:
    """A path in the folder for each input, in order, without a look at the disk: a.wav -> a.srt.

    No two are the same, nor would be where capitals or the composition of accents make no difference. Inputs that
    differ only in their kind or place keep their full names, a.wav.srt, with a number where that is not enough:
    a.wav-2.srt. "-" is "stdin".
    """
    names = ["stdin" if file == "-" else Path(file).name or "recording" for file in files]
    stems = [Path(name).stem for name in names]
    users = Counter(map(_caseless, stems))
    taken: set[str] = set()
    numbers: dict[str, Iterator[int]] = {}
    paths = []
    for name, stem in zip(names, stems, strict=True):
        more = numbers.setdefault(_caseless(name), count(2))
        choices = chain([stem] if users[_caseless(stem)] == 1 else [], [name], (f"{name}-{i}" for i in more))
        chosen = next(choice for choice in choices if _caseless(choice) not in taken)
        taken.add(_caseless(chosen))
        paths.append(folder / f"{chosen}.{style}")
    return paths


def _caseless(name: str) -> str:
    """The Unicode standard's canonical caseless matching (D145)."""
    return normalize("NFD", normalize("NFD", name).casefold())
