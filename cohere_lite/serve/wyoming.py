"""Home Assistant's protocol, Wyoming: describe -> info; transcribe, audio-start, audio-chunk ..., audio-stop ->
transcript. The package `wyoming` has the events; its reader takes events of any size into memory and raises what it
meets, and its run() drops work at SIGTERM, so that reading and serving are here."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from .. import __version__
from ..codings import PCM, find_coding
from ..errors import AudioError, CohereLiteError, OptionError
from .answers import Deltas
from .live import in_parts, parse_rate
from .log import log
from .models import Heard, Piece
from .recordings import LiveRecording
from .service import Asked, Refused, Service

_LINE_BYTES, _DATA_BYTES, _PAYLOAD_BYTES = 1 << 16, 1 << 20, 1 << 24
_SILENT_S = 30.0  # in the middle of a recording, or from an event's first byte to its last: then it is over
_IDLE_S = 600.0  # between recordings
_LOOK_S = 0.2  # whether the client is still there
_MOST_CONNECTIONS = 512
_ANY_HOSTS = ("0.0.0.0", "::", "")
_PROJECT = Attribution("Cohere Labs (model), cohere_lite (runtime)", "https://huggingface.co/CohereLabs")


class BadEvent(Exception):
    """What came is no event, or too large a one."""


class WyomingServer:
    """Serves connections until it is stopped."""

    def __init__(self, service: Service, uri: str) -> None:
        """uri: tcp://HOST:PORT or unix://PATH. Raises OptionError."""
        self._service = service
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        split = urlsplit(uri)
        try:
            self.host, self.port, self._path = split.hostname or "", split.port, split.path
        except ValueError:
            self.host, self.port, self._path = "", None, ""
        if split.scheme == "unix" and split.netloc:
            raise OptionError(
                f"--wyoming is {uri!r}; for the socket {split.netloc}{split.path} from the root on it is "
                f"unix:///{split.netloc}{split.path}"
            )
        if not (split.scheme == "tcp" and self.host and self.port is not None) and not (
            split.scheme == "unix" and self._path
        ):
            raise OptionError(f"--wyoming is {uri!r}; it must be tcp://HOST:PORT or unix://PATH")
        self._is_unix = split.scheme == "unix"

    async def start(self) -> None:
        """Raises OSError for an address that is taken."""
        if self._is_unix:
            self._server = await asyncio.start_unix_server(self._connected, self._path, limit=_LINE_BYTES)
        else:
            self._server = await asyncio.start_server(self._connected, self.host, self.port, limit=_LINE_BYTES)
            self.port = self._server.sockets[0].getsockname()[1]
        host = f"[{self.host}]" if ":" in self.host else self.host
        log("listening", url=f"unix://{self._path}" if self._is_unix else f"tcp://{host}:{self.port}")

    async def announce(self, name: str) -> Callable[[], Awaitable[None]]:
        """By zeroconf, so that Home Assistant finds the service; gives what ends it. Raises OptionError."""
        try:
            from zeroconf import Error as ZeroconfError
            from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
        except ImportError as error:
            raise OptionError(f"--zeroconf needs more: pip install 'cohere-lite[wyoming]' ({error})") from error
        if self._is_unix:
            raise OptionError("--zeroconf announces a port, and --wyoming is a unix socket")
        kind = "_wyoming._tcp.local."
        address = socket.inet_aton(_own_address() if self.host in _ANY_HOSTS else socket.gethostbyname(self.host))
        zeroconf = AsyncZeroconf()
        try:
            service = AsyncServiceInfo(kind, f"{name}.{kind}", addresses=[address], port=self.port)
            await zeroconf.async_register_service(service)
        except (ZeroconfError, ValueError) as error:  # a name that is taken, or that DNS does not allow
            await zeroconf.async_close()
            raise OptionError(
                f"--zeroconf {name!r} cannot be announced: {str(error) or type(error).__name__}"
            ) from error
        return zeroconf.async_close

    def stop_listening(self) -> None:
        """No more connections; what is being said is still answered (Service.drain)."""
        self._server.close()

    async def close(self) -> None:
        """Ends what is left."""
        self._server.close()
        for task in [*self._connections]:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        if len(self._connections) >= _MOST_CONNECTIONS or self._service.stopping.is_set():
            writer.close()
            return
        self._connections[task] = writer
        try:
            await _Connection(self._service, reader, writer).run()
        except (OSError, EOFError, asyncio.CancelledError, asyncio.TimeoutError):
            pass  # the client is gone, or does not read, or the server ends
        finally:
            self._connections.pop(task, None)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


def _own_address() -> str:
    """Of this machine, as other machines in the network see it; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.connect(("224.0.0.251", 1))  # mDNS
        return str(any_socket.getsockname()[0])


class _Connection:
    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service, self._reader, self._writer = service, reader, writer
        self._language: object = None  # as it was asked for

    async def run(self) -> None:
        """Until the client leaves, sends what is no event, or the server stops."""
        while True:
            try:
                event = await self._service.unless_stopping(read_event(self._reader, _IDLE_S, keep=False))
                if event is None:
                    return
                if AudioStart.is_type(event.type):
                    await self._serve()
                elif AudioChunk.is_type(event.type):
                    await self._refuse("an audio-chunk without an audio-start before it", "bad-order")
                elif AudioStop.is_type(event.type):  # of nothing
                    await self._write_transcript(None, "")
                else:
                    await self._answer(event)
            except (BadEvent, UnicodeError) as error:  # UnicodeError: a ping with half a character, which we would send
                await self._write(Error(str(error), "bad-event"))
                return

    async def _answer(self, event: Event) -> None:
        """What may come at any time. Other events are ignored."""
        if Describe.is_type(event.type):
            await self._write(info(self._service))
        elif Ping.is_type(event.type):
            await self._write(Pong(text=event.data.get("text")))
        elif Transcribe.is_type(event.type):
            self._language = event.data.get("language")

    async def _serve(self) -> None:
        """A recording, up to its transcript. Home Assistant waits for one without end, so that there always is one."""
        try:
            with self._service.admitted("wyoming") as asked:
                first = await self._next_chunk()  # before which its language may come
                try:
                    language = self._service.known_language(str(self._language or self._service.language))
                except OptionError as error:
                    asked.status = "400"
                    await self._refuse(str(error), "language", is_over=first is None)
                    return
                deltas = await self._hear(first, language, asked)
                await self._write_transcript(self._service.named(deltas.language), deltas.text, has_begun=True)
                asked.status = "answered"
        except Refused as refusal:
            await self._refuse(str(refusal), str(refusal.status))

    async def _refuse(self, message: str, code: str, is_over: bool = False) -> None:
        """A recording, to its end: its audio-stop must not be taken for that of another one. is_over: it has come."""
        await self._write(Error(message, code))
        while not is_over and await self._next_chunk(keep=False):
            pass
        await self._write_transcript(None, "")

    async def _hear(self, event: Event | None, language: str, asked: Asked) -> Deltas:
        """From the first chunk to audio-stop, or where nothing comes any more. It is cut as files are, not at pauses: a
        command of a few seconds stays whole, and its text is what the file's would be."""
        deltas, failures = Deltas(language), list[Exception]()
        heard_texts: asyncio.Queue[str] = asyncio.Queue()

        def on_heard(piece: Piece, heard: Heard | Exception) -> None:
            if isinstance(heard, Exception):
                failures.append(heard)
            elif delta := deltas.add(heard.segment):
                heard_texts.put_nowait(delta)

        async def write_all() -> None:
            while not heard_texts.empty():
                await self._write(TranscriptChunk(heard_texts.get_nowait()))

        await self._write(TranscriptStart(language=self._service.named(language)))
        recording: LiveRecording | None = None
        chunk_format: tuple[int, int, int] | None = None
        rest = b""  # of a frame
        try:
            while event:
                found = _format(event)
                if recording is None:
                    chunk_format = found
                    recording = self._service.live(found[0], {"language": language}, on_heard)
                if found != chunk_format:
                    raise BadEvent("an audio-chunk of another rate, width or number of channels than the one before")
                coding = find_coding(PCM, 8 * found[1], found[2], found[1] * found[2], "<")
                sound = rest + (event.payload or b"")
                rest = sound[len(sound) - len(sound) % coding.block_bytes :]
                for part in in_parts(sound, coding):
                    await self._unless_gone(recording.push(coding.decode(part)))
                asked.audio_s = recording.position_s
                await write_all()
                event = await self._next_chunk()
            if recording:
                with suppress(AudioError):  # less than 10 ms: nothing was said
                    await recording.finish()
                await self._unless_gone(recording.all_heard())
                await write_all()
        except CohereLiteError as error:
            failures.append(error)
        finally:
            if recording:
                recording.cancel()
        for failure in failures[:1]:
            asked.status = "failed"
            await self._write(Error(str(failure)))
        return deltas

    async def _next_chunk(self, keep: bool = True) -> Event | None:
        """None at audio-stop, where nothing comes for too long, or when the server stops: then the recording is what
        there is. keep: its sound, too. Raises EOFError."""
        while True:
            try:
                event = await self._service.unless_stopping(read_event(self._reader, _SILENT_S, keep))
            except asyncio.TimeoutError:
                return None
            if event is None or AudioStop.is_type(event.type):
                return None
            if AudioChunk.is_type(event.type):
                return event
            await self._answer(event)

    async def _unless_gone(self, work: Awaitable[object]) -> None:
        """Waits for it. Raises EOFError when the client leaves before. Not by reading: the next event may be there."""
        working = asyncio.ensure_future(work)
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=_LOOK_S)
                if self._reader.at_eof():
                    raise EOFError
            working.result()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _write_transcript(self, language: str | None, text: str, has_begun: bool = False) -> None:
        """In the order of the protocol: start, chunks, the transcript for all clients, stop."""
        if not has_begun:
            await self._write(TranscriptStart(language=language))
        await self._write(Transcript(text, language=language))
        await self._write(TranscriptStop())

    async def _write(self, event: Eventable) -> None:
        await asyncio.wait_for(async_write_event(event.event(), self._writer), _SILENT_S)


async def read_event(reader: asyncio.StreamReader, idle_s: float, keep: bool) -> Event:
    """The next event, of bounded size. idle_s: that it may be waited for;  keep: its payload. Raises BadEvent;
    TimeoutError; EOFError at the end, also inside of an event."""
    first = await asyncio.wait_for(reader.readexactly(1), idle_s)
    return await asyncio.wait_for(_rest_of_event(reader, first, keep), _SILENT_S)


async def _rest_of_event(reader: asyncio.StreamReader, first: bytes, keep: bool) -> Event:
    try:
        line = first + await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise BadEvent(f"a line of more than {_LINE_BYTES} bytes") from None
    header = _parse(line)
    kind, data = header.get("type"), header.get("data")
    if not isinstance(kind, str) or not isinstance(data, (dict, type(None))):
        raise BadEvent("an event without a type, or whose data is no object")
    n_data, n_payload = (_length(header, name, most) for name, most in _LENGTHS.items())
    more = _parse(await reader.readexactly(n_data)) if n_data else {}
    payload = await reader.readexactly(n_payload) if keep else None
    for i in range(0, 0 if keep else n_payload, _LINE_BYTES):
        await reader.readexactly(min(_LINE_BYTES, n_payload - i))
    return Event(kind, {**(data or {}), **more}, payload)


_LENGTHS = {"data_length": _DATA_BYTES, "payload_length": _PAYLOAD_BYTES}


def _length(header: dict[str, Any], name: str, most: int) -> int:
    length = header.get(name) or 0
    if type(length) is not int or not 0 <= length <= most:
        raise BadEvent(f"{name} is {str(length)[:40]}; it must be a number up to {most}")
    return length


def _parse(data: bytes) -> dict[str, Any]:
    parsed: object = None
    with suppress(ValueError, RecursionError):
        parsed = json.loads(data)
    if not isinstance(parsed, dict):
        raise BadEvent("not a JSON object")
    return parsed


def _format(event: Event) -> tuple[int, int, int]:
    """Rate, bytes of a sample, channels."""
    rate, width, channels = (event.data.get(name) for name in ("rate", "width", "channels"))
    if not (type(width) is type(channels) is int and 1 <= width <= 4 and 1 <= channels <= 16):
        raise BadEvent(f"an audio-chunk of width {width!r} and {channels!r} channels; expected 1 to 4 and 1 to 16")
    try:
        return parse_rate(str(rate)), width, channels
    except OptionError as error:
        raise BadEvent(str(error)) from None


def info(service: Service) -> Info:
    """What this service has. Home Assistant reads asr[0] alone, and of it the languages of installed models."""
    name, languages = service.model_id, [*service.transcriber.languages]
    facts: dict[str, Any] = {"attribution": _PROJECT, "installed": True, "version": __version__}
    model = AsrModel(name=name, description=f"Cohere Transcribe ({name})", languages=languages, **facts)
    program = AsrProgram(
        name="cohere-lite",
        description="Cohere Transcribe on numpy and onnxruntime",
        models=[model],
        supports_transcript_streaming=True,
        **facts,
    )
    return Info(asr=[program])
