"""What a recording says: segments in time, and the transcript that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

# Written without spaces between words: _NO_SPACE_LANGS in transformers' processing_cohere_asr.py.
_UNSPACED = ("ja", "zh")


@dataclass(frozen=True)
class Word:
    """text: with the punctuation that belongs to it;  start, end: seconds from the beginning of the recording;
    confidence: 0 to 1, the geometric mean of the probabilities that the model gave its tokens"""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Segment:
    """A stretch of audio that went through the model in one piece, up to 35 s, or that was skipped as silent.

    start, end:  seconds from the beginning of the recording
    text:        what was said, in one line; "" for silence
    tokens:      ids, prompt and end-of-text left out
    avg_logprob: average natural log-probability of the tokens and of end-of-text, 0 at best; None where silent
    channel:     of a recording whose channels were split (from 0), else None
    silent:      nothing in it stood out from the noise, so the model was not asked
    truncated:   the model's limit of tokens came before the end of the text: words are missing here
    looped:      the decoder repeated itself without end and was stopped; the repetition is left out
    language:    the code of that which it was decoded as; None where silent, and where no text told which it is
    language_probability: 0 to 1, that this is what was spoken, where it was found rather than named; else None
    words:       in order, without overlaps, within the segment; None unless word_times were asked for
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float | None
    channel: int | None
    silent: bool
    truncated: bool
    looped: bool
    language: str | None = None
    language_probability: float | None = None
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class Transcript:
    """text:  the segments' texts joined, in one line; of split channels, a line "[channel] text" per segment
    language:  the one that was named, or found in most of the speech; None if it was to be found and nothing was heard
    duration:  seconds of audio that were transcribed
    complete:  nothing kept the recording from being transcribed to its end
    truncated: some segment is
    warnings:  what was wrong with the audio but did not keep it from being read; then segment_warnings of each segment
    language_probability: mean over the language's segments, by their length; None where it was named or not found
    """

    text: str
    segments: tuple[Segment, ...]
    language: str | None
    duration: float
    complete: bool
    truncated: bool
    warnings: tuple[str, ...]
    language_probability: float | None = None

    @classmethod
    def of(
        cls, segments: Iterable[Segment], language: str | None, *, warnings: Iterable[str] = (), complete: bool = True
    ) -> Transcript:
        """The transcript of a recording's segments, all that there are. language: the one that was named, None where it
        was to be found;  warnings: those of the audio."""
        segments = tuple(segments)
        split = [f"[{s.channel}] {s.text.strip()}" for s in segments if s.channel is not None and s.text.strip()]
        text = "\n".join(split) or "".join(added_texts(segments, language))
        duration = max(segment.end for segment in segments) - segments[0].start if segments else 0.0
        truncated = any(segment.truncated for segment in segments)
        warnings = (*warnings, *chain.from_iterable(map(segment_warnings, segments)))
        spoken: dict[str, float] = {}  # seconds
        for s in segments:
            spoken |= {s.language: spoken.get(s.language, 0.0) + s.end - s.start} if s.language else {}
        language = language or max(spoken, key=spoken.__getitem__, default=None)
        found = [
            (s.language_probability, s.end - s.start)
            for s in segments
            if s.language == language and s.language_probability is not None
        ]
        seconds = sum(length for _, length in found)
        mean = sum(probability * length for probability, length in found) / seconds if seconds else None
        return cls(text, segments, language, duration, complete, truncated, warnings, mean)


def segment_warnings(segment: Segment) -> list[str]:
    """What is to be said of a segment whose text is not whole."""
    where = place(segment.channel, segment.start, segment.end)
    found = {
        "the model reached its limit of tokens; words are missing": segment.truncated,
        "the model repeated itself without end and was stopped; words may be missing": segment.looped,
    }
    return [f"{where}: {warning}" for warning, is_true in found.items() if is_true]


def place(channel: int | None, start: float, end: float) -> str:
    """A segment's in the recording, for messages."""
    return f"{'' if channel is None else f'[{channel}] '}{clock(start)} to {clock(end)}"


def clock(seconds: float) -> str:
    """0:07, 12:34, 3:00:00."""
    (hours, minutes), rest = divmod(round(seconds) // 60, 60), round(seconds) % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def added_texts(segments: Iterable[Segment], language: str | None) -> Iterator[str]:
    """What each segment adds to the text, as they come: all of it joined is the text. language: of segments that do not
    say theirs."""
    begun = ""  # stands for the text so far: join asks only whether there is any
    for segment in segments:
        added = join([begun, segment.text], segment.language or language)[len(begun) :]
        begun = "." if added else begun
        yield added


def join(texts: Sequence[str], language: str | None) -> str:
    """The texts of consecutive chunks as one: stripped, blank ones left out, with a space between (none in ja and zh).

    As in the reference, leading whitespace of the whole stays. Two differences: the reference fails when every text is
    blank (here: ""), and leaves the text of a clip of up to 30 s as it is (here: without its trailing whitespace, too).
    """
    spoken = [text for text in texts if text.strip()]
    if not spoken:
        return ""
    separator = "" if language in _UNSPACED else " "
    return separator.join([spoken[0].rstrip(), *(text.strip() for text in spoken[1:])])
