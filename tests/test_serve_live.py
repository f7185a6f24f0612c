"""Live sessions: the plain protocol, the corners of the realtime one, several clients of one model at once."""

import asyncio
import base64
import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import until

for needed in ("starlette", "uvicorn", "websockets", "python_multipart", "httpx"):
    pytest.importorskip(needed)

import httpx
from serving import SAID, SAMPLE_S, Server, repeated, samples, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from cohere_lite.codings import PCM, find_coding
from cohere_lite.serve.live import in_parts
from cohere_lite.serve.sockets import Socket

pytestmark = pytest.mark.folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def at(server: Server, path: str, **options: object) -> connect:
    return connect(f"ws://127.0.0.1:{server.port}{path}", **options)  # type: ignore[arg-type]


async def lines(connection: ClientConnection) -> list[dict]:
    found = []
    try:
        while True:
            text = await connection.recv()
            assert isinstance(text, str)
            assert text.endswith("\n")
            found.append(json.loads(text))
    except ConnectionClosed:
        return found


async def speak(server: Server, sound: np.ndarray, block: int, query: str = "") -> list[dict]:
    async with at(server, f"/live{query}") as connection:
        data = sound.astype("<i2").tobytes()
        with suppress(ConnectionClosed):  # the server has refused it
            for i in range(0, len(data), block):
                await connection.send(data[i : i + block])
            await connection.send("end")
        return await lines(connection)


@pytest.mark.parametrize("block", [1, 999, 32000, 10_000_000], ids=lambda n: f"{n} bytes")
def test_a_line_for_each_phrase(server: Server, block: int) -> None:
    """However the samples are cut into messages, and if that is in the middle of one."""
    sound = repeated(2) if block > 1 else samples()[: 16000 * 2]
    if block == 1:
        sound = sound[-4000:]  # 8,000 messages
    found = asyncio.run(speak(server, sound, block))
    assert found[-1] == {"done": True, "duration": round(len(sound) / 16000, 3)}
    if block > 1:
        assert [line["text"] for line in found[:-1]] == [SAID, SAID]
        assert 0 <= found[0]["start"] < found[0]["end"] <= found[1]["start"] < found[1]["end"] <= 6.96


def test_another_rate(server: Server) -> None:
    """Each sample three times: 48 kHz."""
    found = asyncio.run(speak(server, np.repeat(repeated(1), 3), 9999, "?rate=48000&language=en-GB"))
    assert [line.get("text") for line in found] == [SAID, None]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?rate=1", "8000 to 192000"),
        ("?rate=x", "8000 to 192000"),
        (f"?rate={5000 * '9'}", "8000 to 192000"),
        ("?language=xx", "this model knows"),
    ],
    ids=lambda value: value[:20],
)
def test_options_that_make_no_sense(server: Server, query: str, said: str) -> None:
    (line,) = asyncio.run(speak(server, samples(), 100_000, query))
    assert said in line["error"]["message"]


@pytest.mark.parametrize("n", [0, 1, 100], ids=lambda n: f"{n} samples")
def test_next_to_nothing(server: Server, n: int) -> None:
    """100 samples are 6.25 ms, less than a frame."""
    assert asyncio.run(speak(server, samples()[:n], 1000)) == [{"done": True, "duration": round(n / 16000, 3)}]


def test_many_speak_at_once(server: Server) -> None:
    async def all_of_them() -> list[list[dict]]:
        return await asyncio.gather(*(speak(server, repeated(2), 3200 + 2 * n) for n in range(16)))

    for found in asyncio.run(all_of_them()):
        assert [line.get("text") for line in found] == [SAID, SAID, None]


def test_who_leaves_gives_up_what_is_left(server: Server) -> None:
    async def leave() -> None:
        async with at(server, "/live") as connection:
            await connection.send(repeated(100).astype("<i2").tobytes())
            await connection.recv()

    asyncio.run(leave())
    until(lambda: server.metric("recordings") == 0)
    assert server.metric("pieces_waiting") == 0


def test_who_leaves_while_too_much_waits_gives_it_up(server: Server) -> None:
    """180 sentences in one message, 10 minutes, of which 2 may wait for the model: the client leaves meanwhile."""
    batches = server.metric("batches")

    async def leave() -> None:
        connection = await at(server, "/live", max_size=None)
        await connection.send(repeated(180).astype("<i2").tobytes())
        await asyncio.to_thread(until, lambda: server.metric("pieces_waiting") > 10)
        connection.transport.abort()

    asyncio.run(leave())
    until(lambda: server.metric("recordings") == 0)
    assert server.metric("batches") - batches < 100
    until(lambda: server.lines[-1].get("status") == "gone")


def test_what_comes_while_one_waits_is_kept() -> None:
    """In order, and no more than a bound: the client is not read from then."""

    class Sent:
        n_received = 0

        async def receive(self) -> dict:
            self.n_received += 1
            return {"type": "websocket.receive", "bytes": bytes([self.n_received]) * 400_000}

    async def talk() -> None:
        websocket = Sent()
        service = SimpleNamespace(timeout_s=60, unless_stopping=lambda receiving: receiving)
        connection = Socket(websocket, service)  # type: ignore[arg-type]
        assert await connection.unless_gone(asyncio.sleep(0.1, "done")) == "done"
        assert websocket.n_received == 3  # more than 1 MiB
        found = [await connection.receive(asyncio.Event().wait) for _ in range(4)]
        assert [message[:1] for message in found if isinstance(message, bytes)] == [b"\1", b"\2", b"\3", b"\4"]
        connection.cancel()

    asyncio.run(talk())


def test_who_stops_sending_has_said_all(server: Server) -> None:
    """Some clients send nothing in silence. The sentence comes, though neither silence nor an end follows it; in the
    realtime protocol as an item that is committed."""
    sound = samples().astype("<i2").tobytes()

    async def plain() -> str:
        async with at(server, "/live") as connection:
            await connection.send(sound)
            return json.loads(await connection.recv())["text"]

    async def talk(client: Realtime) -> str:
        await client.append(np.repeat(samples(), 3)[::2].astype("<i2").tobytes())
        return (await client.until("completed"))["transcript"]

    assert asyncio.run(asyncio.wait_for(plain(), 60)) == SAID
    assert realtime(server, talk) == SAID


def test_who_leaves_after_the_end_does_not_wait_for_it(server: Server) -> None:
    """34 sentences, each a piece."""
    batches = server.metric("batches")

    async def leave() -> None:
        async with at(server, "/live") as connection:
            await connection.send(repeated(34).astype("<i2").tobytes())
            await connection.send("end")
            await asyncio.to_thread(until, lambda: server.metric("batches") > batches)

    asyncio.run(leave())
    until(lambda: server.metric("recordings") == 0)
    assert server.metric("batches") - batches < 34


def test_pages_of_others_are_kept_out(server: Server) -> None:
    """Any page that somebody looks at may try. Its origin tells; programs have none."""

    async def refused(origin: str) -> int:
        with pytest.raises(InvalidStatus) as caught:
            async with at(server, "/live", origin=origin):
                pass
        return caught.value.response.status_code

    assert asyncio.run(refused("https://example.org")) == 403
    assert asyncio.run(refused("null")) == 403
    assert asyncio.run(refused("http://[")) == 403

    async def own() -> None:
        async with at(server, "/live", origin=f"http://127.0.0.1:{server.port}"):
            pass

    asyncio.run(own())


def test_keys_and_places() -> None:
    with serving("--api-key", "key", "--max-queue", "1", "--cors", "https://example.org") as server:

        def is_free() -> bool:
            return httpx.get(server.url + "/health").json()["recordings"] == 0

        async def status(path: str, **options: object) -> object:
            try:
                async with at(server, path, **options) as connection:
                    protocol = connection.subprotocol
                await asyncio.to_thread(until, is_free)
                return protocol
            except InvalidStatus as error:
                return error.response.status_code

        key = {"additional_headers": {"Authorization": "Bearer key"}}
        for path in ("/live", "/v1/realtime?intent=transcription"):
            assert asyncio.run(status(path)) == 401
            assert asyncio.run(status(path, additional_headers={"Authorization": "Bearer other"})) == 401
            assert asyncio.run(status(path, subprotocols=["realtime", "openai-insecure-api-key.other"])) == 401
            assert asyncio.run(status(path, **key)) is None
            for protocols in (["realtime", "openai-insecure-api-key.key"], ["openai-insecure-api-key.key", "realtime"]):
                assert asyncio.run(status(path, subprotocols=protocols)) == "realtime"
            assert asyncio.run(status(path, origin="https://example.org", **key)) is None
            assert asyncio.run(status(path, origin="https://example.com", **key)) == 403

        async def second() -> object:
            async with at(server, "/live", **key):
                return await status("/live", **key)

        assert asyncio.run(second()) == 429


def test_who_says_nothing_for_too_long_is_sent_away() -> None:
    with serving("--timeout", "1") as server:

        async def wait() -> int:
            async with at(server, "/live") as connection:
                assert await lines(connection) == []
                return connection.close_code or 0

        assert asyncio.run(wait()) == 1001


def test_what_was_said_before_is_told_to_who_is_sent_away() -> None:
    """After a second, in which the sentence of 2.5 s may go on."""
    with serving("--timeout", "1") as server:

        async def talk() -> list[dict]:
            async with at(server, "/live") as connection:
                await connection.send(samples().astype("<i2").tobytes())
                return await lines(connection)

        async def commit(client: Realtime) -> dict:
            await client.connection.send(update(turn_detection=None))
            await client.append(np.repeat(samples(), 3)[::2].astype("<i2").tobytes())
            return await client.until("completed")

        assert [line["text"] for line in asyncio.run(talk())] == [SAID]
        assert realtime(server, commit)["transcript"] == SAID
        until(lambda: [line["status"] for line in server.lines if line["event"] == "served"] == ["idle", "idle"])


def test_sigterm_ends_what_is_being_said() -> None:
    """The phrase that was being said is still told, and then why the connection ends (1012: the service restarts)."""
    with serving() as server:

        async def talk() -> tuple[list[dict], int]:
            async with at(server, "/live") as connection:
                await connection.send(samples().astype("<i2").tobytes())
                until(lambda: server.metric("recordings") == 1)
                await asyncio.sleep(0.5)
                server.process.send_signal(signal.SIGTERM)
                return await lines(connection), connection.close_code or 0

        found, code = asyncio.run(talk())
        assert [line.get("text") for line in found] == [SAID, None]
        assert code == 1012
        assert server.wait() == 0


class Realtime:
    """A client by hand, for what OpenAI's does not do."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, kind: str, **facts: object) -> None:
        await self.connection.send(json.dumps({"type": kind, **facts}))

    async def append(self, sound: bytes) -> None:
        await self.send("input_audio_buffer.append", audio=base64.b64encode(sound).decode())

    async def until(self, kind: str) -> dict:
        while True:
            event = json.loads(await self.connection.recv())
            if event["type"].endswith(kind):
                return event
            assert event["type"] != "error", event


def realtime(server: Server, talk, **options: object):  # type: ignore[no-untyped-def]
    async def run() -> object:
        async with at(server, "/v1/realtime?intent=transcription", **options) as connection:
            client = Realtime(connection)
            return await talk(client)

    return asyncio.run(run())


def update(**facts: object) -> str:
    return json.dumps({"type": "session.update", "session": {"audio": {"input": facts}}})


def test_realtime_oddities_are_passed_over(server: Server) -> None:
    odd: list[object] = [None, 5, [], "x", {"input": 5}, {"input": {"format": None, "transcription": 5}}]

    async def talk(client: Realtime) -> dict:
        for audio in odd:
            await client.send("session.update", session={"audio": audio, "include": audio})
            await client.until("session.updated")
        await client.connection.send(update(transcription={"languages": 5}, turn_detection=5))
        await client.until("session.updated")
        await client.send("session.update", session=5)
        return await client.until("session.updated")

    sound = realtime(server, talk)["session"]["audio"]["input"]
    assert (sound["format"], sound["transcription"]["language"]) == ({"type": "audio/pcm", "rate": 24000}, "en")


def test_realtime_mistakes_are_told_and_the_session_goes_on(server: Server) -> None:
    wrong: list[object] = [
        "not JSON",
        "[]",
        "{}",
        "[" * 100_000,
        b"\xff\x00",
        json.dumps({"type": "response.create", "event_id": "\ud800"}),
        json.dumps({"type": "input_audio_buffer.append", "audio": "?"}),
        json.dumps({"type": "input_audio_buffer.append", "audio": None}),
        json.dumps({"type": "input_audio_buffer.commit"}),
        json.dumps({"type": "session.update", "session": {"type": "realtime"}}),
        update(format={"type": "audio/mp3"}),
        update(format={"type": "audio/pcm", "rate": 1}),
        update(format={"type": "audio/pcm", "rate": 5000 * "9"}),
        update(transcription={"language": "xx"}),
        update(transcription={"languages": ["xx"]}),
        update(turn_detection={"silence_duration_ms": "x"}),
        update(turn_detection={"silence_duration_ms": 10**400}),
    ]

    async def talk(client: Realtime) -> tuple[list[dict], dict]:
        await client.until("session.created")
        errors = []
        for message in wrong:
            await client.connection.send(message)  # type: ignore[arg-type]
            errors.append(json.loads(await asyncio.wait_for(client.connection.recv(), 60)))
        await client.append(np.repeat(samples(), 3)[::2].astype("<i2").tobytes())
        await client.send("input_audio_buffer.commit")
        return errors, await client.until("completed")

    errors, completed = realtime(server, talk)
    assert [event["type"] for event in errors] == len(wrong) * ["error"]
    assert all(event["error"]["message"] for event in errors)
    assert [event["error"]["event_id"] for event in errors] == 5 * [None] + ["\ud800"] + (len(wrong) - 6) * [None]
    assert completed["transcript"] == SAID


def test_realtime_updates_that_change_nothing_commit_nothing(server: Server) -> None:
    """In the middle of a sentence: it is one item. And what is not named stays as it was."""
    sound = np.repeat(samples(), 3)[::2].astype("<i2").tobytes()

    async def talk(client: Realtime) -> list[dict]:
        include = ["item.input_audio_transcription.logprobs"]
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}, "include": include})
        await client.append(sound[:50001])
        await client.connection.send(update(transcription={"language": "en"}))
        await client.append(sound[50001:])
        await client.send("input_audio_buffer.commit")
        await client.until("session.updated")
        events = [json.loads(await client.connection.recv())]
        while not events[-1]["type"].endswith("completed"):
            events.append(json.loads(await client.connection.recv()))
        return events

    updated, *_, completed = realtime(server, talk)
    assert updated["session"]["include"] == ["item.input_audio_transcription.logprobs"]
    assert completed["transcript"] == SAID
    assert completed["logprobs"]


def test_realtime_silence_is_not_committed_by_an_update(server: Server) -> None:
    """Of 3 s with turn detection; what is said then is the first item."""
    silence = bytes(3 * 48000)

    async def talk(client: Realtime) -> list[str]:
        await client.append(silence)
        await client.connection.send(update(transcription={"language": "en-US"}, turn_detection={"threshold": 0.4}))
        await client.append(np.repeat(repeated(1), 3)[::2].astype("<i2").tobytes())
        events = [json.loads(await client.connection.recv())]
        while not events[-1]["type"].endswith("completed"):
            events.append(json.loads(await client.connection.recv()))
        return [event["type"].rsplit(".", 1)[1] for event in events] + [events[-1]["transcript"]]

    names = ["created", "updated", "speech_started", "speech_stopped", "committed", "delta", "completed"]
    assert realtime(server, talk) == [*names, SAID]


def test_realtime_clear(server: Server) -> None:
    """What was said before is forgotten, and what comes then is heard at its own time."""

    async def talk(client: Realtime) -> dict:
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        await client.append(b"\1\2" * 24000)
        await client.send("input_audio_buffer.clear")
        await client.until("cleared")
        await client.append(np.repeat(samples(), 3)[::2].astype("<i2").tobytes())
        await client.send("input_audio_buffer.commit")
        return await client.until("completed")

    completed = realtime(server, talk)
    assert completed["transcript"] == SAID
    assert completed["usage"]["seconds"] == pytest.approx(SAMPLE_S, abs=0.001)


def mu_law(sound: np.ndarray) -> bytes:
    """ITU-T G.711: 14 bits, a bias of 33, the position of the highest bit, the four bits that follow, all inverted."""
    linear = np.clip(np.abs(sound.astype(int)) // 4 + 33, 0, 8191)
    exponent = np.floor(np.log2(linear)).astype(int) - 5
    mantissa = (linear >> (exponent + 1)) & 15
    return (~(((sound < 0) * 128) | (exponent << 4) | mantissa) & 255).astype(np.uint8).tobytes()


def test_realtime_telephony_in_the_older_form(server: Server) -> None:
    """8 kHz mu-law, as telephone bridges send it; half a second of silence ends the sentence."""
    telephone = mu_law(repeated(1).reshape(-1, 2).mean(axis=1))

    async def talk(client: Realtime) -> list[dict]:
        created = await client.until("transcription_session.created")
        await client.send(
            "transcription_session.update",
            session={
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "x", "language": "en"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                "include": ["item.input_audio_transcription.logprobs"],
            },
        )
        updated = await client.until("transcription_session.updated")
        for i in range(0, len(telephone), 160):
            await client.append(telephone[i : i + 160])
        return [created, updated, await client.until("completed")]

    created, updated, completed = realtime(server, talk, additional_headers={"OpenAI-Beta": "realtime=v1"})
    assert created["session"]["input_audio_format"] == "pcm16"
    assert updated["session"]["input_audio_format"] == "g711_ulaw"
    assert completed["transcript"] == SAID
    assert "".join(token["token"] for token in completed["logprobs"]).strip() == SAID


def test_realtime_sessions_are_many(server: Server) -> None:
    sound = np.repeat(repeated(2), 3)[::2].astype("<i2").tobytes()

    async def one() -> list[str]:
        async with at(server, "/v1/realtime") as connection:
            client = Realtime(connection)
            for i in range(0, len(sound), 24000):
                await client.append(sound[i : i + 24000])
            return [(await client.until("completed"))["transcript"] for _ in range(2)]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*(one() for _ in range(16)))

    assert asyncio.run(all_of_them()) == 16 * [[SAID, SAID]]


def test_realtime_commits_do_not_pile_up(server: Server) -> None:
    """60 items of 10 s, sent as fast as they are read: of 120 s at most is there a piece that waits."""
    item = np.repeat(repeated(3), 3)[::2].astype("<i2").tobytes()

    async def talk(client: Realtime) -> float:
        async def commit_all() -> None:
            await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
            for _ in range(60):
                await client.append(item)
                await client.send("input_audio_buffer.commit")

        batches, most = server.metric("batches"), 0.0
        committing = asyncio.ensure_future(commit_all())
        while server.metric("batches") < batches + 6:
            most = max(most, server.metric("pieces_waiting"))
            await asyncio.sleep(0.02)
        committing.cancel()
        return most

    assert 5 < realtime(server, talk) <= 14
    until(lambda: server.metric("recordings") == 0)


def test_who_does_not_read_is_not_read_from() -> None:
    """Else the answers to what is sent on and on would fill the memory."""

    class Unread:
        n_received = 0

        def __init__(self) -> None:
            self.is_read = asyncio.Event()

        async def send_text(self, text: str) -> None:
            await self.is_read.wait()

        async def receive(self) -> dict:
            self.n_received += 1
            return {"type": "websocket.receive", "text": "x"}

    async def talk() -> None:
        websocket = Unread()
        service = SimpleNamespace(timeout_s=60, unless_stopping=lambda receiving: receiving)
        connection = Socket(websocket, service)  # type: ignore[arg-type]
        connection.send("answer")
        receiving = asyncio.ensure_future(connection.receive(asyncio.Event().wait))
        await asyncio.sleep(0.1)
        assert websocket.n_received == 0
        websocket.is_read.set()
        assert await receiving == "x"
        connection.cancel()

    asyncio.run(talk())


def test_a_message_that_is_too_large_ends_its_session_alone(server: Server) -> None:
    async def talk(client: Realtime) -> int:
        try:
            for _ in range(4):
                await client.connection.send("x" * (21 << 20))
            await client.connection.recv()
            await client.connection.recv()
        except ConnectionClosedError as error:
            return error.rcvd.code if error.rcvd else 0
        return 0

    assert realtime(server, talk) == 1009  # too big


def test_a_large_message_takes_little_memory(server: Server) -> None:
    """5 minutes at once, 9.6 MB: as floats they would be 38 MB, and resampled several times that."""
    sound = np.zeros(4_800_000, np.int16)
    sound[-16000 * 3 :][: len(samples())] = samples()
    most_mb = [0.0]

    async def talk() -> list[dict]:
        async def watch() -> None:
            while True:
                most_mb[0] = max(most_mb[0], server.memory_mb())
                await asyncio.sleep(0.005)

        watching = asyncio.ensure_future(watch())
        try:
            return await speak(server, sound, 100_000_000)
        finally:
            watching.cancel()

    before = server.memory_mb()
    assert [line.get("text") for line in asyncio.run(talk())] == [SAID, None]
    assert most_mb[0] - before < 80


def test_live_sound_passes_files() -> None:
    """A phrase is heard before a long file is done."""
    from serving import wav
    from test_serve import post

    with serving() as server:
        answers: list[object] = []
        file = wav(repeated(200))
        uploading = Thread(target=lambda: answers.append(post(server, file, response_format="srt")))
        uploading.start()
        until(lambda: server.metric("batches") >= 1)
        found = asyncio.run(speak(server, repeated(1), 32000))
        assert [line.get("text") for line in found] == [SAID, None]
        assert answers == []
        uploading.join()
        assert len(answers) == 1


def test_parts_are_of_whole_frames() -> None:
    """7 channels of 2 bytes, 100,000 frames and half a frame: 14 divides no power of 2."""
    coding = find_coding(PCM, 16, 7, 14, "<")
    parts = [*in_parts(bytes(1_400_007), coding)]
    assert sum(map(len, parts)) == 1_400_000
    assert len(parts) > 1
    assert all(len(part) % 14 == 0 and len(part) <= 1 << 18 for part in parts)
