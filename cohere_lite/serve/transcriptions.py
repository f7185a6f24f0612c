"""OpenAI's audio interface: POST /v1/audio/transcriptions, and what models there are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..errors import AudioError, CohereLiteError, OptionError
from ..extras.phrases import Pauses
from .answers import FORMATS, Deltas, answer, delta_event, done_event, segment_event
from .edge import Stalled, TooLarge, counted_body, error_response, unless_gone
from .forms import Form, read_form
from .log import logger
from .models import Heard
from .recordings import FileRecording
from .service import RETRY_AFTER_S, STOPPING, Asked, Refused, Service

_NOT_AGAIN = {"x-should-retry": "false"}  # OpenAI's clients obey it


class _Wanted(NamedTuple):
    """options: of Transcriber.recording;  segments: whether a stream tells their times, too"""

    options: dict[str, Any]
    style: str
    stream: bool
    logprobs: bool
    segments: bool


class Transcriptions:
    """POST /v1/audio/transcriptions."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        is_begun = False

        async def sending(message: Any) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            with self._service.admitted("/v1/audio/transcriptions") as asked:
                try:
                    await asyncio.wait_for(self._serve(scope, receive, sending, asked), self._service.timeout_s)
                except (ClientDisconnect, asyncio.CancelledError, Refused):
                    raise
                except Exception as error:
                    response = _failure(error, self._service)
                    asked.status = str(response.status_code)
                    if not is_begun:
                        await response(scope, receive, send)
                    else:  # of a stream
                        await _send_event(send, json.loads(bytes(response.body)))
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Refused as refused:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            await error_response(refused.status, str(refused), headers=headers)(scope, receive, send)
        except ClientDisconnect:
            pass

    async def _serve(self, scope: Scope, receive: Receive, send: Send, asked: Asked) -> None:
        headers = Request(scope).headers
        body = counted_body(headers, receive, self._service.max_upload)
        form = await self._service.unless_stopping(read_form(headers, body))
        if form is None:
            raise Refused(503, STOPPING)
        try:
            wanted = _wanted(form, self._service)
        except OptionError:
            form.file.close()
            raise
        with self._service.file(form.file, wanted.options, wanted.stream) as recording:
            try:
                serve = self._stream if wanted.stream else self._answer
                await unless_gone(receive, serve(recording, wanted, scope, receive, send))
                asked.status = "200"
            finally:
                asked.audio_s = recording.duration_s

    async def _answer(
        self, recording: FileRecording, wanted: _Wanted, scope: Scope, receive: Receive, send: Send
    ) -> None:
        heard = [h async for h in recording]
        facts = wanted.style, heard, wanted.options["language"], recording.warnings, wanted.logprobs
        text = await asyncio.to_thread(answer, *facts)  # subtitles of 3 hours take a second
        await Response(text, media_type=FORMATS[wanted.style])(scope, receive, send)

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
                    await _send_event(send, segment_event(len(heard) - 1, one))
                await _send_event(send, delta_event(delta, one, wanted.logprobs))
        await _send_event(send, done_event(deltas.text, heard, wanted.logprobs))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _begin_stream(scope: Scope, send: Send) -> None:
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    headers["X-Accel-Buffering"] = "no"  # nginx would hold it back
    raw = StreamingResponse(iter(()), headers=headers).raw_headers
    await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _send_event(send: Send, event: dict[str, Any]) -> None:
    data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _wanted(form: Form, service: Service) -> _Wanted:
    """What the fields ask for. Unknown ones, and those that mean nothing to this model (model, prompt, temperature),
    are ignored. Raises OptionError."""
    style = form.one("response_format") or "json"
    if style not in FORMATS:
        raise OptionError(f"response_format is {style!r}; it must be one of {', '.join(FORMATS)}")
    language = form.one("language")
    if language is None:
        candidates = []
        for name in form.many("languages"):
            with suppress(OptionError):
                candidates.append(service.known_language(name))
        language = ",".join(candidates) or service.language
    stream = (form.one("stream") or "").lower() in ("true", "1")
    vad = any(key.startswith("chunking_strategy") for key, _ in form.fields)
    # where somebody waits for each phrase, or reads its times
    pauses = Pauses() if stream or vad or style not in ("json", "text") else None
    granularities = form.many("timestamp_granularities")
    words = "word" in granularities and style not in ("json", "text") and not stream  # which have no place for them
    options = {"language": service.known_language(language), "pauses": pauses, "word_times": words}
    logprobs = "logprobs" in form.many("include")
    return _Wanted(options, style, stream, logprobs, "segment" in granularities)


def _failure(error: Exception, service: Service) -> JSONResponse:
    """The answer to a request that failed."""
    if isinstance(error, TooLarge):
        most = f"{service.max_upload / 1e6:g} MB"
        return error_response(413, f"the upload is larger than {most}", "file")
    if isinstance(error, Stalled):
        return error_response(408, "the rest of the request does not come")
    if isinstance(error, asyncio.TimeoutError):
        message = f"there was no answer within {service.timeout_s:g} s; the work was given up"
        return error_response(504, message, headers=_NOT_AGAIN)
    if isinstance(error, OptionError):
        return error_response(400, str(error), _param(str(error)))
    if isinstance(error, AudioError):
        return error_response(400, f"the file cannot be read as audio: {error}", "file")
    logger.error("a request failed", exc_info=error)
    message = str(error) if isinstance(error, CohereLiteError) else f"{type(error).__name__}"
    return error_response(500, message, headers=_NOT_AGAIN)


def _param(message: str) -> str | None:
    """The field that a message is about: its first word."""
    word = message.split()[0]
    return word if word in ("language", "response_format") else "file" if "file" in message else None


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
