"""A plain live protocol, for programs and for the page: /live?rate=16000&language=en

The client sends 16-bit little-endian mono samples as binary messages of any length, then the text message "end". The
server sends a line of JSON per phrase, as soon as it is over, {"start", "end", "text"} (seconds; with language=auto or
en,de also {"language", "language_probability"}), and at the end
{"done": true, "duration": seconds}; or {"error": ...}, which ends the session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from starlette.websockets import WebSocket

from ..codings import PCM, Coding, find_coding
from ..errors import AudioError, CohereLiteError, OptionError
from ..extras.phrases import Pauses
from .answers import found_language
from .edge import error_facts
from .models import Heard, Piece
from .service import Asked, Service
from .sockets import NORMAL, RESTARTS, Socket, serve_socket

_SAMPLES = find_coding(PCM, 16, 1, 2, "<")
LEAST_RATE, MOST_RATE = 8000, 192000
_PART_BYTES = 1 << 18


async def live(websocket: WebSocket) -> None:
    """The route."""
    service: Service = websocket.app.state.service
    await serve_socket(websocket, service, partial(_session, service, dict(websocket.query_params)))


async def _session(service: Service, query: dict[str, str], socket: Socket, asked: Asked) -> None:
    failures: list[Exception] = []

    def on_heard(piece: Piece, heard: Heard | Exception) -> None:
        if isinstance(heard, Exception):
            failures.append(heard)
        elif heard.segment.text.strip():
            times = {"start": round(heard.segment.start, 3), "end": round(heard.segment.end, 3)}
            _send(socket, **times, text=heard.segment.text.strip(), **found_language(heard.segment))

    try:
        language = service.known_language(query.get("language") or service.language)
        options = {"language": language, "pauses": Pauses()}
        recording = service.live(parse_rate(query.get("rate", "16000")), options, on_heard)
    except CohereLiteError as error:
        _send(socket, error=error_facts(400, str(error)))
        await socket.close(NORMAL)
        return

    async def finish() -> None:
        if recording.position_s >= 0.01:  # less is no sound
            await recording.finish()
        await socket.unless_gone(recording.all_heard())

    rest = b""  # half a sample
    try:
        try:
            while isinstance(message := await socket.receive(recording.push_nothing), bytes) and not failures:
                whole = rest + message
                rest = whole[len(whole) - len(whole) % 2 :]
                for part in in_parts(whole, _SAMPLES):
                    await socket.unless_gone(recording.push(_SAMPLES.decode(part)))
                asked.audio_s = recording.position_s
        except asyncio.TimeoutError:  # what was said before is still told
            await finish()
            raise
        await finish()
        for failure in failures[:1]:
            _send(socket, error=error_facts(500, str(failure)))
        if not failures:
            _send(socket, done=True, duration=round(recording.position_s, 3))
    except AudioError as error:
        _send(socket, error=error_facts(400, str(error)))
    finally:
        recording.cancel()
    await socket.close(RESTARTS if message is None else NORMAL)


def in_parts(data: bytes, coding: Coding) -> Iterator[bytes]:
    """Whole frames, at most _PART_BYTES at once: what works on them takes memory in proportion."""
    n_whole = len(data) // coding.block_bytes * coding.block_bytes
    step = _PART_BYTES // coding.block_bytes * coding.block_bytes
    for start in range(0, n_whole, step):
        yield data[start : min(start + step, n_whole)]


def parse_rate(text: str) -> int:
    """Of samples, in Hz. Raises OptionError."""
    if not text.isdecimal() or len(text) > 6 or not LEAST_RATE <= int(text) <= MOST_RATE:
        raise OptionError(f"rate is {text[:20]!r}; it must be {LEAST_RATE} to {MOST_RATE} Hz")
    return int(text)


def _send(socket: Socket, **facts: Any) -> None:
    socket.send(json.dumps(facts, ensure_ascii=False) + "\n")
