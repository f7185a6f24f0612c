"""Clients that are slow, broken or malicious: the service goes on, and keeps nothing of them."""

import asyncio
import json
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import until

for needed in ("starlette", "uvicorn", "websockets", "python_multipart", "httpx"):
    pytest.importorskip(needed)

import uvicorn
from serving import SAID, SAMPLE, serving
from starlette.datastructures import Headers
from test_serve import ROUTE, begin_upload, post

from cohere_lite.serve import edge
from cohere_lite.serve.rendering import Rendering
from cohere_lite.serve.service import Asked

pytestmark = pytest.mark.folder
FORM = "Content-Type: multipart/form-data; boundary=b\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@contextmanager
def patient(app: Callable, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server in this process that is patient for half a second; its port."""
    for name in ("REQUEST_S", "_BODY_S", "_UNREAD_S"):
        monkeypatch.setattr(edge, name, 0.5)
    http, ws = edge.PatientHTTP, edge.PatientSocket
    config = uvicorn.Config(app, port=0, http=http, ws=ws, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


async def hello(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """Answers without reading; a WebSocket is accepted and told a lot."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(1000):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    body = bytes(100_000_000) if scope["path"] == "/large" else b"hello"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def is_hung_up(client: socket.socket) -> bool:
    """Reads what is there; whether the other side has ended the connection. Waits for up to a minute."""
    client.settimeout(60)
    with suppress(ConnectionError):
        while client.recv(1 << 16):
            pass
    return True


def sent(client: socket.socket, data: bytes) -> bool:
    """Whether there was still somebody to send it to."""
    try:
        client.sendall(data)
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize(
    "beginning", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /"]
)
def test_a_request_must_come(monkeypatch: pytest.MonkeyPatch, beginning: bytes) -> None:
    """The first one and the next ones: uvicorn waits for the end of a request's headers for ever."""
    with patient(hello, monkeypatch) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(beginning)
        assert is_hung_up(client)


def test_headers_in_drops_do_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    with patient(hello, monkeypatch) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        until(lambda: not sent(client, b"X: y\r\n"))


def test_a_body_without_end_that_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with patient(hello, monkeypatch) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        until(lambda: not sent(client, b"1000\r\n" + bytes(0x1000) + b"\r\n"))


def test_many_requests_in_a_row_are_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection for longer than a request may take to come, and one of them that takes long to answer."""
    with patient(hello, monkeypatch) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(60)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"hello"):
                part = client.recv(4096)
                assert part
                answer += part
            time.sleep(0.05)
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_answer_must_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB of them, to a client that reads nothing: over HTTP and over a WebSocket."""
    for path, headers in (("/large", ""), ("/", UPGRADE)):
        with patient(hello, monkeypatch) as port, socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            time.sleep(3)
            n_bytes = 0
            client.settimeout(60)
            with suppress(ConnectionError):
                while part := client.recv(1 << 20):
                    n_bytes += len(part)
            assert 0 < n_bytes < 50_000_000


def test_an_answer_that_is_read_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB in more than a second, for half of which nobody may stop: to the last byte."""
    with patient(hello, monkeypatch) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        n_bytes, began = 0, time.monotonic()
        while part := client.recv(1 << 20):
            n_bytes += len(part)
            time.sleep(len(part) / 50e6)
        assert time.monotonic() - began > 1.5
        assert n_bytes > 100_000_000  # with the headers


def test_a_body_that_stops_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "_BODY_S", 0.2)
    parts = [{"type": "http.request", "body": b"x", "more_body": True}]

    async def receive() -> dict:
        if parts:
            return parts.pop()
        await asyncio.sleep(60)
        raise AssertionError

    async def read() -> list[bytes]:
        return [part async for part in edge.counted_body(Headers({}), receive, 100)]  # type: ignore[arg-type]

    with pytest.raises(edge.Stalled):
        asyncio.run(read())


def test_segments_that_stop_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's: an answer as OpenAI's, and no traceback."""
    monkeypatch.setattr(edge, "_BODY_S", 0.2)
    sent: list[Any] = []
    service = SimpleNamespace(
        admitted=lambda route: nullcontext(Asked(route)), timeout_s=60, unless_stopping=lambda reading: reading
    )

    async def receive() -> dict:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"content-length", b"1000")]}
    asyncio.run(Rendering(service)(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["message"] == "the rest of the request does not come"


def request(body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: {length}\r\n\r\n".encode() + body


def attacks() -> list[bytes]:
    """What a connection sends before it is dropped without a word."""
    whole = FILE + SAMPLE.read_bytes() + b"\r\n--b--\r\n"
    noise = random.Random(0).randbytes(3000)
    upgrade = UPGRADE.encode() + b"\r\n"
    live = b"GET /live HTTP/1.1\r\nHost: x\r\n" + upgrade
    return [
        b"",
        b"GET / HTTP/1.1\r\n",
        noise,
        request(whole[:5000], len(whole)),  # half a body
        request(whole, len(whole) + 1000),  # too long a length
        request(whole, 500),  # too short a one
        request(whole),  # and away
        request(FILE + noise + b"\r\n--b--\r\n"),
        request(FILE + b"RIFF\xff\xff\xff\xffWAVE" + noise),
        request(FILE + b"\x1aE\xdf\xa3" + noise + b"\r\n--b--\r\n"),  # for ffmpeg
        request(b"--b\r\n" + b"A: b\r\n" * 5000),
        request(b"--b\r\n\r\n" * 5000),
        request((b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n') * 5000 + b"--b--"),
        f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\n{FORM}Transfer-Encoding: chunked\r\n\r\n".encode()
        + b"ffffffff\r\n"
        + noise,
        f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: -5\r\n\r\n".encode(),
        f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
        live,
        live + b"\x82\x7e\x10\x00" + noise,  # not masked
        live + b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + noise,  # a message of 2**63 bytes
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\x81\x80\x00\x00\x00\x00",  # an empty text
    ]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="/proc")
def test_nothing_is_kept_of_them(tmp_path: Path) -> None:
    """Descriptors, threads, processes, temporary files and memory, before and after a few hundred of them."""
    with serving("--max-queue", "500", "--max-upload", "8", TMPDIR=str(tmp_path)) as server:

        def attack() -> None:
            with ExitStack() as stack:
                for attack in attacks():
                    client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                    client.setblocking(False)
                    with suppress(OSError):
                        client.send(attack)

        def settled() -> bool:
            return server.metric("recordings") == 0 and server.held()[2] == 0

        post(server, b"x" * 5000)
        for _ in range(3):
            attack()
        until(settled)
        with ExitStack() as stack:  # all threads have been used
            for _ in range(40):
                stack.callback(Thread.join, thread := Thread(target=post, args=[server]))
                thread.start()
        before, memory_mb = server.held(), server.memory_mb()
        for _ in range(20):
            attack()
        until(settled)
        until(lambda: server.held()[0] <= before[0])
        assert server.held()[1] <= before[1]
        assert server.memory_mb() - memory_mb < 50
        assert [*tmp_path.iterdir()] == []
        assert post(server).json()["text"] == SAID


def test_compressed_silence_without_end_ends_at_the_deadline(tmp_path: Path) -> None:
    """5 hours of silence in 4 MB of FLAC: nothing of it waits for the model, and memory stays as it is."""
    from serving import converted

    data = converted(tmp_path, "a.flac", "-af", "volume=0,apad=whole_dur=20000")
    assert len(data) < 5_000_000
    with serving("--timeout", "2") as server:
        before = server.memory_mb()
        response = post(server, data)
        assert response.status_code in (200, 504)
        assert server.memory_mb() - before < 100
        until(lambda: server.held()[2] == 0)
        assert post(server).json()["text"] == SAID


@pytest.mark.slow
def test_a_thousand_wait(tmp_path: Path) -> None:
    """Each is answered, none sooner by far than it came; memory stays within 0.2 MB each. The next one is refused."""
    with serving("--max-queue", "1000", "--timeout", "1000", TMPDIR=str(tmp_path)) as server:
        before = server.memory_mb()
        body = FILE + SAMPLE.read_bytes() + b"\r\n--b--\r\n"
        most_mb = 0.0

        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                writer.write(request(body).replace(b"Host: x", b"Host: x\r\nConnection: close"))
                return await reader.read()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

        async def ask_all() -> list[bytes]:
            nonlocal most_mb
            asking = asyncio.gather(*(ask() for _ in range(1000)))
            while not asking.done():
                most_mb = max(most_mb, server.memory_mb())
                await asyncio.sleep(0.5)
            return await asking

        answers = asyncio.run(ask_all())
        assert [SAID.encode() in answer for answer in answers] == 1000 * [True]
        assert most_mb - before < 200
        assert [*tmp_path.iterdir()] == []
        with ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(begin_upload(server))
            until(lambda: server.metric("recordings") == 1000)
            assert post(server).status_code == 429
        until(lambda: server.metric("recordings") == 0)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ab"), reason="no ApacheBench")
def test_a_hundred_thousand_small_requests(tmp_path: Path) -> None:
    """By 64 clients at once, each a file of one byte: all are answered, and nothing of them is kept."""
    body = tmp_path / "body"
    body.write_bytes(FILE + b"x\r\n--b--\r\n")
    command = ["ab", "-q", "-k", "-l", "-c", "64", "-p", body, "-T", "multipart/form-data; boundary=b"]
    folder = tmp_path / "temporary"
    folder.mkdir()
    with serving("--max-queue", "100", TMPDIR=str(folder)) as server:

        def ask(n: int) -> str:
            return subprocess.run(
                [*command, "-n", str(n), server.url + ROUTE], capture_output=True, text=True, check=True
            ).stdout

        ask(2000)
        until(lambda: server.metric("recordings") == 0)
        before, memory_mb = server.held(), server.memory_mb()
        told = ask(100_000)
        assert re.search(r"Complete requests: +100000\n", told)
        assert re.search(r"Failed requests: +0\n", told)
        until(lambda: server.metric("recordings") == 0 and server.held()[0] <= before[0])
        assert server.held()[1] <= before[1]
        assert server.memory_mb() - memory_mb < 30
        assert [*folder.iterdir()] == []
        refused = server.metric(r'requests_total\{route="/v1/audio/transcriptions",status="400"\}')
        assert refused == 102_000
