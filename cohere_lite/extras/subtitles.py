"""Segments -> SRT and WebVTT: cues that can be read, and never overlap."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, pairwise
from math import inf
from typing import NamedTuple

from ..transcript import Segment
from .formats import milliseconds, one_line, speaker, text_columns

# Netflix Timed Text Style Guide: two lines and 5/6 s at least (General Requirements), 42 characters a line (English).
_LINE_COLUMNS = 42  # of Latin letters; Chinese, Japanese and Korean characters take two
_READABLE_MS = 833

# A line may end before and after these characters. Korean is left out, since it has spaces; words in Katakana stay
# whole (_UNBROKEN).
_UNSPACED_SCRIPTS = r"\u2e80-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
_NOT_LAST = re.escape("([{“‘«「『（［｛〈《【〔")
_NOT_FIRST = re.escape(
    ",.:;!?)]}%”’»…、。，．・：；！？」』）］｝〉》】〕ー々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
)
# Text that must stay in one line, with the space before it. French has spaces inside guillemets and before "!", too.
_UNBROKEN = re.compile(
    rf" ?(?:« |[{_NOT_LAST}])*(?:[ァ-ヺー]+|[{_UNSPACED_SCRIPTS}]|[^ {_UNSPACED_SCRIPTS}]+)[{_NOT_FIRST}]*"
    rf"(?: [!?:;%»][{_NOT_FIRST}]*(?= |$))?"
)
_SENTENCE_ENDS, _CLAUSE_ENDS, _CLOSING_QUOTES = ".!?…。！？؟", ",;:、，；：،؛", "\"'”’»」』)）"


def subtitles(segments: Iterable[Segment], style: str) -> Iterator[str]:
    """The text of an "srt" or "vtt" file in parts, each as soon as it is known; "karaoke": vtt with a time before each
    word, of segments that have words."""
    if style != "srt":
        yield "WEBVTT\n\n"
    for number, cue in enumerate(_timeline(segments), 1):
        times = f"{_timestamp(cue.start)} --> {_timestamp(cue.end)}"
        if style == "srt":
            lines = [str(number), times.replace(".", ","), *(speaker(said.channel) + said.text for said in cue.texts)]
        else:
            texts = [said if style == "karaoke" else said._replace(words=[]) for said in cue.texts]
            lines = [times, *_marked(cue._replace(texts=texts))]
        yield "\n".join(lines) + "\n\n"


def _marked(cue: _Cue) -> Iterator[str]:
    """Each speaker's text in WebVTT. The times in a cue have to rise, from its start to its end."""
    last = cue.start
    for said in cue.texts:
        parts, done = [], 0
        for place, ms in said.words:
            if last < ms < cue.end:
                parts += [html.escape(said.text[done:place], quote=False), f"<{_timestamp(ms)}>"]
                last, done = ms, place
        parts.append(html.escape(said.text[done:], quote=False))
        yield _voice(said.channel, "".join(parts))


def _voice(channel: int | None, text: str) -> str:
    return text if channel is None else f"<v Channel {channel}>{text}</v>"


class _Said(NamedTuple):
    """channel: the speaker;  text: one or two lines;  words: where each begins in the text, and when, in ms."""

    channel: int | None
    text: str
    words: list[tuple[int, int]]


class _Cue(NamedTuple):
    """start, end: ms;  texts: of one or more speakers."""

    start: int
    end: int
    texts: list[_Said]


def _timeline(segments: Iterable[Segment]) -> Iterator[_Cue]:
    """Cues in order; none ends after the next one starts.

    A cue ends early where another channel's cue starts. If that leaves it too little time to be read, the two become
    one cue. So do cues that start in the same millisecond.
    """
    waiting: list[_Cue] = []  # by start
    # With each segment comes the time (ms) before which no later segment's cue starts.
    arriving = ((milliseconds(now.end if now.channel is None else now.start), _cues_of(now)) for now in segments)
    for settled, cues in chain(arriving, [(inf, [])]):
        waiting = sorted([*waiting, *cues], key=lambda cue: cue.start)
        while waiting:
            cue = waiting[0]
            # Before a cue that starts later than `settled`, a later segment may still put another one.
            following = waiting[1] if waiting[1:] and waiting[1].start <= settled else None
            if following and following.start < min(cue.end, cue.start + _READABLE_MS):
                waiting[:2] = [_Cue(cue.start, max(cue.end, following.end), cue.texts + following.texts)]
            elif following or cue.end <= settled:
                yield cue._replace(end=min(cue.end, following.start)) if following else cue
                del waiting[0]
            else:
                break


def _cues_of(segment: Segment) -> list[_Cue]:
    """Consecutive cues. Of a segment whose words have times, each from its first word to its last. Others share the
    segment's time in proportion to their characters: an estimate, since the model gives no times inside a segment."""
    # Players take a line with "-->" for the times of a cue. Each line leaves room for "[0] " in front.
    columns = _LINE_COLUMNS - len(speaker(segment.channel))
    texts = _laid_out(one_line(segment.text).replace("-->", "- ->"), columns)
    if segment.words and texts:
        return _cues_of_words(segment, texts)
    start, duration = milliseconds(segment.start), milliseconds(segment.end) - milliseconds(segment.start)
    done = [*accumulate(map(len, texts), initial=0)]
    edges = [start + duration * n // max(done[-1], 1) for n in done]
    return [
        _Cue(begin, max(end, begin + 1), [_Said(segment.channel, text, [])])
        for (begin, end), text in zip(pairwise(edges), texts, strict=True)
    ]


def _cues_of_words(segment: Segment, texts: list[str]) -> list[_Cue]:
    """Words are found by counting what is no space. One that is cut, since no line holds it, is in two cues."""
    sizes = [len(one_line(word.text).replace(" ", "")) for word in segment.words or ()]
    after = [*accumulate(sizes)]  # characters, up to a word's end
    times = [(milliseconds(word.start), milliseconds(word.end)) for word in segment.words or ()]
    cues, done = [], 0
    for text in texts:
        places = [i for i, character in enumerate(text) if not character.isspace()]
        first, last = bisect_right(after, done), bisect_right(after, done + len(places) - 1)
        begins = {after[n] - sizes[n] - done: times[n][0] for n in range(first, last + 1)}
        words = [(places[k], ms) for k, ms in begins.items() if k >= 0]
        cues.append(_Cue(times[first][0], times[last][1], [_Said(segment.channel, text, words)]))
        done += len(places)
    ends = [cue.start for cue in cues[1:]] + [milliseconds(segment.end)]
    return [  # as long as it takes to read, if there is time
        cue._replace(end=max(cue.start + 1, min(max(cue.end, cue.start + _READABLE_MS), end)))
        for cue, end in zip(cues, ends, strict=True)
    ]


def _laid_out(text: str, columns: int) -> list[str]:
    """A text with single spaces between words -> texts of one or two lines each: few, of similar length, and ending
    where sentences do if possible."""
    pieces = [
        part
        for piece in _UNBROKEN.findall(text)
        # a word that is too long for a line may be cut after any character
        for part in ([piece] if text_columns(piece.lstrip()) <= columns else re.findall(" ?[^ ]", piece))
    ]
    n = len(pieces)
    at = [*accumulate(map(text_columns, pieces), initial=0)]
    space = [piece[0] == " " for piece in pieces]
    line_end = [bisect_right(at, at[i] + space[i] + columns) - 1 for i in range(n)] + [n]  # of the longest line from i

    # best[i]: the least cost of the first i pieces as cues, and where the last cue begins. A cue costs the square of
    # its empty columns, which makes cues similar; if it ends inside a sentence, an empty line's square on top; after a
    # comma, half of that.
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


def _timestamp(ms: int) -> str:
    """HH:MM:SS.mmm; more digits for 100 hours and longer."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"
