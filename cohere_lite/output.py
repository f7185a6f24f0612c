"""Segments -> text for people, for players or for programs, as the segments come; and the files to write it to."""

from __future__ import annotations

import html
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate, chain, count, islice, pairwise
from math import inf
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import east_asian_width, normalize

from .chunk import join
from .transcribe import Segment

FORMATS = ("txt", "json", "srt", "vtt", "tsv")

# Netflix Timed Text Style Guide: two lines and 5/6 s at least (General Requirements), 42 characters a line (English).
_LINE_COLUMNS = 42  # of Latin letters; Chinese, Japanese and Korean characters take two
_READABLE_MS = 833

# Around these a line may end. Korean is not among them: it has spaces. Nor is the inside of a word in Katakana.
_UNSPACED_SCRIPTS = r"\u2e80-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
_NOT_LAST = re.escape("([{“‘«「『（［｛〈《【〔")
_NOT_FIRST = re.escape(
    ",.:;!?)]}%”’»…、。，．・：；！？」』）］｝〉》】〕ー々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
)
# What stays in one line, with the space before it; French has spaces inside of guillemets and before "!", too.
_UNBROKEN = re.compile(
    rf" ?(?:« |[{_NOT_LAST}])*(?:[ァ-ヺー]+|[{_UNSPACED_SCRIPTS}]|[^ {_UNSPACED_SCRIPTS}]+)[{_NOT_FIRST}]*"
    rf"(?: [!?:;%»][{_NOT_FIRST}]*(?= |$))?"
)
_SENTENCE_ENDS, _CLAUSE_ENDS, _CLOSING_QUOTES = ".!?…。！？؟", ",;:、，；：،؛", "\"'”’»」』)）"

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
        yield from _subtitles(segments, style)
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
            yield "\t".join(map(str, [_ms(segment.start), _ms(segment.end), *channel, text])) + "\n"


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


def _subtitles(segments: Iterable[Segment], style: str) -> Iterator[str]:
    if style == "vtt":
        yield "WEBVTT\n\n"
    for number, cue in enumerate(_timeline(segments), 1):
        times = f"{_timestamp(cue.start)} --> {_timestamp(cue.end)}"
        if style == "srt":
            lines = [str(number), times.replace(".", ","), *(speaker(channel) + text for channel, text in cue.texts)]
        else:
            lines = [times, *(_voice(channel, html.escape(text, quote=False)) for channel, text in cue.texts)]
        yield "\n".join(lines) + "\n\n"


def _voice(channel: int | None, text: str) -> str:
    return text if channel is None else f"<v Channel {channel}>{text}</v>"


class _Cue(NamedTuple):
    """start, end: ms;  texts: of one or more speakers, each a channel and one or two lines."""

    start: int
    end: int
    texts: list[tuple[int | None, str]]


def _timeline(segments: Iterable[Segment]) -> Iterator[_Cue]:
    """Cues in order, each ending before the next one starts.

    One during which another channel's starts is over then; if that left it too short to read, the two are one cue. So
    are those that start in the same millisecond.
    """
    waiting: list[_Cue] = []  # by start
    # with each segment, the time before which nothing that is still to come starts
    arriving = ((_ms(now.end if now.channel is None else now.start), _cues_of(now)) for now in segments)
    for settled, cues in chain(arriving, [(inf, [])]):
        waiting = sorted([*waiting, *cues], key=lambda cue: cue.start)
        while waiting:
            cue = waiting[0]
            # of a later one, something that is still to come may be before it
            following = waiting[1] if waiting[1:] and waiting[1].start <= settled else None
            if following and following.start < min(cue.end, cue.start + _READABLE_MS):
                waiting[:2] = [_Cue(cue.start, max(cue.end, following.end), cue.texts + following.texts)]
            elif following or cue.end <= settled:
                yield cue._replace(end=min(cue.end, following.start)) if following else cue
                del waiting[0]
            else:
                break


def _cues_of(segment: Segment) -> list[_Cue]:
    """Consecutive cues, whose shares of the segment's time are those of the characters: an estimate, since the model
    gives no times inside of a segment."""
    # A line with an arrow would be taken for the times of a cue. There is always room for "[0] " in front.
    columns = _LINE_COLUMNS - len(speaker(segment.channel))
    texts = _laid_out(one_line(segment.text).replace("-->", "- ->"), columns)
    start, duration = _ms(segment.start), _ms(segment.end) - _ms(segment.start)
    done = [*accumulate(map(len, texts), initial=0)]
    edges = [start + duration * n // max(done[-1], 1) for n in done]
    return [
        _Cue(begin, max(end, begin + 1), [(segment.channel, text)])
        for (begin, end), text in zip(pairwise(edges), texts, strict=True)
    ]


def _laid_out(text: str, columns: int) -> list[str]:
    """A text, its spaces single and between words, as texts of one or two lines: few, of similar length, and rather
    from one sentence to the next."""
    pieces = [
        part
        for piece in _UNBROKEN.findall(text)
        # a word too long for a line: after any character
        for part in ([piece] if text_columns(piece.lstrip()) <= columns else re.findall(" ?[^ ]", piece))
    ]
    n = len(pieces)
    at = [*accumulate(map(text_columns, pieces), initial=0)]
    space = [piece[0] == " " for piece in pieces]
    line_end = [bisect_right(at, at[i] + space[i] + columns) - 1 for i in range(n)] + [n]  # of the longest line from i

    # best[i]: the least cost of the first i pieces as cues, and where the last of them begins. A cue costs the square
    # of its empty columns, which evens them out; one that ends inside of a sentence, those of an empty line on top.
    best = [(0.0, 0)] + [(inf, 0)] * n
    for start in range(n):
        for end in range(start + 1, line_end[line_end[start]] + 1):
            mark = pieces[end - 1].rstrip(_CLOSING_QUOTES)[-1:]
            inside = 0.0 if mark in _SENTENCE_ENDS else 0.5 if mark in _CLAUSE_ENDS else 1.0
            empty = 2 * columns - (at[end] - at[start] - space[start])
            best[end] = min(best[end], (best[start][0] + empty**2 + inside * columns**2, start))
    cuts = [n]
    while cuts[-1] > 0:
        cuts.append(best[cuts[-1]][1])

    texts = []
    for start, end in pairwise(reversed(cuts)):
        middles = [i for i in range(start + 1, line_end[start] + 1) if line_end[i] >= end]
        middle = end if line_end[start] >= end else min(middles, key=lambda i: abs(2 * at[i] - at[start] - at[end]))
        lines = ["".join(pieces[start:middle]).strip(), "".join(pieces[middle:end]).strip()]
        texts.append("\n".join(line for line in lines if line))
    return texts


def text_columns(text: str) -> int:
    """How wide a text is where letters have a fixed width."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def one_line(text: str) -> str:
    """White space, line breaks and control characters as single spaces between words."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _timestamp(ms: int) -> str:
    """HH:MM:SS.mmm, the hours with more digits if need be."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"


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
