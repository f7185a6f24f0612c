"""POST /render: segments as the page has them -> subtitles."""

from __future__ import annotations

import asyncio
import json
from itertools import takewhile
from threading import Event

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import OptionError
from ..extras.formats import render
from ..transcript import Segment
from .answers import FORMATS
from .edge import counted_body, unless_gone
from .requests import AdmittedRoute
from .service import Asked, Service

_MOST_BYTES = 2_000_000  # of JSON: 15 hours of speech
_MOST_CHARACTERS = 10_000  # of a segment, which has 35 s: in the middle of one nothing stops the work
_EXPECTED = 'expected {"format", "language", "segments": [{"start", "end", "text"}]}'


class Rendering(AdmittedRoute):
    """One at a time, in a thread of its own: some subtitles take a second or more."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, "/render")

    async def _serve(self, scope: Scope, receive: Receive, send: Send, asked: Asked) -> None:
        async def read() -> bytes:
            return b"".join([part async for part in counted_body(Request(scope).headers, receive, _MOST_BYTES)])

        is_over = Event()
        body = await self._received(read())
        rendering = asyncio.get_running_loop().run_in_executor(
            self._service.rendering_thread, _subtitles, body, is_over
        )
        try:
            response = await unless_gone(receive, rendering)
        finally:
            is_over.set()
        await response(scope, receive, send)


def _subtitles(body: bytes, is_over: Event) -> Response:
    """is_over: nobody waits for them any more. Raises OptionError."""
    try:
        asked = json.loads(body)
        style, segments, end = asked["format"], [], 0.0
        for s in asked["segments"]:
            segment = Segment(float(s["start"]), float(s["end"]), str(s["text"]), (), None, None, False, False, False)
            if not end <= segment.start <= segment.end or len(segment.text) > _MOST_CHARACTERS:
                raise OptionError(
                    f"a segment of {len(segment.text)} characters from {segment.start} to {segment.end} s after one to "
                    f"{end} s; segments must be in order, without overlaps, of at most {_MOST_CHARACTERS} characters"
                )
            segments.append(segment)
            end = segment.end
        parts = takewhile(lambda part: not is_over.is_set(), render(style, segments, str(asked.get("language"))))
        return Response("".join(parts), media_type=FORMATS.get(style, "text/plain; charset=utf-8"))
    except OptionError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise OptionError(_EXPECTED) from error
