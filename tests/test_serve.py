"""OpenAI's interface, as raw requests: what is asked for in any form, and what must be refused."""

import asyncio
import ctypes
import ctypes.util
import errno
import gc
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from conftest import until

for needed in ("starlette", "uvicorn", "websockets", "python_multipart", "httpx"):
    pytest.importorskip(needed)

import httpx
from serving import SAID, SAMPLE, SAMPLE_S, Server, converted, repeated, samples, serving, wav
from starlette.requests import ClientDisconnect

from cohere_lite import Pauses, Transcriber
from cohere_lite.extras.formats import render
from cohere_lite.serve import rendering, requests, transcriptions
from cohere_lite.serve.answers import warnings_header
from cohere_lite.serve.service import Service

pytestmark = pytest.mark.folder
ROUTE = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--max-upload", "8") as server:
        yield server


def post(server: Server, file: bytes = SAMPLE.read_bytes(), name: str = "a.wav", **fields: object) -> httpx.Response:
    data = {"model": "whisper-1", **fields}
    return httpx.post(server.url + ROUTE, files={"file": (name, file)}, data=data, timeout=60)


def error(response: httpx.Response) -> dict:
    facts = response.json()["error"]
    assert set(facts) == {"message", "type", "param", "code"}
    assert facts["message"]
    return facts


def test_the_language_is_found(server: Server) -> None:
    """As by the Transcriber; a language that is named is not found, and tells no probability."""
    expected = Transcriber().transcribe(SAMPLE, language="auto")
    for asked in "auto", "en,German", "AUTO":
        found = post(server, language=asked, response_format="verbose_json").json()
        assert (found["text"], found["language"], found["languages"]) == (SAID, "english", [{"code": "en"}])
        assert found["segments"][0]["language"] == "en"
    found = post(server, language="auto").json()
    assert found["language_probability"] == round(expected.language_probability or 0, 4)
    events = post(server, language="auto", stream="true", **{"timestamp_granularities[]": "segment"}).text
    assert '"language": "en"' in events
    assert "language_probability" not in post(server, response_format="verbose_json").json()
    unsure = post(server, language="de,fr").json()
    assert "the language is not sure: " in unsure["warnings"][0]
    nothing = post(server, wav(np.zeros(16000)), language="auto", response_format="verbose_json").json()
    assert (nothing["text"], nothing["language"]) == ("", "unknown")
    assert error(post(server, language="auto,xx"))["param"] == "language"


def test_a_language_is_found_as_by_the_command(server: Server) -> None:
    """Half a sentence leaves it unsure, and so waits for the next one."""
    sound = np.concatenate([samples()[20000:36000], np.zeros(16000, np.int16), samples(), np.zeros(16000, np.int16)])
    expected = Transcriber().transcribe(sound, rate=16000, language="auto", pauses=Pauses())
    alone = Transcriber().transcribe(sound[:32000], rate=16000, language="auto", pauses=Pauses())
    assert (alone.language_probability or 1) < 0.9 < (expected.language_probability or 0)
    found = post(server, wav(sound), language="auto", response_format="verbose_json").json()
    told = [(s["text"], s["language"], s["language_probability"]) for s in found["segments"]]
    assert told == [(s.text, s.language, round(s.language_probability or 0, 4)) for s in expected.segments if s.text]
    assert "warnings" not in found


def test_warnings_reach_every_client(server: Server) -> None:
    """A file that was cut short: what the command says of it, in each form of the answer; none of a whole one."""
    cut = SAMPLE.read_bytes()[:60000]
    (warning,) = Transcriber().transcribe(cut, language="en").warnings
    assert post(server, cut).json()["warnings"] == [warning]
    assert events(post(server, cut, stream="true"))[-1]["warnings"] == [warning]
    for style in ("text", "srt", "vtt"):
        assert json.loads(post(server, cut, response_format=style).headers["x-warnings"]) == [warning]
        assert "x-warnings" not in post(server, response_format=style).headers
    assert "warnings" not in events(post(server, stream="true"))[-1]


def test_a_header_of_many_warnings_is_short() -> None:
    """nginx takes 4 KiB of headers by default."""
    (header,) = warnings_header(["ä\n" * 1000] * 9).values()
    assert json.loads(header)[-1] == "4 more"
    assert header.isascii()
    assert header.isprintable()
    assert len(warnings_header(["x" * 1000] * 9)["X-Warnings"]) < 2048


def test_help_needs_nothing_but_the_standard_library() -> None:
    code = "import sys; sys.argv[1:] = ['--help']; sys.modules.update(numpy=None, uvicorn=None, onnxruntime=None); "
    code += "import runpy; runpy.run_module('cohere_lite.serve', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--max-queue" in done.stdout


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "websockets", "python_multipart"])
def test_what_is_missing_is_told_before_it_serves(missing: str) -> None:
    code = f"import sys; sys.modules['{missing}'] = None; sys.argv[1:] = ['--port', '0', '--model', 'nowhere']; "
    code += "import runpy; runpy.run_module('cohere_lite.serve', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'cohere-lite[serve]'" in done.stderr
    assert missing in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--language", "xx"], "this model knows de, en, es, fr"),
        (["--wyoming", "10300"], "tcp://HOST:PORT"),
        (["--zeroconf", "home"], "--wyoming"),
        (["--port", "99999"], "0 to 65535"),
        (["--host", "nowhere.invalid"], "--host nowhere.invalid"),
        (["--api-key", ""], "leave the option out"),
        (["--max-queue", "0"], "'0' is not a whole number from 1"),
    ],
)
def test_options_that_are_wrong(options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "cohere_lite.serve", "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken(server: Server) -> None:
    command = [sys.executable, "-m", "cohere_lite.serve", "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"error: --host 127.0.0.1 --port {server.port}: {os.strerror(errno.EADDRINUSE)}\n"


def test_json(server: Server) -> None:
    response = post(server)
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"text": SAID, "usage": {"type": "duration", "seconds": SAMPLE_S}}


@pytest.mark.parametrize(
    ("style", "content_type"), [("srt", "application/x-subrip"), ("vtt", "text/vtt"), ("text", "text/plain")]
)
def test_text_formats_are_those_of_the_command(server: Server, style: str, content_type: str) -> None:
    sound = repeated(3)
    pauses = None if style == "text" else Pauses()
    segments = Transcriber().transcribe(sound, rate=16000, pauses=pauses).segments
    response = post(server, wav(sound), response_format=style)
    assert response.text == "".join(render({"text": "txt"}.get(style, style), segments, "en"))
    assert response.headers["content-type"].startswith(content_type)


def test_verbose_json(server: Server) -> None:
    sound = repeated(2)
    facts = post(server, wav(sound), response_format="verbose_json").json()
    with Transcriber() as transcriber:
        expected = transcriber.transcribe(sound, rate=16000, pauses=Pauses())
    spoken = [segment for segment in expected.segments if segment.text]
    assert len(spoken) == 2
    assert (facts["task"], facts["language"], facts["duration"]) == ("transcribe", "english", 6.96)  # 2 (2.48 + 1) s
    assert facts["text"] == expected.text == f"{SAID} {SAID}"
    assert facts["segments"] == [
        {
            **{"id": number, "seek": round(100 * segment.start), "start": round(segment.start, 3)},
            **{"end": round(segment.end, 3), "text": SAID, "tokens": [*segment.tokens], "temperature": 0.0},
            "avg_logprob": round(segment.avg_logprob or 1, 4),
            "compression_ratio": 0.9737,  # 37 bytes, of which zlib makes 38
            "no_speech_prob": 0.0,
        }
        for number, segment in enumerate(spoken)
    ]
    assert "words" not in facts  # they were not asked for


def test_words(server: Server) -> None:
    """In verbose_json, as OpenAI names them, and where cues of subtitles are cut; those of the package itself."""
    sound = repeated(2)
    with Transcriber() as transcriber:
        expected = transcriber.transcribe(sound, rate=16000, pauses=Pauses(), word_times=True)
    fields = {"timestamp_granularities[]": ["word", "segment"]}
    facts = post(server, wav(sound), response_format="verbose_json", **fields).json()
    words = [word for segment in expected.segments for word in segment.words or ()]
    assert len(words) == 16
    found = [{"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in words]
    assert facts["words"] == found
    assert [segment["text"] for segment in facts["segments"]] == [SAID, SAID]
    cues = post(server, wav(sound), response_format="vtt", **fields).text
    assert cues == "".join(render("vtt", expected.segments, "en"))


@pytest.mark.parametrize(
    "fields",
    [{"include[]": "logprobs"}, {"include": "logprobs"}, {"include": ["a", "logprobs"]}, {"include": '["logprobs"]'}],
    ids=str,
)
def test_lists_in_any_form(server: Server, fields: dict) -> None:
    found = post(server, **fields).json()["logprobs"]
    assert "".join(token["token"] for token in found).strip() == SAID
    assert b"".join(bytes(token["bytes"]) for token in found).decode().strip() == SAID
    (segment,) = Transcriber().transcribe(SAMPLE).segments
    # the average has end-of-text, too, whose log-probability is negative
    total = sum(token["logprob"] for token in found)
    assert len(found) == len(segment.tokens)
    assert total > (segment.avg_logprob or 0) * (len(found) + 1)


def test_log_probabilities_of_pieces_side_by_side(server: Server) -> None:
    """Rows leave the batch as their texts end; each keeps its own numbers."""
    alone = post(server, include="logprobs").json()["logprobs"]
    sound = wav(repeated(9))
    together = post(server, sound, include="logprobs", response_format="verbose_json").json()["logprobs"]
    assert [token["token"] for token in together] == 9 * [token["token"] for token in alone]
    assert [token["logprob"] for token in together] == pytest.approx(9 * [t["logprob"] for t in alone], abs=0.2)


def test_unknown_fields_and_models_are_taken(server: Server) -> None:
    fields = {"temperature": "0.0", "prompt": "a", "model": "gpt-9", "chunking_strategy[type]": "server_vad"}
    response = post(server, **fields, **{"known_speaker_names[]": "x", "whatever": "[" * 100_000})
    assert response.json()["text"] == SAID


def test_a_long_field_takes_no_other_along(server: Server) -> None:
    """OpenAI's known_speaker_references are recordings as base64, and come before the fields that matter here."""
    fields = {"known_speaker_references[]": "data:audio/wav;base64," + "A" * 3_000_000, "response_format": "text"}
    assert post(server, **fields).text == SAID + "\n"


@pytest.mark.parametrize("language", ["en", "en-US", "EN", "english"])
def test_languages_in_any_form(server: Server, language: str) -> None:
    assert post(server, language=language).json()["text"] == SAID


def test_a_list_of_languages(server: Server) -> None:
    """gpt-transcribe's: the likeliest of those that this model knows; nothing is to be found if it knows one."""
    facts = post(server, **{"languages[]": ["xx", "de-AT"], "response_format": "verbose_json"}).json()
    assert (facts["language"], "languages" in facts) == ("german", False)
    assert error(post(server, **{"languages[]": ["xx", "yy"]})) == error(post(server, language="xx,yy"))
    facts = post(server, **{"languages[]": ["xx", "de-AT", "en"], "response_format": "verbose_json"}).json()
    assert (facts["text"], facts["language"], facts["languages"]) == (SAID, "english", [{"code": "en"}])


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"language": "pt-BR"}, "language", "de, en, es, fr"),
        ({"languages[]": "xx"}, "language", "'xx'"),
        ({"response_format": "xml"}, "response_format", "verbose_json"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "response_format=verbose_json"),
        (
            {"timestamp_granularities": '["word"]', "response_format": "verbose_json", "stream": "true"},
            "timestamp_granularities",
            "without stream",
        ),
    ],
)
def test_fields_that_make_no_sense(server: Server, fields: dict, param: str, said: str) -> None:
    response = post(server, **fields)
    assert response.status_code == 400
    assert error(response)["param"] == param
    assert said in error(response)["message"]


def events(response: httpx.Response) -> list[dict]:
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *parts, end, rest = response.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def test_a_stream(server: Server) -> None:
    found = events(post(server, wav(repeated(3)), stream="true", **{"include[]": "logprobs"}))
    *deltas, done = found
    assert [event["type"] for event in found] == 3 * ["transcript.text.delta"] + ["transcript.text.done"]
    assert "".join(event["delta"] for event in deltas) == done["text"] == " ".join(3 * [SAID])
    n = len(Transcriber(threads=1).transcribe(SAMPLE).segments[0].tokens)
    assert [event["logprobs"] for event in deltas] == [done["logprobs"][i : i + n] for i in (0, n, 2 * n)]
    # 10.44 s in frames of 80 ms
    usage = {"type": "tokens", "input_tokens": 130, "output_tokens": 3 * n, "total_tokens": 130 + 3 * n}
    assert {**done["usage"], "input_token_details": None} == usage | {"input_token_details": None}


def test_a_stream_with_times(server: Server) -> None:
    found = events(post(server, wav(repeated(2)), stream="true", timestamp_granularities='["segment"]'))
    segments = [event for event in found if event["type"] == "transcript.text.segment"]
    assert [segment["text"] for segment in segments] == [SAID, SAID]
    assert 0 <= segments[0]["start"] < segments[0]["end"] <= segments[1]["start"] < segments[1]["end"] <= 6.96


def test_a_stream_of_silence_has_one_event(server: Server) -> None:
    (done,) = events(post(server, wav(np.zeros(16000)), stream="true"))
    assert (done["type"], done["text"]) == ("transcript.text.done", "")


def test_silence(server: Server) -> None:
    assert post(server, wav(np.zeros(16000))).json()["text"] == ""


def test_a_failure_in_the_middle_of_a_stream(server: Server, tmp_path: Path) -> None:
    """NaN behind 3 sentences: what was heard before comes, then an error as OpenAI's clients expect it, and no end."""
    sound = np.concatenate([repeated(3) / 32768, [np.nan], samples() / 32768]).astype("<f4").tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0, b"WAVE", b"fmt ", 16, 3, 1, 16000, 64000, 4, 32, b"data", 0)
    response = post(server, header + sound, stream="true")
    *parts, last, rest = response.text.split("\n\n")
    assert rest == ""
    assert "NaN" in json.loads(last.removeprefix("data: "))["error"]["message"]
    assert [json.loads(part[6:])["delta"].strip() for part in parts] == 3 * [SAID]
    assert post(server, header + sound).status_code == 400


def test_an_unreadable_file_is_an_answer_of_its_own_in_a_stream(server: Server) -> None:
    response = post(server, b"", stream="true")
    assert response.status_code == 400
    assert error(response)["param"] == "file"


def test_node_sends_the_file_first_and_no_length(server: Server) -> None:
    boundary = "----x"
    parts = [
        ('name="file"; filename="unknown_file"\r\nContent-Type: application/octet-stream', SAMPLE.read_bytes()),
        ('name="model"', b"whisper-1"),
        ('name="response_format"', b"text"),
    ]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    body += f"--{boundary}--\r\n".encode()

    def chunks() -> Iterator[bytes]:
        for i in range(0, len(body), 1000):
            yield body[i : i + 1000]

    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    assert httpx.post(server.url + ROUTE, content=chunks(), headers=headers, timeout=60).text == SAID + "\n"


CONTAINERS = {
    "webm as MediaRecorder makes it": ("a.webm", "-c:a libopus -b:a 32k -f webm -live 1"),
    "mp4 whose index is at its end": ("a.mp4", "-c:a aac"),
    "ogg": ("a.ogg", "-c:a libopus"),
    "flac": ("a.flac", ""),
    "mp3": ("a.mp3", "-b:a 64k"),
    "wav at another rate": ("a.wav", "-ar 44100 -ac 2"),
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("name", ["upload", "späch.wav", "../../etc/passwd", "a.py"])
def test_the_bytes_alone_tell_the_container(server: Server, tmp_path: Path, kind: str, name: str) -> None:
    file, options = CONTAINERS[kind]
    data = converted(tmp_path, file, *options.split())
    assert post(server, data, name).json()["text"] == SAID


def test_wav_files_that_were_streamed(server: Server) -> None:
    """Whoever writes into a pipe does not know the sizes; others' servers answer with silence or an error."""
    whole = SAMPLE.read_bytes()
    at = whole.index(b"data") + 4
    data = whole[:4] + b"\xff" * 4 + whole[8:at] + b"\xff" * 4 + whole[at + 4 :]
    assert post(server, data).json()["text"] == SAID


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", wav(np.zeros(10_000_000)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"RIFF", "ends after 4 bytes"),
        (b"hello world, this is text\n" * 10, "text"),
        (zip_bomb(), "zip"),
        (b"\x00" * 5000, "not a WAV file"),
        (wav(np.zeros(10)), "10 ms is the least"),
        (b"\x1aE\xdf\xa3" + b"\x00" * 500, "Matroska"),
        (b"<html><body>404</body></html>", "failed download"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_hold_no_sound(server: Server, data: bytes, said: str) -> None:
    response = post(server, data)
    assert response.status_code == 400
    assert error(response)["param"] == "file"
    assert said in error(response)["message"]
    assert "/tmp" not in error(response)["message"]
    assert "audio stream" not in error(response)["message"]  # what the library calls an open file


@contextmanager
def watched(path: Path) -> Iterator[list[str]]:
    """Collects whether a file is opened by anybody (inotify, Linux)."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(descriptor, os.fsencode(path), 0x20) > 0  # IN_OPEN
    opened: list[str] = []
    try:
        yield opened
        try:
            os.read(descriptor, 4096)
            opened.append(str(path))
        except BlockingIOError:
            pass
    finally:
        os.close(descriptor)


PLAYLISTS = {
    "m3u8 of an address": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
    "m3u8 of a file": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{path}'\n",
    "concat of an address": "ffconcat version 1.0\nfile '{url}/a.wav'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}/</BaseURL></MPD>',
    "asx": '<asx version="3.0"><entry><ref href="{url}/a.wma"/></entry></asx>',
    "an address": "{url}/a.wav",
    "a path": "{path}",
}


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("disguise", [b"", b"RIFF\xff\xff\xff\xffWAVE", b"ID3\x04\0\0\0\0\0\0", b"OggS"])
def test_nothing_is_opened_that_a_client_names(server: Server, tmp_path: Path, kind: str, disguise: bytes) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(SAMPLE.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as listener, watched(secret) as opened:
        port = listener.getsockname()[1]
        playlist = PLAYLISTS[kind].format(url=f"http://127.0.0.1:{port}", path=secret, port=port)
        for name in ("a.wav", "a.m3u8", "a.mp4"):
            response = post(server, disguise + playlist.encode(), name)
            assert response.status_code == 400
            assert SAID not in response.text
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert opened == []


def test_the_watch_sees_a_file_that_is_opened(tmp_path: Path) -> None:
    with watched(tmp_path) as opened:
        os.listdir(tmp_path)
    assert opened == [str(tmp_path)]


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_an_upload_is_answered_before_it_is_read(server: Server, chunked: bool) -> None:
    """8 MB may come. Of 1 GB that is announced, nothing has to be sent; of what is not, little more than 8 MB."""
    n_sent = 0
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1000000000"
        client.sendall(
            f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\n{length}\r\n\r\n".encode()
        )
        if chunked:
            head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            client.sendall(b"%x\r\n%s\r\n" % (len(head), head))
            while n_sent < 9_000_000:
                client.sendall(b"10000\r\n" + b"\0" * 0x10000 + b"\r\n")
                n_sent += 0x10000
        client.settimeout(30)
        answer = b""
        while b"}}" not in answer:
            answer += client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 8 MB" in answer


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "/v1/audio/translations", 404, "does not translate"),
        ("POST", "/v1/audio/transcriptions/audio/transcriptions", 404, "base URL ends in /v1"),
        ("POST", "/audio/transcriptions", 404, "base URL ends in /v1"),
        ("POST", "/v1/chat/completions", 404, "/v1/audio/transcriptions"),
        ("GET", "/v1/audio/transcriptions", 405, "does not take GET"),
        ("GET", "/v1/models/a%2Fb", 404, "a/b"),
    ],
)
def test_routes_that_are_not_there(server: Server, method: str, path: str, status: int, said: str) -> None:
    response = httpx.request(method, server.url + path)
    assert response.status_code == status
    assert said in error(response)["message"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/json"}, b'{"file": "http://127.0.0.1/a.wav"}'),
        ({"Content-Type": "multipart/form-data"}, b""),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b""),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\nwhatever"),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nhalf',
        ),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; filename="x"\r\n\r\nx\r\n--b--\r\n',
        ),
        ({"Content-Type": "multipart/form-data; boundary=\xff".encode("latin-1").decode("latin-1")}, b"--"),
        ({"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=b"}, b"\x1f\x8b" + b"\0" * 1000),
    ],
)
def test_bodies_that_are_no_forms(server: Server, headers: dict, body: bytes) -> None:
    raw = {key: value.encode("latin-1") for key, value in headers.items()}
    response = httpx.post(server.url + ROUTE, headers=raw, content=body)
    assert response.status_code == 400
    error(response)


def test_a_form_in_other_letters(server: Server) -> None:
    """RFC 9110, 8.3.1: types of media are the same in any case."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + SAMPLE.read_bytes()
    headers = {"Content-Type": "Multipart/Form-Data; boundary=b"}
    response = httpx.post(server.url + ROUTE, headers=headers, content=body + b"\r\n--b--\r\n", timeout=60)
    assert response.json()["text"] == SAID


def test_models(server: Server) -> None:
    facts = httpx.get(server.url + "/v1/models").json()
    assert (facts["object"], [model["id"] for model in facts["data"]]) == ("list", ["demonstration"])
    assert httpx.get(server.url + "/v1/models/demonstration").json() == facts["data"][0]


def test_health(server: Server) -> None:
    response = httpx.get(server.url + "/health")
    assert (response.status_code, response.json()["status"]) == (200, "ok")


def test_metrics(server: Server) -> None:
    post(server)
    count = r'request_seconds_count\{route="/v1/audio/transcriptions"\}'
    before = server.metric("audio_seconds_total"), server.metric(count)
    post(server)
    post(server, b"")
    assert server.metric("audio_seconds_total") == pytest.approx(before[0] + SAMPLE_S, abs=0.002)
    assert server.metric(count) == before[1] + 2
    assert server.metric(r'request_seconds_bucket\{route="/v1/audio/transcriptions",le="\+Inf"\}') == before[1] + 2
    assert server.metric(r'requests_total\{route="/v1/audio/transcriptions",status="400"\}') >= 1
    text = httpx.get(server.url + "/metrics").text
    parser = pytest.importorskip("prometheus_client.parser")
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert families["cohere_lite_request_seconds"].type == "histogram"
    assert families["cohere_lite_recordings"].samples[0].value == 0


def test_nothing_that_was_said_is_logged(server: Server) -> None:
    post(server, name="secret-name.wav")
    until(lambda: server.lines[-1]["event"] == "served")
    assert "Turn" not in str(server.lines)
    assert "secret-name" not in str(server.lines)
    assert {"time", "event", "route", "status", "seconds", "audio_s"} <= set(server.lines[-1])


def test_no_origin_is_allowed_unless_asked_for(server: Server) -> None:
    response = httpx.options(server.url + ROUTE, headers=PREFLIGHT)
    assert "access-control-allow-origin" not in response.headers


PREFLIGHT = {
    "Origin": "app://obsidian.md",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, x-stainless-os",
}


def test_an_origin_that_is_allowed_and_a_key() -> None:
    with serving("--cors", "app://obsidian.md", COHERE_LITE_API_KEY="sésame") as server:
        response = httpx.options(server.url + ROUTE, headers=PREFLIGHT)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "app://obsidian.md"
        assert "authorization" in response.headers["access-control-allow-headers"].lower()
        origin = {"Origin": "app://obsidian.md"}
        for key in (None, "Bearer wrong", "Bearer", "sesame", "Bearer sésam"):
            headers = origin | ({"Authorization": key.encode()} if key else {})  # type: ignore[dict-item]
            response = httpx.post(server.url + ROUTE, files={"file": b"x"}, headers=headers)
            assert (response.status_code, error(response)["code"]) == (401, "invalid_api_key")
            assert response.headers["access-control-allow-origin"] == "app://obsidian.md"
        assert httpx.get(server.url + "/metrics").status_code == 401
        assert httpx.get(server.url + "/health").status_code == 200
        files = {"file": SAMPLE.read_bytes()}
        for key in ("Bearer sésame", "bearer   sésame", "BEARER sésame"):  # RFC 9110, 11.1: schemes, too
            headers = {"Authorization": key.encode()}  # type: ignore[dict-item]
            assert httpx.post(server.url + ROUTE, files=files, headers=headers, timeout=60).json()["text"] == SAID


def begin_upload(server: Server, length: int = 100_000, path: str = ROUTE) -> socket.socket:
    """A client that holds a place: half a body, the rest of which is to come."""
    client = socket.create_connection(("127.0.0.1", server.port))
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    client.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
        + head
    )
    return client


def test_the_door() -> None:
    """One recording at once; whoever comes then is told when to come again, and is let in when it does."""
    with serving("--max-queue", "1") as server:
        with begin_upload(server):
            until(lambda: server.metric("recordings") == 1)
            response = post(server)
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) > 0
            assert error(response)["type"] == "rate_limit_error"
        until(lambda: server.metric("recordings") == 0)
        assert post(server).json()["text"] == SAID


def test_the_deadline() -> None:
    """Also of an upload that never ends. A client that obeys does not ask again: it would only wait again."""
    with serving("--timeout", "1") as server, begin_upload(server) as client:
        client.settimeout(30)
        answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"x-should-retry: false" in answer.lower()
        until(lambda: server.metric("recordings") == 0)


def test_a_client_that_leaves_takes_its_work_with_it() -> None:
    """Half an hour of speech, of which most is never recognised."""
    with serving() as server:
        sound = wav(repeated(500))
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            tail = b"\r\n--b--\r\n"
            length = len(head) + len(sound) + len(tail)
            client.sendall(
                f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                f"Content-Length: {length}\r\n\r\n".encode()
                + head
                + sound
                + tail
            )
            until(lambda: server.metric("batches") >= 1)
        until(lambda: server.metric("recordings") == 0)
        assert server.metric("pieces_waiting") == 0
        assert post(server).json()["text"] == SAID
        assert server.metric("audio_seconds_total") < 1000  # of 1,740
        until(lambda: [line["status"] for line in server.lines if line["event"] == "served"] == ["gone", "200"])


def test_short_recordings_pass_long_ones() -> None:
    """A sentence does not wait for the end of 12 minutes; for how many pieces: test_serve_scheduler.py."""
    with serving() as server:
        answers = []
        hour = repeated(200)
        long = Thread(target=lambda: answers.append(post(server, wav(hour), response_format="srt")))
        long.start()
        until(lambda: server.metric("batches") >= 1)
        assert post(server).json()["text"] == SAID
        assert answers == []
        long.join()
        assert answers[0].text.count(SAID) == 200


def test_short_recordings_do_not_wait_for_the_end_of_many_long_ones() -> None:
    """20 of 12 minutes, more than are read at once: none of them is done by then. Short is what lasts for 2.5 s, or for
    35 s and 2 minutes, which are more than 1 MiB as WAV and as FLAC."""
    with serving() as server, ThreadPoolExecutor(20) as threads:
        hour = wav(repeated(200))
        long = [threads.submit(post, server, hour) for _ in range(20)]
        until(lambda: server.metric("recordings") == 20 and server.metric("pieces_waiting") >= 10)
        assert post(server).json()["text"] == SAID
        command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "flac", "-"]
        flac = subprocess.run(command, input=wav(repeated(35)), capture_output=True, check=True)
        for sound, n in ((wav(repeated(10)), 10), (flac.stdout, 35)):
            assert len(sound) > 1 << 20
            assert post(server, sound, response_format="srt").text.count(SAID) == n
        assert not any(answer.done() for answer in long)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.lines[-1]["event"] == "stopping")
        server.process.send_signal(signal.SIGINT)  # they are given up
        assert server.wait() == 0


def test_sigterm_answers_what_is_being_recognised(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with serving(TMPDIR=str(folder)) as server:
        answers = []
        data = converted(tmp_path, "a.ogg", "-c:a", "libopus", "-af", "aloop=40:39680,apad=pad_dur=1")
        threads = [Thread(target=lambda: answers.append(post(server, data))) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: server.metric("batches") >= 1)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert all(answer.json()["text"].count(SAID[:7]) > 20 for answer in answers)
        assert [*folder.iterdir()] == []
        assert [line["event"] for line in server.lines][-1] == "stopped"


def test_sigterm_does_not_wait_for_uploads() -> None:
    """Of a client that has sent half of one, and nothing more."""
    with serving() as server, begin_upload(server) as client:
        until(lambda: server.metric("recordings") == 1)
        server.process.send_signal(signal.SIGTERM)
        client.settimeout(60)
        assert client.recv(4096).startswith(b"HTTP/1.1 503 ")
        assert server.wait() == 0


def test_ctrl_c_while_it_stops_ends_at_once() -> None:
    """Half an hour of speech is given up, and its client is told so."""
    with serving() as server, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(post, server, wav(repeated(500)))
        until(lambda: server.metric("batches") >= 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.lines[-1]["event"] == "stopping")
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert answer.result().status_code == 503


def test_ctrl_c_while_a_stream_is_sent() -> None:
    """Half an hour of speech is given up, and its client is told so where it reads."""
    with serving() as server, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(post, server, wav(repeated(500)), stream="true")
        until(lambda: server.metric("batches") >= 3)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.lines[-1]["event"] == "stopping")
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0
        *_, last, rest = answer.result().text.split("\n\n")
        assert rest == ""
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the server is stopping"


def test_sigterm_refuses_what_has_not_begun() -> None:
    """40 files, of which some are read at once: those are answered whole, the others are told to come again."""
    with serving() as server, ThreadPoolExecutor(40) as threads:
        sound = wav(repeated(17))
        answers = [threads.submit(post, server, sound, response_format="srt") for _ in range(40)]
        until(lambda: server.metric("recordings") == 40 and server.metric("batches") >= 1)
        assert server.stop() == 0
        found = [answer.result() for answer in answers]
        assert {answer.status_code for answer in found} == {200, 503}
        assert {answer.text.count(SAID) for answer in found if answer.status_code == 200} == {17}


def test_what_a_stop_cuts_off_is_no_fault() -> None:
    """A body of which a part comes, or none, when the server stops: what reading it raises then is nobody's."""
    told: list[dict[str, Any]] = []

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ClientDisconnect from None

    async def stop() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        service = SimpleNamespace(stopping=asyncio.Event())
        asyncio.get_running_loop().call_later(0.01, service.stopping.set)
        assert await Service.unless_stopping(cast(Service, service), body()) is None

    asyncio.run(stop())
    gc.collect()
    assert told == []


def test_the_page_renders_what_it_was_told(server: Server) -> None:
    segments = [{"start": 0, "end": 2.5, "text": "a --> b"}, {"start": 3, "end": 4, "text": "c"}]
    asked = {"format": "srt", "language": "en", "segments": segments}
    response = httpx.post(server.url + "/render", json=asked)
    assert response.text == ("1\n00:00:00,000 --> 00:00:02,500\na - -> b\n\n2\n00:00:03,000 --> 00:00:04,000\nc\n\n")
    half = b'{"format": "srt", "segments": [{"start": 0, "end": 1, "text": "\\ud800"}]}'  # of a character
    for wrong in (b"[]", b"{}", b'{"format": "srt", "segments": [1]}', b"\xff", b"[" * 100_000, half):
        response = httpx.post(server.url + "/render", content=wrong)
        assert (response.status_code, bool(error(response))) == (400, True)
    response = httpx.post(server.url + "/render", content=b" " * 3_000_000)
    assert (response.status_code, error(response)["message"]) == (413, "the upload is larger than 2 MB")


@pytest.mark.parametrize(
    "segments",
    [[(1, 0, "a")], [(1, 2, "a"), (0, 1, "b")], [(0, 2, "a"), (1, 3, "b")], [(0, 35, "a" * 10_001)], [("nan", 1, "a")]],
    ids=["backwards", "out of order", "overlapping", "long", "no number"],
)
def test_what_would_take_long_to_render_is_refused(server: Server, segments: list[tuple]) -> None:
    """Cues that overlap are sorted and joined, again and again; and nothing stops the work on one text."""
    named = [{"start": start, "end": end, "text": text} for start, end, text in segments]
    response = httpx.post(server.url + "/render", json={"format": "srt", "segments": named})
    assert response.status_code == 400
    assert "segments must be in order" in error(response)["message"]


def test_subtitles_that_nobody_waits_for_any_more() -> None:
    """Of 1,000 cues none is made after that."""
    segments = [{"start": i, "end": i + 1, "text": "a"} for i in range(1000)]
    is_over = Event()
    is_over.set()
    assert rendering._subtitles(json.dumps({"format": "srt", "segments": segments}).encode(), is_over).body == b""


def test_rendering_ends_with_its_client(server: Server) -> None:
    """20 times 1.5 MB that take seconds each, whose clients leave: whoever comes then waits for none of them."""
    segments = [{"start": i, "end": i + 1, "text": 4900 * "a "} for i in range(150)]
    body = json.dumps({"format": "srt", "segments": segments}).encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"POST /render HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    until(lambda: [line["status"] for line in server.lines if line.get("route") == "/render"].count("gone") == 20)
    asked = {"format": "srt", "segments": segments[:1]}
    assert httpx.post(server.url + "/render", json=asked, timeout=60).status_code == 200


def test_a_full_disk_is_told() -> None:
    """By hand: RFC 4918, 11.5, Insufficient Storage."""
    response = requests.failure(OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 600)
    assert response.status_code == 507
    message = json.loads(bytes(response.body))["error"]["message"]
    assert message == f"the server has no room for the upload: {os.strerror(errno.ENOSPC)}"


def test_others_do_not_wait_for_what_is_rendered(server: Server) -> None:
    """300 segments in which there is much to wrap take a second or more."""
    segments = [{"start": i, "end": i + 1, "text": 50 * "a b "} for i in range(300)]
    n_answers = 0
    with ThreadPoolExecutor(1) as threads:
        asked = {"format": "srt", "language": "en", "segments": segments}
        rendering = threads.submit(httpx.post, server.url + "/render", json=asked, timeout=600)
        while not rendering.done():
            n_answers += httpx.get(server.url + "/health", timeout=600).status_code == 200
        assert rendering.result().text.count("-->") >= 300
    assert n_answers > 3


def test_others_do_not_wait_for_an_answer_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written only when the event loop has gone on."""
    has_gone_on, sent = Event(), []
    monkeypatch.setattr(transcriptions, "answer", lambda *facts: str(has_gone_on.wait(10)))

    class Nothing:
        warnings = ()

        async def __aiter__(self) -> AsyncIterator[object]:
            for heard in ():
                yield heard

    async def send(message: Any) -> None:
        sent.append(message)

    async def write() -> None:
        asyncio.get_running_loop().call_later(0.05, has_gone_on.set)
        wanted = transcriptions._Wanted({"language": "en"}, "srt", False, False, False)
        await transcriptions.Transcriptions(None)._answer(Nothing(), wanted, {"type": "http"}, None, send)  # type: ignore[arg-type]

    asyncio.run(write())
    assert sent[-1]["body"] == b"True"
