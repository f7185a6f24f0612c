"""What was heard -> answers as OpenAI gives them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from itertools import chain
from typing import Any

from ..extras.formats import one_line, render
from ..mel import HOP_LENGTH, SAMPLE_RATE
from ..transcript import Segment, Transcript, join, segment_warnings
from .models import Heard

FORMATS = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "verbose_json": "application/json",
}
# verbose_json names languages as Whisper does.
_LANGUAGES = {
    **{"ar": "arabic", "de": "german", "el": "greek", "en": "english", "es": "spanish", "fr": "french"},
    **{"it": "italian", "ja": "japanese", "ko": "korean", "nl": "dutch", "pl": "polish", "pt": "portuguese"},
    **{"ru": "russian", "tr": "turkish", "vi": "vietnamese", "zh": "chinese"},
}
_SHOWN = 5  # warnings in a header
_ENCODER_FRAMES_PER_S = SAMPLE_RATE / HOP_LENGTH / 8  # the encoder's; each is a token of audio


def answer(style: str, heard: Sequence[Heard], language: str, warnings: Sequence[str], logprobs: bool) -> str:
    """A whole recording's. style: one of FORMATS;  language: as it was asked for;  logprobs: with those of the tokens,
    in json and verbose_json"""
    named = language if language in _LANGUAGES else None
    transcript = Transcript.of([h.segment for h in heard], named, warnings=warnings)
    if style == "text":
        return transcript.text + "\n"
    if style in ("srt", "vtt"):
        return "".join(render(style, transcript.segments, language))
    facts: dict[str, Any] = {"text": transcript.text}
    if style == "verbose_json":
        facts = {"task": "transcribe", "language": _LANGUAGES.get(transcript.language or "", "unknown")}
        facts |= {"duration": round(transcript.duration, 3)}
        facts |= {"text": transcript.text, "segments": verbose_segments(heard)}
        if any(segment.words is not None for segment in transcript.segments):
            facts["words"] = verbose_words(heard)
    if transcript.language_probability is not None:  # OpenAI has the first of these, for its newest models
        facts["languages"] = [{"code": transcript.language}]
        facts["language_probability"] = round(transcript.language_probability, 4)
    if logprobs:
        facts["logprobs"] = token_logprobs(heard)
    if transcript.warnings:  # not OpenAI's: nothing is lost silently
        facts["warnings"] = transcript.warnings
    return json.dumps(facts | {"usage": duration_usage(transcript.duration)}, ensure_ascii=False)


def verbose_segments(heard: Sequence[Heard]) -> list[dict[str, Any]]:
    """Those with text, with all ten fields; what this model does not have is 0."""
    spoken = [h.segment for h in heard if h.segment.text.strip()]
    return [
        {
            "id": number,
            "seek": round(segment.start * 100),  # in frames of 10 ms
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "text": one_line(segment.text),
            "tokens": segment.tokens,
            "temperature": 0.0,
            "avg_logprob": round(segment.avg_logprob or 0.0, 4),
            "compression_ratio": round(_compression_ratio(segment.text), 4),
            "no_speech_prob": 0.0,
            **found_language(segment),
        }
        for number, segment in enumerate(spoken)
    ]


def found_language(segment: Segment) -> dict[str, Any]:
    """Of a segment; nothing where it was named."""
    if segment.language_probability is None:
        return {}
    return {"language": segment.language, "language_probability": round(segment.language_probability, 4)}


def verbose_words(heard: Sequence[Heard]) -> list[dict[str, Any]]:
    """All words with their times, in seconds."""
    return [
        {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
        for h in heard
        for word in h.segment.words or ()
    ]


def _compression_ratio(text: str) -> float:
    """As Whisper's."""
    return len(text.encode()) / len(zlib.compress(text.encode()))


def token_logprobs(heard: Sequence[Heard]) -> list[dict[str, Any]]:
    """Of all tokens."""
    return [
        {"token": token.text, "bytes": [*token.utf8], "logprob": round(token.logprob, 6)}
        for h in heard
        for token in h.tokens
    ]


def duration_usage(seconds: float) -> dict[str, Any]:
    """As for models that are billed by the length of the audio."""
    return {"type": "duration", "seconds": round(seconds, 3)}


class Deltas:
    """Consecutive segments as they come -> what each adds to the text; all of them joined are the text."""

    def __init__(self, language: str) -> None:
        self.language = language  # as asked for, until it is found
        self.text = ""

    def add(self, segment: Segment) -> str:
        """What it adds; "" for blank text."""
        self.language = segment.language or self.language
        begun = "." if self.text else ""  # join asks only whether there is any
        added = join([begun, segment.text], self.language)[len(begun) :]
        self.text += added
        return added


def delta_event(delta: str, heard: Heard, logprobs: bool) -> dict[str, Any]:
    """What a segment adds to the text."""
    event: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
    return event | ({"logprobs": token_logprobs([heard])} if logprobs else {})


def segment_event(number: int, heard: Heard) -> dict[str, Any]:
    """A segment and its times: OpenAI's event for diarised text, here of everything by one speaker."""
    segment = heard.segment
    times = {"start": round(segment.start, 3), "end": round(segment.end, 3)}
    facts = {"id": str(number), "text": one_line(segment.text), "speaker": ""}
    return {"type": "transcript.text.segment", **facts, **times, **found_language(segment)}


def done_event(text: str, heard: Sequence[Heard], warnings: Sequence[str], logprobs: bool) -> dict[str, Any]:
    """The end of a stream. warnings: all;  usage: tokens, as the clients' types have it here; those of audio are
    encoder frames."""
    seconds = heard[-1].segment.end if heard else 0.0
    n_in, n_out = round(seconds * _ENCODER_FRAMES_PER_S), sum(len(h.segment.tokens) for h in heard)
    usage = {"type": "tokens", "input_tokens": n_in, "output_tokens": n_out, "total_tokens": n_in + n_out}
    usage["input_token_details"] = {"audio_tokens": n_in, "text_tokens": 0}
    event: dict[str, Any] = {"type": "transcript.text.done", "text": text, "usage": usage}
    event |= {"warnings": warnings} if warnings else {}
    return event | ({"logprobs": token_logprobs(heard)} if logprobs else {})


def all_warnings(heard: Sequence[Heard], warnings: Sequence[str]) -> list[str]:
    """Those of the audio, and of segments whose text is not whole, as in a Transcript."""
    return [*warnings, *chain.from_iterable(segment_warnings(h.segment) for h in heard)]


def warnings_header(warnings: Sequence[str]) -> dict[str, str]:
    """For answers that have no other place for them: a JSON list in ASCII, short enough for any proxy."""
    more = [f"{len(warnings) - _SHOWN} more"] if len(warnings) > _SHOWN else []
    return {"X-Warnings": json.dumps([*(warning[:300] for warning in warnings[:_SHOWN]), *more])} if warnings else {}
