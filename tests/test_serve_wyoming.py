"""Home Assistant's protocol, by the package's own client and by bytes that it would not send."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from conftest import until

for needed in ("starlette", "uvicorn", "websockets", "python_multipart", "wyoming", "httpx"):
    pytest.importorskip(needed)

from serving import SAID, Server, repeated, samples, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports audioop, which Python 3.13 has not
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.asr import Transcribe, Transcript
from wyoming.client import AsyncTcpClient
from wyoming.event import Event, async_write_event
from wyoming.info import Describe, Info
from wyoming.ping import Ping

from cohere_lite.serve import wyoming

pytestmark = pytest.mark.folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--wyoming", "tcp://127.0.0.1:0") as server:
        yield server


def connected(server: Server) -> AsyncTcpClient:
    return AsyncTcpClient("127.0.0.1", server.wyoming_port)


async def read(client: AsyncTcpClient, last: str) -> list[Event]:
    """Events up to one of this type; fewer if the connection ends before."""
    events: list[Event] = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if event.type == last:
            break
    return events


async def send_sound(
    client: AsyncTcpClient, sound: np.ndarray, rate: int = 16000, width: int = 2, channels: int = 1
) -> None:
    facts = {"rate": rate, "width": width, "channels": channels}
    await client.write_event(AudioStart(**facts).event())
    data = sound.tobytes()
    step = 1024 * width * channels  # as Home Assistant
    for i in range(0, len(data), step):
        await client.write_event(AudioChunk(audio=data[i : i + step], **facts).event())
    await client.write_event(AudioStop().event())


async def ask(server: Server, sound: np.ndarray, language: str | None = "en", **facts: int) -> list[Event]:
    async with connected(server) as client:
        await client.write_event(Transcribe(language=language).event())
        await send_sound(client, sound, **facts)
        return await read(client, "transcript-stop")


def test_describe(server: Server) -> None:
    async def describe() -> Info:
        async with connected(server) as client:
            await client.write_event(Describe().event())
            return Info.from_event((await read(client, "info"))[0])

    info = asyncio.run(describe())
    (program,) = info.asr
    (model,) = program.models
    assert (program.installed, model.installed, model.languages) == (True, True, ["de", "en", "es", "fr"])
    assert program.supports_transcript_streaming
    assert all((program.name, program.attribution.name, program.attribution.url, program.description, program.version))
    assert not any((info.tts, info.wake, info.handle, info.intent))


@pytest.mark.parametrize("language", ["en", "en-US", None])
def test_a_command(server: Server, language: str | None) -> None:
    events = asyncio.run(ask(server, samples(), language))
    assert [event.type for event in events] == [
        "transcript-start",
        "transcript-chunk",
        "transcript",
        "transcript-stop",
    ]
    assert events[1].data["text"] == events[2].data["text"] == SAID
    assert events[2].data["language"] == "en"


def test_pauses_do_not_cut_a_command(server: Server) -> None:
    """It is one piece, as a file of its length is."""
    from cohere_lite import Transcriber

    sound = repeated(2)
    expected = Transcriber(threads=1).transcribe(sound, rate=16000)
    assert len(expected.segments) == 1
    assert asyncio.run(ask(server, sound))[-2].data["text"] == expected.text


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(48000, 2, 1), (16000, 4, 1), (16000, 2, 2), (8000, 2, 1)], ids=str
)
def test_other_formats(server: Server, rate: int, width: int, channels: int) -> None:
    sound = samples()
    if rate > 16000:
        sound = np.repeat(sound, rate // 16000)
    if rate < 16000:
        sound = sound.reshape(-1, 2).mean(axis=1).astype("<i2")
    if width == 4:
        sound = sound.astype("<i4") << 16
    sound = np.repeat(sound[:, None], channels, axis=1)
    events = asyncio.run(ask(server, sound, rate=rate, width=width, channels=channels))
    assert events[-2].data["text"] == SAID


@pytest.mark.parametrize(("n_bytes", "channels"), [(255, 1), (1023, 1), (4095, 2)])
def test_chunks_that_end_inside_of_a_frame(server: Server, n_bytes: int, channels: int) -> None:
    """Nothing of the recording is lost: the end of a frame comes with the next chunk."""
    facts = {"rate": 16000, "width": 2, "channels": channels}
    data = np.repeat(samples()[:, None], channels, axis=1).tobytes()

    async def talk() -> str:
        async with connected(server) as client:
            await client.write_event(AudioStart(**facts).event())
            for i in range(0, len(data), n_bytes):
                await client.write_event(AudioChunk(audio=data[i : i + n_bytes], **facts).event())
            await client.write_event(AudioStop().event())
            return (await read(client, "transcript-stop"))[-2].data["text"]

    assert asyncio.run(talk()) == SAID


def test_chunks_without_a_start(server: Server) -> None:
    """They are refused once, and their stop is answered; what is said next gets its own transcript."""
    facts = {"rate": 16000, "width": 2, "channels": 1}

    async def talk() -> tuple[list[Event], list[Event]]:
        async with connected(server) as client:
            for _ in range(3):
                await client.write_event(AudioChunk(audio=bytes(100_000), **facts).event())
            await client.write_event(AudioStop().event())
            refused = await read(client, "transcript-stop")
            await send_sound(client, samples())
            return refused, await read(client, "transcript-stop")

    refused, heard = asyncio.run(talk())
    assert [event.type for event in refused] == ["error", "transcript-start", "transcript", "transcript-stop"]
    assert "without an audio-start" in refused[0].data["text"]
    assert heard[-2].data["text"] == SAID


def test_a_language_and_a_ping_in_a_recording(server: Server) -> None:
    """The language may come after audio-start; a ping is answered at once."""

    async def talk() -> list[Event]:
        async with connected(server) as client:
            await client.write_event(AudioStart(rate=16000, width=2, channels=1).event())
            await client.write_event(Ping(text="x").event())
            events = await read(client, "pong")
            await client.write_event(Transcribe(language="de").event())
            await client.write_event(AudioChunk(rate=16000, width=2, channels=1, audio=samples().tobytes()).event())
            await client.write_event(AudioStop().event())
            return events + await read(client, "transcript-stop")

    pong, *_, transcript, _ = asyncio.run(talk())
    assert (pong.type, pong.data["text"]) == ("pong", "x")
    assert transcript.data["language"] == "de"


def test_stop_without_a_chunk(server: Server) -> None:
    """Home Assistant's voice detection may end before it began. It waits for a transcript without end."""

    async def stop(with_start: bool) -> list[Event]:
        async with connected(server) as client:
            await client.write_event(Transcribe(language="en").event())
            if with_start:
                await client.write_event(AudioStart(rate=16000, width=2, channels=1).event())
            await client.write_event(AudioStop().event())
            return await read(client, "transcript-stop")

    for with_start in (True, False):
        events = asyncio.run(stop(with_start))
        assert [event.data.get("text") for event in events if Transcript.is_type(event.type)] == [""]


def test_silence(server: Server) -> None:
    events = asyncio.run(ask(server, np.zeros(16000, np.int16)))
    assert [event.type for event in events] == ["transcript-start", "transcript", "transcript-stop"]
    assert events[1].data["text"] == ""


@pytest.mark.parametrize("language", ["xx", 5, {"a": 1}], ids=str)
def test_a_language_that_is_not_known(server: Server, language: object) -> None:
    """Answered once; what is said next on the connection gets its own transcript."""

    async def talk() -> list[list[Event]]:
        async with connected(server) as client:
            answers = []
            for asked, sound in ((language, samples()[:0]), (language, samples()), ("en", samples())):
                await client.write_event(Transcribe(language=asked).event())  # type: ignore[arg-type]
                await send_sound(client, sound)
                answers.append(await read(client, "transcript-stop"))
            return answers

    *all_refused, heard = asyncio.run(talk())
    for refused in all_refused:
        assert [event.type for event in refused] == ["error", "transcript-start", "transcript", "transcript-stop"]
        assert "this model knows de, en, es, fr" in refused[0].data["text"]
        assert refused[2].data["text"] == ""
    assert heard[-2].data["text"] == SAID


def test_two_commands_on_one_connection(server: Server) -> None:
    async def talk() -> list[str]:
        texts = []
        async with connected(server) as client:
            for _ in range(2):
                await client.write_event(Event("select-program", {"name": "cohere-lite"}))
                await client.write_event(Event("something-new", {"a": 1}))
                await client.write_event(Transcribe(language="en").event())
                await send_sound(client, samples())
                texts.append((await read(client, "transcript-stop"))[-2].data["text"])
            await client.write_event(Ping(text="x").event())
            texts += [event.type for event in await read(client, "pong")]
        return texts

    assert asyncio.run(talk()) == [SAID, SAID, "pong"]


def test_many_at_once_and_info_within_a_second(server: Server) -> None:
    """Home Assistant waits a second for info: also while the model is at work. Median of 20: one of them may be late
    on a machine that others use, too."""

    async def talk() -> tuple[list[list[Event]], list[float]]:
        asking = [asyncio.ensure_future(ask(server, samples())) for _ in range(24)]
        times = []
        for _ in range(20):
            began = time.monotonic()
            async with connected(server) as client:
                await client.write_event(Describe().event())
                assert (await read(client, "info"))[-1].type == "info"
            times.append(time.monotonic() - began)
        return await asyncio.gather(*asking), times

    answers, times = asyncio.run(talk())
    assert [events[-2].data["text"] for events in answers] == 24 * [SAID]
    assert sorted(times)[10] < 1


def chunk(data: dict) -> bytes:
    event = {"type": "audio-chunk", "data": data, "payload_length": 2}
    return b'{"type": "audio-start"}\n' + json.dumps(event).encode() + b"\nab"


MALFORMED = {
    "no JSON": b"hello\n",
    "a list": b"[]\n",
    "no type": b"{}\n",
    "type is a number": b'{"type": 5}\n',
    "data is null": b'{"type": "transcribe", "data": null}\n',
    "data is a list": b'{"type": "transcribe", "data": []}\n',
    "length is text": b'{"type": "audio-chunk", "payload_length": "x"}\n',
    "length is negative": b'{"type": "audio-chunk", "payload_length": -1}\n',
    "length is true": b'{"type": "audio-chunk", "payload_length": true}\n',
    "length is 100 GB": b'{"type": "audio-chunk", "payload_length": 100000000000}\n' + bytes(1000),
    "data of 100 GB": b'{"type": "audio-chunk", "data_length": 100000000000}\n' + bytes(1000),
    "data is no object": b'{"type": "describe", "data_length": 2}\n[]',
    "half an event": b'{"type": "describe", "data_length": 200}\n{',
    "half a line": b'{"type": "descr',
    "a line without end": b"x" * 200_000,
    "deep": b"[" * 60_000 + b"\n",
    "no UTF-8": b'{"type": "\xff"}\n',
    "a chunk of no rate": chunk({"rate": "x"}),
    "a chunk of 0 Hz": chunk({"rate": 0, "width": 2, "channels": 1}),
    "a chunk of a rate of 5,000 digits": chunk({"rate": "9" * 5000, "width": 2, "channels": 1}),
    "a chunk whose width is a fraction": chunk({"rate": 16000, "width": 2.0, "channels": 1}),
    "half a character": b'{"type": "ping", "data": {"text": "\\ud800"}}\n',
    "a chunk of 99 channels": chunk({"rate": 16000, "width": 2, "channels": 99}),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_event_ends_its_connection_alone(server: Server, kind: str) -> None:
    """With a word, where the client still listens; then the server goes on as before, and has logged no traceback."""
    with socket.create_connection(("127.0.0.1", server.wyoming_port)) as client:
        client.settimeout(60)
        client.sendall(MALFORMED[kind])
        answer = b""
        try:
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(1 << 16):
                answer += part
        except OSError:  # the server was faster: there was more to read
            pass
    if kind not in ("half an event", "half a line", "data is null", "a line without end"):
        assert b"bad-event" in answer
    assert asyncio.run(ask(server, samples()))[-2].data["text"] == SAID
    assert server.errors == []


def test_an_endless_chunk_takes_no_memory(server: Server) -> None:
    before = server.memory_mb()
    with socket.create_connection(("127.0.0.1", server.wyoming_port)) as client:
        client.settimeout(5)
        try:
            client.sendall(b'{"type": "audio-start"}\n')
            client.sendall(b'{"type": "audio-chunk", "payload_length": 100000000000}\n')
            for _ in range(150):
                client.sendall(bytes(1 << 20))
        except OSError:
            pass  # the server has hung up
    assert server.memory_mb() - before < 50


def test_sound_outside_of_a_recording_takes_no_memory(server: Server) -> None:
    """16 MiB are passed over as they come: of 20 connections, of which each lacks a byte."""
    before = server.memory_mb()
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.wyoming_port)))
            client.sendall(b'{"type": "audio-chunk", "payload_length": 16777216}\n' + bytes((1 << 24) - 1))
        assert server.memory_mb() - before < 50


async def _read_event(data: bytes, idle_s: float) -> Event:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    return await wyoming.read_event(reader, idle_s, keep=True)


@pytest.mark.parametrize("data", [b"", b'{"type":', b'{"type": "audio-chunk", "payload_length": 100}\nabc'], ids=str)
def test_who_sends_half_an_event_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Else 512 half lines keep Home Assistant out for ever."""
    monkeypatch.setattr(wyoming, "_SILENT_S", 0.05)
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(_read_event(data, 0.05 if not data else 60), 30))


def test_clients_that_leave(server: Server) -> None:
    """At every point; a place is free again, and nothing is written to the log."""

    async def leave(n_events: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.wyoming_port)
        facts = {"rate": 16000, "width": 2, "channels": 1}
        chunk = AudioChunk(audio=samples().tobytes(), **facts)
        events = [Transcribe(), AudioStart(**facts), chunk, chunk, AudioStop()]
        for event in events[:n_events]:
            await async_write_event(event.event(), writer)
        writer.transport.abort()

    for n_events in range(6):
        asyncio.run(leave(n_events))
    until(lambda: server.metric("recordings") == 0)
    assert server.errors == []


def test_who_leaves_gives_up_what_is_left(server: Server) -> None:
    """Home Assistant may: its user speaks again."""

    async def leave() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.wyoming_port)
        facts = {"rate": 16000, "width": 2, "channels": 1}
        sound = repeated(34).tobytes()  # 118 s, as much as may wait: 4 pieces
        events = [
            AudioStart(**facts),
            *(AudioChunk(audio=sound[i : i + 10**6], **facts) for i in range(0, len(sound), 10**6)),
        ]
        for event in [*events, AudioStop()]:
            await async_write_event(event.event(), writer)
        await asyncio.to_thread(until, lambda: server.metric("batches") > batches)
        writer.transport.abort()

    audio_s, batches = server.metric("audio_seconds_total"), server.metric("batches")
    asyncio.run(leave())
    until(lambda: server.metric("audio_seconds_total") > audio_s)
    assert server.lines[-1]["status"] == "gone"
    assert server.metric("batches") - batches < 4
    assert server.metric("pieces_waiting") == 0


def test_sigterm_answers_what_was_said() -> None:
    """One client has stopped and waits, another one is still speaking: both get a transcript."""
    with serving("--wyoming", "tcp://127.0.0.1:0") as server:

        async def talk() -> list[str]:
            facts = {"rate": 16000, "width": 2, "channels": 1}
            first, second = connected(server), connected(server)
            async with first, second:
                await first.write_event(AudioStart(**facts).event())
                await first.write_event(AudioChunk(audio=samples().tobytes(), **facts).event())
                await send_sound(second, samples())
                until(lambda: server.metric("recordings") >= 1)
                await asyncio.sleep(0.3)
                server.process.send_signal(signal.SIGTERM)
                found = await asyncio.gather(read(first, "transcript-stop"), read(second, "transcript-stop"))
            return [events[-2].data["text"] for events in found]

        assert asyncio.run(talk()) == [SAID, SAID]
        assert server.wait() == 0


def test_unix_sockets(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from wyoming.client import AsyncUnixClient

    with serving("--wyoming", f"unix://{tmp_path}/socket"):

        async def describe() -> str:
            async with AsyncUnixClient(f"{tmp_path}/socket") as client:
                await client.write_event(Describe().event())
                return (await read(client, "info"))[-1].type

        assert asyncio.run(describe()) == "info"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--wyoming", "unix://run/w.sock"], "unix:///run/w.sock"),
        (["--wyoming", "tcp://127.0.0.1:0", "--zeroconf", "x" * 80], "--zeroconf 'xxx"),
    ],
    ids=["no path", "long name"],
)
def test_options_that_are_wrong(options: list[str], said: str) -> None:
    if "--zeroconf" in options:
        pytest.importorskip("zeroconf")
    command = [sys.executable, "-m", "cohere_lite.serve", "--port", "0", "--threads", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_zeroconf() -> None:
    zeroconf = pytest.importorskip("zeroconf")
    with serving("--wyoming", "tcp://127.0.0.1:0", "--zeroconf", "cohere-test") as server:
        browser = zeroconf.Zeroconf(interfaces=["127.0.0.1"])
        try:
            info = browser.get_service_info("_wyoming._tcp.local.", "cohere-test._wyoming._tcp.local.", timeout=10_000)
        finally:
            browser.close()
        assert info is not None
        assert (info.port, info.parsed_addresses()) == (server.wyoming_port, ["127.0.0.1"])
