"""OpenAI's audio interface: POST /v1/audio/transcriptions, and what models there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..errors import OptionError
from ..extras.phrases import Pauses
from .answers import (
    FORMATS,
    Deltas,
    all_warnings,
    answer,
    delta_event,
    done_event,
    segment_event,
    warnings_header,
)
from .edge import counted_body, error_response, unless_gone
from .forms import Form, read_form
from .models import Heard
from .recordings import FileRecording
from .requests import AdmittedRoute, send_event
from .service import Asked, Service


class _Wanted(NamedTuple):
    """options: of Transcriber.recording;  segments: whether a stream tells their times, too"""

    options: dict[str, Any]
    style: str
    stream: bool
    logprobs: bool
    segments: bool


class Transcriptions(AdmittedRoute):
    """POST /v1/audio/transcriptions."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, "/v1/audio/transcriptions")

    async def _serve(self, scope: Scope, receive: Receive, send: Send, asked: Asked) -> None:
        headers = Request(scope).headers
        form = await self._received(read_form(headers, counted_body(headers, receive, self._service.max_upload)))
        try:
            wanted = _wanted(form, self._service)
        except OptionError:
            form.file.close()
            raise
        with self._service.file(form.file, wanted.options, wanted.stream) as recording:
            try:
                serve = self._stream if wanted.stream else self._answer
                await unless_gone(receive, serve(recording, wanted, scope, receive, send))
            finally:
                asked.audio_s = recording.duration_s

    async def _answer(
        self, recording: FileRecording, wanted: _Wanted, scope: Scope, receive: Receive, send: Send
    ) -> None:
        heard = [h async for h in recording]
        facts = wanted.style, heard, wanted.options["language"], recording.warnings, wanted.logprobs
        text = await asyncio.to_thread(answer, *facts)  # subtitles of 3 hours take a second
        headers = warnings_header(all_warnings(heard, recording.warnings))
        await Response(text, media_type=FORMATS[wanted.style], headers=headers)(scope, receive, send)

    async def _stream(
        self, recording: FileRecording, wanted: _Wanted, scope: Scope, receive: Receive, send: Send
    ) -> None:
        heard: list[Heard] = []
        deltas = Deltas(wanted.options["language"])
        async for one in recording:
            if not heard:  # until here a failure is an answer of its own
                await _begin_stream(scope, send)
            heard.append(one)
            if delta := deltas.add(one.segment):
                if wanted.segments:
                    await send_event(send, segment_event(len(heard) - 1, one))
                await send_event(send, delta_event(delta, one, wanted.logprobs))
        warnings = all_warnings(heard, recording.warnings)
        await send_event(send, done_event(deltas.text, heard, warnings, wanted.logprobs))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _begin_stream(scope: Scope, send: Send) -> None:
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    headers["X-Accel-Buffering"] = "no"  # nginx would hold it back
    raw = StreamingResponse(iter(()), headers=headers).raw_headers
    await send({"type": "http.response.start", "status": 200, "headers": raw})


def _wanted(form: Form, service: Service) -> _Wanted:
    """What the fields ask for. Unknown ones, and those that mean nothing to this model (model, prompt, temperature),
    are ignored. Raises OptionError."""
    style = form.one("response_format") or "json"
    if style not in FORMATS:
        raise OptionError(f"response_format is {style!r}; it must be one of {', '.join(FORMATS)}")
    language = form.one("language")
    if language is None:
        candidates, names = [], form.many("languages")
        for name in names:
            with suppress(OptionError):
                candidates.append(service.known_language(name))
        language = ",".join(candidates or names) or service.language
    stream = (form.one("stream") or "").lower() in ("true", "1")
    vad = any(key.startswith("chunking_strategy") for key, _ in form.fields)
    # where somebody waits for each phrase, or reads its times
    pauses = Pauses() if stream or vad or style not in ("json", "text") else None
    granularities = form.many("timestamp_granularities")
    words = "word" in granularities
    if words and (stream or style in ("json", "text")):  # which have no place for them
        raise OptionError(
            "timestamp_granularities has 'word', which needs response_format=verbose_json (or srt, vtt) without stream"
        )
    options = {"language": service.known_language(language), "pauses": pauses, "word_times": words}
    logprobs = "logprobs" in form.many("include")
    return _Wanted(options, style, stream, logprobs, "segment" in granularities)


def model_facts(service: Service) -> dict[str, Any]:
    """The one model."""
    return {"id": service.model_id, "object": "model", "created": 0, "owned_by": "cohere-lite"}


def not_there(path: str, routes: Sequence[str]) -> JSONResponse:
    """The answer to a route that is not there."""
    if path.rstrip("/").endswith("/audio/translations"):
        return error_response(404, "this model transcribes and does not translate: use /v1/audio/transcriptions")
    known = ", ".join(routes)
    message = f"there is no {path}; a client's base URL ends in /v1, and the routes are {known}"
    return error_response(404, message, code="unknown_url")
