"""OpenAI's own clients, for Python and for Node, take this server for OpenAI's.

Node: COHERE_LITE_NODE_MODULES is the folder into which npm put openai and ws."""

import asyncio
import base64
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from conftest import until

openai = pytest.importorskip("openai")
for needed in ("starlette", "uvicorn", "websockets", "python_multipart"):
    pytest.importorskip(needed)

from serving import SAID, SAMPLE, SAMPLE_S, Server, repeated, serving, wav
from test_serve import begin_upload

pytestmark = [pytest.mark.folder, pytest.mark.reference]
NODE_MODULES = os.environ.get("COHERE_LITE_NODE_MODULES", "")
OPENAI_JS = Path(__file__).parent / "peers" / "openai.mjs"
needs_node = pytest.mark.skipif(not NODE_MODULES, reason="COHERE_LITE_NODE_MODULES is not set")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--max-upload", "8", "--api-key", "key") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator["openai.OpenAI"]:
    with openai.OpenAI(api_key="key", base_url=server.url + "/v1") as client:
        yield client


WAV = SAMPLE.read_bytes()
FILES = {"path": SAMPLE, "bytes": WAV, "name": ("späch", WAV), "type": ("x.py", WAV, "text/x-python")}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_python_json(client: "openai.OpenAI", file: object) -> None:
    found = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, prompt="a", temperature=0)  # type: ignore[call-overload]
    assert found.text == SAID
    assert (found.usage.type, found.usage.seconds) == ("duration", SAMPLE_S)


@pytest.mark.parametrize("style", ["text", "srt", "vtt"])
def test_python_text(client: "openai.OpenAI", style: str) -> None:
    found = client.audio.transcriptions.create(model="whisper-1", file=SAMPLE, response_format=style)  # type: ignore[call-overload]
    assert isinstance(found, str)
    assert SAID in found


def test_python_verbose_json(client: "openai.OpenAI") -> None:
    """The client itself takes anything; its types, asked strictly, do not."""
    from openai.types.audio import TranscriptionVerbose

    options = {"timestamp_granularities": ["word", "segment"], "response_format": "verbose_json"}
    raw = client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=SAMPLE, **options)  # type: ignore[call-overload]
    found = TranscriptionVerbose.model_validate(raw.http_response.json(), strict=True)
    assert (found.text, found.duration, found.language) == (SAID, SAMPLE_S, "english")
    assert [segment.text for segment in found.segments or []] == [SAID]
    assert " ".join(word.word for word in found.words or []) == SAID
    assert raw.parse().text == SAID


def test_python_stream(client: "openai.OpenAI") -> None:
    from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent

    stream = client.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=wav(repeated(3)), stream=True, include=["logprobs"]
    )
    *deltas, done = stream
    assert {type(event) for event in deltas} == {TranscriptionTextDeltaEvent}
    assert type(done) is TranscriptionTextDoneEvent
    assert "".join(event.delta for event in deltas) == done.text == " ".join(3 * [SAID])
    TranscriptionTextDoneEvent.model_validate(done.model_dump(), strict=True)


def test_python_failure_in_a_stream(client: "openai.OpenAI") -> None:
    sound = np.concatenate([repeated(2) / 32768, [np.nan], np.zeros(99)]).astype("<f4").tobytes()
    header = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\3\0\1\0\x80\x3e\0\0\0\xfa\0\0\4\0\x20\0data\0\0\0\0"
    stream = client.audio.transcriptions.create(model="x", file=header + sound, stream=True)
    events = []
    with pytest.raises(openai.APIError, match="NaN"):
        events += [event.delta for event in stream]  # type: ignore[union-attr]
    assert events == []  # a list's +=: the error comes first


LARGE = bytes(20_000_000)


@pytest.mark.parametrize(
    ("file", "error", "status"),
    [(b"", openai.BadRequestError, 400), (LARGE, openai.APIStatusError, 413)],
    ids=["empty", "large"],
)
def test_python_errors(file: bytes, error: type, status: int) -> None:
    """Each is asked for once, and comes as what it is. By a server of its own: lines of other tests may come late."""
    with (
        serving("--max-upload", "8") as server,
        openai.OpenAI(api_key="key", base_url=server.url + "/v1") as client,
        pytest.raises(error) as caught,
    ):
        client.audio.transcriptions.create(model="x", file=file)
    assert caught.value.status_code == status
    assert caught.value.body["message"]
    assert [line["status"] for line in server.lines if line["event"] == "served"] == [str(status)]


def test_python_models(client: "openai.OpenAI") -> None:
    assert [model.id for model in client.models.list()] == ["demonstration"]
    assert client.models.retrieve("demonstration").owned_by == "cohere-lite"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("a/b")
    with pytest.raises(openai.NotFoundError, match="does not translate"), pytest.warns(match="deprecated"):
        client.audio.translations.create(model="x", file=b"x")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="other").models.list()


def test_python_asks_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    """The first answers are 429: somebody has the only place. Its own retries, as Retry-After says, come through."""
    with serving("--max-queue", "1") as server:
        upload = begin_upload(server)
        until(lambda: server.metric("recordings") == 1)
        answers = []
        client = openai.OpenAI(api_key="key", base_url=server.url + "/v1")
        asking = Thread(target=lambda: answers.append(client.audio.transcriptions.create(model="x", file=SAMPLE).text))
        asking.start()
        until(lambda: "429" in [line.get("status") for line in server.lines])
        upload.close()
        asking.join()
        client.close()
        assert answers == [SAID]
        assert server.metric("audio_seconds_total") == SAMPLE_S


def test_python_gives_up_and_asks_again(tmp_path: Path) -> None:
    """A client whose own patience ends asks three times; the work of the first two times is given up."""
    with serving() as server:
        client = openai.OpenAI(api_key="key", base_url=server.url + "/v1", timeout=1.5)
        sound = wav(repeated(1000))
        with client, pytest.raises(openai.APITimeoutError):
            client.audio.transcriptions.create(model="x", file=sound)
        until(lambda: server.metric("recordings") == 0)
        until(lambda: [line["status"] for line in server.lines if line["event"] == "served"] == 3 * ["gone"])
        assert server.metric("pieces_waiting") == 0


def pcm24(sound: np.ndarray) -> bytes:
    """16 kHz -> 24 kHz, by straight lines."""
    at = np.arange(len(sound) * 3 // 2) * 2 / 3
    return np.interp(at, np.arange(len(sound)), sound).astype("<i2").tobytes()


async def talk(server: Server, sound: bytes, n_items: int, commit: bool, **input_: object) -> list:
    """All events of a session of the openai client's realtime mode, up to the nth completed item."""
    events = []
    client = openai.AsyncOpenAI(api_key="key", base_url=server.url + "/v1")
    async with client, client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        session = {
            "type": "transcription",
            "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}, **input_}},
        }
        await connection.session.update(session=session)  # type: ignore[arg-type]
        for i in range(0, len(sound), 9600):  # 0.2 s
            await connection.input_audio_buffer.append(audio=base64.b64encode(sound[i : i + 9600]).decode())
        if commit:
            await connection.input_audio_buffer.commit()
        async for event in connection:
            events.append(event)
            n_items -= event.type == "conversation.item.input_audio_transcription.completed"
            if not n_items or event.type == "error":
                break
    return events


def named(events: list, name: str) -> list:
    return [event for event in events if event.type.endswith(name)]


def test_python_realtime_phrases(server: Server) -> None:
    """With turn detection: two sentences are two items, each begun, stopped, committed and completed in this order."""
    detection = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
    events = asyncio.run(talk(server, pcm24(repeated(2)), 2, False, turn_detection=detection))
    assert [event.type for event in events[:2]] == ["session.created", "session.updated"]
    completed = named(events, "completed")
    assert [event.transcript for event in completed] == [SAID, SAID]
    for event in completed:
        of_item = [e.type.rsplit(".", 1)[1] for e in events if getattr(e, "item_id", None) == event.item_id]
        assert of_item == ["speech_started", "speech_stopped", "committed", "delta", "completed"]
        assert type(event).model_validate(event.model_dump(), strict=True).usage.type == "duration"
    first, second = named(events, "committed")
    assert (first.previous_item_id, second.previous_item_id) == (None, first.item_id)
    starts = [event.audio_start_ms for event in named(events, "speech_started")]
    ends = [event.audio_end_ms for event in named(events, "speech_stopped")]
    # the sentences begin at 0 and 3.48 s, and each ends within its 2.48 s; a pause of 0.5 s ends them
    assert 0 <= starts[0] < ends[0] <= 2480 + 250
    assert 3480 - 250 <= starts[1] < ends[1] <= 5960 + 250
    assert len({event.event_id for event in events}) == len(events)


def test_python_realtime_commit(server: Server) -> None:
    """Without turn detection nothing comes before the commit; then one item, whatever the pauses in it."""
    events = asyncio.run(
        talk(
            server, pcm24(repeated(2)), 1, True, turn_detection=None, transcription={"model": "x", "language": "en-US"}
        )
    )
    assert next(event.type for event in events if "session" not in event.type) == "input_audio_buffer.committed"
    (completed,) = named(events, "completed")
    assert "".join(event.delta for event in named(events, "delta")) == completed.transcript
    assert completed.transcript.startswith("Turn on the light")
    assert completed.usage.seconds == pytest.approx(6.96, abs=0.001)


def test_python_realtime_commit_of_nothing(server: Server) -> None:
    events = asyncio.run(talk(server, b"", 1, True, turn_detection=None))
    assert events[-1].error.code == "input_audio_buffer_commit_empty"


def node(url: str, tmp_path: Path, case: str) -> object:
    (tmp_path / "sample.pcm").write_bytes(pcm24(repeated(1)))
    command = ["node", "--no-warnings", OPENAI_JS, url, SAMPLE, tmp_path / "sample.pcm", case]
    variables = os.environ | {"NODE_TLS_REJECT_UNAUTHORIZED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("case", ["stream_of_a_file", "buffer", "logprobs", "verbose"])
def test_node_json(server: Server, tmp_path: Path, case: str) -> None:
    found = node(server.url, tmp_path, case)
    assert isinstance(found, dict)
    assert found["text"] == SAID
    assert ("logprobs" in found) == (case == "logprobs")


@needs_node
@pytest.mark.parametrize("case", ["text", "srt"])
def test_node_text(server: Server, tmp_path: Path, case: str) -> None:
    assert SAID in str(node(server.url, tmp_path, case))


@needs_node
def test_node_stream(server: Server, tmp_path: Path) -> None:
    delta, done = node(server.url, tmp_path, "events")  # type: ignore[misc]
    assert (delta["delta"], done["text"]) == (SAID, SAID)


@needs_node
def test_node_errors(server: Server, tmp_path: Path) -> None:
    assert node(server.url, tmp_path, "empty") == {"status": 400, "param": "file"}
    for case in ("large", "large_stream"):
        assert node(server.url, tmp_path, case) == {"status": 413, "message": "413 the upload is larger than 8 MB"}


@needs_node
def test_node_models(server: Server, tmp_path: Path) -> None:
    assert node(server.url, tmp_path, "models") == ["demonstration"]
    assert node(server.url, tmp_path, "model") == {"status": 404, "code": "model_not_found"}


@contextmanager
def https(server: Server, tmp_path: Path) -> Iterator[str]:
    """A proxy with a certificate, as a service for others needs one: Node's client takes wss alone."""
    make = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout key -out cert"
    )
    subprocess.run(["openssl", *make.split()], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
        finally:  # also of connections that are open when the test ends
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    listening = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0, ssl=context))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()


@needs_node
@pytest.mark.parametrize("case", ["realtime", "browser"])
def test_node_realtime(server: Server, tmp_path: Path, case: str) -> None:
    """browser: the key comes as a subprotocol, and the server has to choose the other one."""
    with https(server, tmp_path) as url:
        found = node(url, tmp_path, case)
    assert isinstance(found, dict)
    assert found["transcript"] == SAID
    assert found["usage"]["type"] == "duration"
    assert found["protocol"] == ("realtime" if case == "browser" else "")
