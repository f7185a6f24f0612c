"""OpenAI's realtime protocol, of it what transcription sessions use: /v1/realtime?intent=transcription

The client appends base64 samples to a buffer. With turn detection ("server_vad", the default) each phrase becomes an
item when the speaker pauses; without it, when the client commits the buffer. Every item is answered with deltas and one
`completed`. A client's mistake gets an `error` event, and the session goes on. Also understood: the form of the
protocol before August 2025 (transcription_session.update), with its names in the answers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

from starlette.websockets import WebSocket

from ..codings import A_LAW, MU_LAW, PCM, find_coding
from ..errors import AudioError, CohereLiteError, OptionError
from ..extras.phrases import Pauses
from .answers import Deltas, duration_usage, token_logprobs
from .edge import error_facts
from .live import in_parts, parse_rate
from .models import Heard, Piece
from .recordings import LIVE_S, LiveRecording
from .service import Asked, Service
from .sockets import RESTARTS, Socket, serve_socket

_LEAST_COMMIT_S = 0.1  # as OpenAI's
_FORMATS = {"audio/pcm": (PCM, 16), "audio/pcmu": (MU_LAW, 8), "audio/pcma": (A_LAW, 8)}
_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
_LOGPROBS = "item.input_audio_transcription.logprobs"


async def realtime(websocket: WebSocket) -> None:
    """The route."""
    service: Service = websocket.app.state.service
    is_beta = "openai-beta" in websocket.headers or any("beta" in name for name in websocket.scope["subprotocols"])

    async def session(socket: Socket, asked: Asked) -> None:
        await _Session(service, socket, asked, is_beta).run()

    await serve_socket(websocket, service, session)


class _Item:
    """What was committed, or will be: its pieces are on their way to the model."""

    def __init__(self, language: str) -> None:
        self.id = _new_id("item")
        self.deltas = Deltas(language)
        self.heard: list[Heard] = []
        self.seconds = 0.0
        self.n_waiting = 0
        self.is_committed = False


class _Session:
    def __init__(self, service: Service, socket: Socket, asked: Asked, is_beta: bool) -> None:
        self._service, self._socket, self._asked, self._is_beta = service, socket, asked, is_beta
        self._id = _new_id("sess")
        self._language = service.language
        self._format, self._rate = "audio/pcm", 24000
        self._vad: dict[str, Any] | None = dict(_VAD)
        self._logprobs = False
        self._recordings: list[LiveRecording] = []  # the last is being pushed; of the others, something may be heard
        self._items: dict[int, tuple[Piece, _Item]] = {}  # by the piece's identity
        self._open: _Item | None = None  # begun and not committed
        self._last_item: str | None = None
        self._start_s = 0.0  # of the recording that is being pushed
        self._committed_s = 0.0  # of the session's sound, the end of what was committed or cleared
        self._rest = b""

    async def run(self) -> None:
        """Until the client leaves or the server stops."""
        self._send(self._name("created"), session=self._facts())
        try:
            self._begin()
            try:
                while (message := await self._socket.receive(self._idle)) is not None:
                    await self._handle(message)
            except asyncio.TimeoutError:  # what was said before is still told
                await self._finish()
                raise
            await self._finish()
            await self._socket.close(RESTARTS)
        finally:
            self._asked.audio_s = self._position_s
            for recording in self._recordings:
                recording.cancel()

    async def _idle(self) -> None:
        self._tell_phrases(await self._recordings[-1].push_nothing())

    async def _finish(self) -> None:
        await self._commit_rest()
        for recording in self._recordings:
            await self._socket.unless_gone(recording.all_heard())

    async def _handle(self, message: str | bytes) -> None:
        event: Any = None
        try:
            with suppress(ValueError, RecursionError):
                event = json.loads(message)
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                raise OptionError("a message must be a JSON object with a type")
            handlers = {
                "session.update": self._update,
                "transcription_session.update": self._update,
                "input_audio_buffer.append": self._append,
                "input_audio_buffer.commit": self._commit_asked,
                "input_audio_buffer.clear": self._clear,
            }
            if event["type"] not in handlers:
                raise OptionError(f"{event['type']!r} is not known: this server has transcription sessions only")
            await handlers[event["type"]](event)
        except CohereLiteError as error:
            code = "input_audio_buffer_commit_empty" if isinstance(error, _Empty) else None
            facts = error_facts(400 if isinstance(error, (OptionError, AudioError)) else 500, str(error), code=code)
            about = event.get("event_id") if isinstance(event, dict) else None
            self._send("error", error={**facts, "event_id": about})

    async def _update(self, event: dict[str, Any]) -> None:
        """Raises OptionError; then nothing is changed."""
        asked = _dict(event.get("session"))
        if event["type"] == "session.update" and asked.get("type", "transcription") != "transcription":
            raise OptionError(f"session.type is {asked['type']!r}; this server has 'transcription' only")
        given = _dict(_dict(asked.get("audio")).get("input"))
        if "input_audio_format" in asked:
            name = _BETA_FORMATS.get(str(asked["input_audio_format"]), "")
            given["format"] = {"type": name or asked["input_audio_format"]}
        given |= {"transcription": asked["input_audio_transcription"]} if "input_audio_transcription" in asked else {}
        given |= {"turn_detection": asked["turn_detection"]} if "turn_detection" in asked else {}
        format_, rate = self._format, self._rate
        if given.get("format"):
            format_ = str(_dict(given["format"]).get("type"))
            if format_ not in _FORMATS:
                raise OptionError(f"the format is {format_!r}; it must be one of {', '.join(_FORMATS)}")
            rate = parse_rate(str(_dict(given["format"]).get("rate") or (24000 if format_ == "audio/pcm" else 8000)))
        language, transcription = self._language, _dict(given.get("transcription"))
        if named := transcription.get("language") or ",".join(map(str, _list(transcription.get("languages")))):
            language = self._service.known_language(str(named))
        vad = self._vad
        if "turn_detection" in given:
            vad = None if given["turn_detection"] is None else {**_VAD, **_dict(given["turn_detection"])}
            _pauses(vad)
        if (language, format_, rate, vad) != (self._language, self._format, self._rate, self._vad):
            await self._commit_rest()  # what was said before, with what was asked for then
            self._language, self._format, self._rate, self._vad = language, format_, rate, vad
            self._begin()
        if "include" in asked:
            self._logprobs = _LOGPROBS in _list(asked["include"])
        self._send(self._name("updated"), session=self._facts())

    def _begin(self) -> None:
        """A new recording, from here on."""
        self._start_s = self._position_s
        self._committed_s, self._rest = self._start_s, b""
        options = {"language": self._language, "pauses": _pauses(self._vad), "start": self._start_s}
        self._recordings = [recording for recording in self._recordings if recording.n_waiting]
        self._recordings.append(self._service.live(self._rate, options, self._heard))
        format_tag, bits = _FORMATS[self._format]
        self._coding = find_coding(format_tag, bits, 1, bits // 8, "<")

    @property
    def _position_s(self) -> float:
        """Seconds of sound that have come in the session."""
        return max(self._start_s, self._recordings[-1].position_s) if self._recordings else 0.0

    async def _append(self, event: dict[str, Any]) -> None:
        try:
            sound = self._rest + base64.b64decode(event.get("audio"), validate=True)  # type: ignore[arg-type]
        except (binascii.Error, TypeError, ValueError) as error:
            raise OptionError(f"audio is not base64: {error}") from error
        self._rest = sound[len(sound) - len(sound) % self._coding.block_bytes :]
        for recording in self._recordings[:-1]:  # of a client that commits often; the last one bounds itself
            if sum(recording.waiting_s for recording in self._recordings) > LIVE_S:
                await self._socket.unless_gone(recording.all_heard())
        for part in in_parts(sound, self._coding):
            pushing = self._recordings[-1].push(self._coding.decode(part))
            self._tell_phrases(await self._socket.unless_gone(pushing))
        self._asked.audio_s = self._position_s

    def _tell_phrases(self, pieces: list[Piece]) -> None:
        """Awaits nothing: what is heard must not be told before what is committed."""
        if not self._vad:
            for piece in pieces:
                self._add(self._open or self._open_item(), piece)
            return
        for piece in pieces:
            if piece.seconds:
                item = self._open or self._speech_started(piece.start_s)
                self._add(item, piece)
                self._send("input_audio_buffer.speech_stopped", audio_end_ms=_ms(piece.end_s), item_id=item.id)
                self._committed(item)
            self._committed_s = piece.end_s
        if self._recordings[-1].is_speech and not self._open:
            self._speech_started(self._committed_s)

    def _open_item(self) -> _Item:
        self._open = _Item(self._language)
        return self._open

    def _speech_started(self, start_s: float) -> _Item:
        item = self._open_item()
        self._send("input_audio_buffer.speech_started", audio_start_ms=_ms(start_s), item_id=item.id)
        return item

    def _add(self, item: _Item, piece: Piece) -> None:
        item.n_waiting += 1
        item.seconds += piece.end_s - piece.start_s
        self._items[id(piece)] = piece, item

    async def _commit_asked(self, event: dict[str, Any]) -> None:
        held_s = self._position_s - self._committed_s
        if held_s < _LEAST_COMMIT_S:
            raise _Empty(
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer "
                f"only has {1000 * held_s:.2f}ms of audio."
            )
        self._commit(await self._last_pieces())
        self._begin()

    async def _commit_rest(self) -> None:
        """What has come since the last commit, unless it is next to nothing, or with turn detection silence."""
        held_s, pieces = self._position_s - self._committed_s, await self._last_pieces()
        is_speech = any(piece.seconds for piece in pieces) if self._vad else held_s >= _LEAST_COMMIT_S
        if self._open or is_speech:
            self._commit(pieces)

    async def _last_pieces(self) -> list[Piece]:
        with suppress(AudioError):  # less than 10 ms
            return await self._recordings[-1].finish()
        return []

    def _commit(self, pieces: list[Piece]) -> None:
        """With them, what has come since the last commit becomes an item."""
        item = self._open or self._open_item()
        for piece in pieces:
            self._add(item, piece)
        self._committed(item)

    def _committed(self, item: _Item) -> None:
        item.is_committed = True
        self._open = None
        self._send("input_audio_buffer.committed", item_id=item.id, previous_item_id=self._last_item)
        self._last_item = item.id
        self._complete(item)

    async def _clear(self, event: dict[str, Any]) -> None:
        if self._open:  # what was cut of it is heard, and told to nobody
            self._drop(self._open)
            self._open = None
        self._begin()
        self._send("input_audio_buffer.cleared")

    def _heard(self, piece: Piece, heard: Heard | Exception) -> None:
        if id(piece) not in self._items:
            return
        _, item = self._items.pop(id(piece))
        item.n_waiting -= 1
        transcription = "conversation.item.input_audio_transcription"
        if isinstance(heard, Exception):
            self._drop(item)
            error = error_facts(500, str(heard))
            self._send(f"{transcription}.failed", item_id=item.id, content_index=0, error=error)
            return
        item.heard.append(heard)
        if delta := item.deltas.add(heard.segment):
            more = {"logprobs": token_logprobs([heard])} if self._logprobs else {}
            self._send(f"{transcription}.delta", item_id=item.id, content_index=0, delta=delta, **more)
        self._complete(item)

    def _drop(self, item: _Item) -> None:
        self._items = {key: (piece, other) for key, (piece, other) in self._items.items() if other is not item}

    def _complete(self, item: _Item) -> None:
        if item.is_committed and not item.n_waiting:
            more = {"logprobs": token_logprobs(item.heard)} if self._logprobs else {}
            self._send(
                "conversation.item.input_audio_transcription.completed",
                **{"item_id": item.id, "content_index": 0, "transcript": item.deltas.text},
                **{"usage": duration_usage(item.seconds), **more},
            )

    def _facts(self) -> dict[str, Any]:
        transcription = {"model": self._service.model_id, "language": self._language, "prompt": ""}
        facts: dict[str, Any] = {"id": self._id, "object": "realtime.transcription_session", "expires_at": 0}
        include = [_LOGPROBS] if self._logprobs else None
        if self._is_beta:
            names = {new: old for old, new in _BETA_FORMATS.items()}
            facts |= {"input_audio_format": names[self._format], "input_audio_transcription": transcription}
            return facts | {"turn_detection": self._vad, "include": include}
        format_ = {"type": self._format} | ({"rate": self._rate} if self._format == "audio/pcm" else {})
        sound = {"format": format_, "transcription": transcription, "noise_reduction": None}
        facts |= {"audio": {"input": sound | {"turn_detection": self._vad}}}
        return facts | {"type": "transcription", "include": include}

    def _name(self, what: str) -> str:
        return f"{'transcription_' if self._is_beta else ''}session.{what}"

    def _send(self, kind: str, **facts: Any) -> None:
        # in ASCII: half a character, as JSON may have it, could not be sent
        self._socket.send(json.dumps({"type": kind, "event_id": _new_id("event"), **facts}))


class _Empty(OptionError):
    """There is nothing to commit."""


def _pauses(vad: dict[str, Any] | None) -> Pauses | None:
    """Raises OptionError."""
    if vad is None:
        return None
    with suppress(TypeError, ValueError, OverflowError):  # the last of a number of 400 digits
        return Pauses(min_pause_s=min(max(float(vad["silence_duration_ms"]) / 1000, 0.1), 30.0))
    found = str(vad["silence_duration_ms"])[:20]
    raise OptionError(f"silence_duration_ms is {found!r}; it must be a number of milliseconds")


def _dict(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid4().hex[:24]}"


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
