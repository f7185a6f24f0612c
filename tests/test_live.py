"""A pipe read ahead: nothing is lost, nothing waits for a full buffer, and what is ahead has an end."""

import importlib
import io
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import COMMAND, until
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import SUMMARY
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite import Pauses, Transcriber
from cohere_lite.cli.run import main
from cohere_lite.cli.stdin import ReadAhead

stdin = importlib.import_module("cohere_lite.cli.stdin")  # also where all modules are one file
pytestmark = pytest.mark.usefixtures("sigint")
SPEECH = SAMPLE.read_bytes()[44:]
SILENCE = bytes(2 * 16000)  # a second
fcntl = pytest.importorskip("fcntl", reason="pipes and signals as POSIX has them")
termios = pytest.importorskip("termios", reason="pipes and signals as POSIX has them")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 60))
def test_gives_what_it_read(blocks: list[bytes], size: int) -> None:
    class Blocks(io.RawIOBase):
        def __init__(self) -> None:
            self.left = list(blocks)

        def read(self, size: int = -1) -> bytes:
            return self.left.pop(0) if self.left else b""

    ahead = ReadAhead(Blocks(), "blocks")  # type: ignore[arg-type]
    found = b""
    while part := ahead.read(size):
        found += part
    assert found == b"".join(blocks)


def test_what_is_there_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that stays open: 3 bytes come, though 100 are asked for. `end` ends it, without an end of the file, but
    for what is written on the same occasion."""
    monkeypatch.setattr(stdin, "_LAST_WORDS_S", 60)
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as file, open(writing, "wb", buffering=0) as sink:
        ahead = ReadAhead(file, "pipe")  # type: ignore[arg-type]
        sink.write(b"abc")
        assert ahead.read(100) == b"abc"
        sink.write(b"def")
        until(lambda: ahead._n_bytes == 3)
        ahead.end()
        sink.write(b"ghi")
        until(lambda: ahead._n_bytes == 6)
        assert ahead.read(2) == b"de"
        assert ahead.read(100) == b"f"
        assert ahead.read(100) == b"ghi"
        ahead._deadline = 0  # the 60 s are over
        assert ahead.read(100) == b""
        sink.write(b"x")  # too late
        assert ahead.read(100) == b""


def test_end_keeps_what_is_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 3 bytes may be ahead; the second block waits until the first is taken, and the end comes before that."""
    monkeypatch.setattr(stdin, "_MAX_AHEAD_BYTES", 2)
    monkeypatch.setattr(stdin, "_LAST_WORDS_S", 60)
    parts, over = [b"abc", b"def"], threading.Event()

    class Parts(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            if parts:
                return parts.pop(0)
            over.wait(60)
            return b""

    ahead = ReadAhead(Parts(), "parts")  # type: ignore[arg-type]
    until(lambda: not parts)
    ahead.end()
    assert ahead.read(100) == b"abc"
    assert ahead.read(100) == b"def"
    ahead._deadline = 0  # the 60 s are over
    assert ahead.read(100) == b""
    over.set()


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_pipe_that_does_not_block(buffering: int) -> None:
    """It has nothing for a while, which is not its end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=buffering) as file, open(writing, "wb", buffering=0) as sink:
        ahead = ReadAhead(file, "pipe")  # type: ignore[arg-type]
        for part in (b"abc", b"def"):
            time.sleep(0.05)
            sink.write(part)
            found = b""
            while len(found) < len(part):
                found += ahead.read(100) or pytest.fail("the pipe is open")
            assert found == part
        sink.close()
        assert ahead.read(100) == b""


def test_what_is_ahead_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 10 bytes may be ahead, so reading stops after the 4th block of 3; all of it comes in the end."""
    monkeypatch.setattr(stdin, "_MAX_AHEAD_BYTES", 10)
    taken: list[int] = []

    class Counter(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            taken.append(len(taken))
            return b"abc" if len(taken) <= 20 else b""

    ahead = ReadAhead(Counter(), "counter")  # type: ignore[arg-type]
    until(lambda: len(taken) == 5)  # the 5th is in hand
    assert ahead._n_bytes == 12
    assert ahead.read(1) == b"a"
    time.sleep(0.05)
    assert len(taken) == 5  # 11 bytes are still too many
    rest = b""
    while part := ahead.read(7):
        rest += part
    assert b"a" + rest == b"abc" * 20


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_an_error_comes_after_what_was_read(error: Exception) -> None:
    parts = [b"abc"]

    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            if parts:
                return parts.pop()
            raise error

    ahead = ReadAhead(Broken(), "broken")  # type: ignore[arg-type]
    assert ahead.read(10) == b"abc"
    with pytest.raises(type(error)):
        ahead.read(10)


# The command line


class Live:
    """The command line at the end of a pipe that stays open."""

    def __init__(self, *args: str) -> None:
        reading, writing = os.pipe()
        self.reading, self.writing = reading, open(writing, "wb", buffering=0)  # noqa: SIM115 - closed at exit
        self.printed = b""
        command = [*COMMAND, "--quiet", *args, "-"]
        self.process = subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()
        self.writing.close()
        os.close(self.reading)

    def say(self, data: bytes) -> None:
        """Writes, and waits until it has been read."""
        while data:
            data = data[self.writing.write(data) :]
        until(lambda: fcntl.ioctl(self.reading, termios.FIONREAD, b"\0\0\0\0") == b"\0\0\0\0")

    def line(self) -> str:
        """The next one, from a process that may go on; within a minute."""
        assert self.process.stdout is not None
        stdout = self.process.stdout.fileno()
        while b"\n" not in self.printed:
            assert select.select([stdout], [], [], 60)[0]
            self.printed += os.read(stdout, 1000) or pytest.fail("the process has ended")
        line, _, self.printed = self.printed.partition(b"\n")
        return f"{line.decode()}\n"


def header() -> bytes:
    """As arecord writes it to a pipe: 16 kHz mono, 2 GB of data to come."""
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH4sI", 16, 1, 1, 16000, 32000, 2, 16, b"data", 2**31)


@pytest.mark.parametrize("raw", [False, True])
def test_each_phrase_comes_as_the_speaker_pauses(raw: bool) -> None:
    """The pipe stays open all the time; Ctrl-C ends the recording, and what was said last is not lost."""
    with Live(*(["--raw", "16000:s16le:1"] if raw else [])) as command:
        command.say((b"" if raw else header()) + SPEECH + SILENCE)
        assert command.line() == f"{SAMPLE_TEXT}\n"
        command.say(SPEECH + SILENCE)
        assert command.line() == f"{SAMPLE_TEXT}\n"
        command.say(SPEECH)
        command.process.send_signal(signal.SIGINT)
        rest, errors = command.process.communicate(timeout=60)
        assert (rest.decode(), errors.decode()) == (f"{SAMPLE_TEXT}\n", "interrupted\n")
        assert command.process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_recording(number: signal.Signals, tmp_path: Path) -> None:
    """docker stop, systemctl stop, a terminal that is closed: as Ctrl-C; and the process dies of the signal, as whoever
    sent it expects. A second one, which some send, changes nothing."""
    with Live("--raw", "16000:s16le:1") as command:
        command.say(SPEECH + SILENCE)
        assert command.line() == f"{SAMPLE_TEXT}\n"
        command.say(SPEECH)
        for _ in range(2):
            command.process.send_signal(number)
        rest, errors = command.process.communicate(timeout=60)
        assert (rest.decode(), errors.decode()) == (f"{SAMPLE_TEXT}\n", "interrupted\n")
        assert command.process.returncode == -number
    with Live("--raw", "16000:s16le:1", "-f", "json", "-o", str(tmp_path)) as command:
        command.say(SPEECH + SILENCE)
        until((tmp_path / "stdin.json").exists)
        command.say(SPEECH)
        command.process.send_signal(number)
        command.process.communicate(timeout=60)
        record = json.loads((tmp_path / "stdin.json").read_text())
        assert (record["text"], record["complete"]) == (f"{SAMPLE_TEXT} {SAMPLE_TEXT}", False)


def test_nohup_stays_in_force() -> None:
    """A signal that whoever started us has switched off."""
    reading, writing = os.pipe()
    command = ["bash", "-c", 'trap "" HUP; exec "$@"', "_", *COMMAND, "-q", "--raw", "16000:s16le:1", "-"]
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE) as process, open(writing, "wb", 0) as sink:
        sink.write(SPEECH[:60000])
        until(lambda: fcntl.ioctl(reading, termios.FIONREAD, bytes(4)) == bytes(4))
        process.send_signal(signal.SIGHUP)
        sink.write(SPEECH[60000:])
        sink.close()
        assert process.communicate(timeout=60) == (f"{SAMPLE_TEXT}\n".encode(), None)
    os.close(reading)


@pytest.mark.slow
def test_a_phrase_comes_though_nothing_else_does() -> None:
    """The source stops in the middle of a pause, and then goes on. Or a WAV file has ended, and the pipe has not: as
    soon as another one comes, it is transcribed, too."""
    with Live("--raw", "16000:s16le:1") as command:
        for _ in range(2):
            command.say(SPEECH[:-6400])
            assert command.line() == f"{SAMPLE_TEXT}\n"
    with Live() as command:
        for _ in range(2):
            command.say(SAMPLE.read_bytes())
            assert command.line() == f"{SAMPLE_TEXT}\n"


@pytest.mark.slow
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_phrase_comes_from_a_pipe_of_a_program(buffering: int) -> None:
    """As above, in another program, which reads a pipe that blocks: by a file object, or by the name of a pipe."""
    reading, writing = os.pipe()
    segments = Transcriber().segments
    with open(reading, "rb", buffering=buffering) as file, open(writing, "wb", buffering=0) as sink:
        spoken = (segment.text for segment in segments(file, pauses=Pauses()) if segment.text)  # type: ignore[arg-type]
        for start in header(), b"":
            threading.Thread(target=sink.write, args=[start + SPEECH[:-6400]]).start()  # more than a pipe holds
            assert next(spoken) == SAMPLE_TEXT
        sink.close()
        assert list(spoken) == []


def test_a_signal_ends_a_named_pipe(tmp_path: Path) -> None:
    """What was said last is kept, as from standard input."""
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen([*COMMAND, "-q", str(tmp_path / "fifo")], stdout=subprocess.PIPE) as process:
        with open(tmp_path / "fifo", "wb", 0) as sink:
            sink.write(header() + SPEECH + SILENCE)
            assert process.stdout is not None
            assert process.stdout.readline() == f"{SAMPLE_TEXT}\n".encode()
            sink.write(SPEECH)
            until(lambda: fcntl.ioctl(sink, termios.FIONREAD, bytes(4)) == bytes(4))
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == f"{SAMPLE_TEXT}\n".encode()
        assert process.wait() == -signal.SIGTERM


@pytest.mark.slow
def test_a_phrase_comes_from_a_named_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = [*COMMAND, "-q", "--cut", "pauses", "-f", "srt", str(tmp_path / "fifo")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, open(tmp_path / "fifo", "wb", 0) as sink:
        assert process.stdout is not None
        sink.write(header() + SPEECH[:-6400])
        assert process.stdout.readline() == b"1\n"
        sink.close()
        assert process.stdout.read().endswith(f"{SAMPLE_TEXT}\n\n".encode())


def test_each_phrase_is_written_as_it_comes(tmp_path: Path) -> None:
    with Live("--raw", "16000:s16le:1", "--output-dir", str(tmp_path), "--format", "srt") as command:
        command.say(SPEECH + SILENCE)
        until(lambda: (tmp_path / "stdin.srt").exists() and SAMPLE_TEXT in (tmp_path / "stdin.srt").read_text())


def test_split_channels_come_as_the_speakers_pause() -> None:
    """The other channel is silent all the time. By construction: the sample on the left, then on the right."""
    left = np.zeros((len(SPEECH) // 2 + 16000, 2), "<i2")
    left[: len(SPEECH) // 2, 0] = np.frombuffer(SPEECH, "<i2")
    with Live("--raw", "16000:s16le:2", "--channels", "split") as command:
        for samples, expected in (left, "[0]"), (left[:, ::-1], "[1]"), (left, "[0]"):
            command.say(samples.tobytes())
            assert command.line() == f"{expected} {SAMPLE_TEXT}\n"


def test_ctrl_c_while_nothing_comes(tmp_path: Path) -> None:
    """A pipe that says too little to be a recording, and one that has just been opened."""
    os.mkfifo(tmp_path / "fifo")
    pipe: tuple[int, ...]
    reading, writing = pipe = os.pipe()
    try:
        for file in ("-", str(tmp_path / "fifo")):
            command = [*COMMAND, "--verbose", file]
            with subprocess.Popen(command, stdin=reading, stderr=subprocess.PIPE) as process:
                if file == "-":
                    os.write(writing, b"R")
                    until(lambda: fcntl.ioctl(reading, termios.FIONREAD, bytes(4)) == bytes(4))
                else:
                    pipe = (*pipe, os.open(file, os.O_WRONLY))  # waits until it is opened for reading
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=60)
                assert process.returncode == 130
                assert errors.endswith(b"interrupted\n")
                assert b"1 file, 0.0 s of audio in " in errors
    finally:
        for end in pipe:
            os.close(end)


def test_in_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where signals cannot be handled."""
    (tmp_path / "sample.wav").write_bytes(SAMPLE.read_bytes())
    codes: list[int] = []
    with open(tmp_path / "sample.wav") as file:
        monkeypatch.setattr(sys, "stdin", file)
        thread = threading.Thread(target=lambda: codes.append(main(["--quiet", "-"])))
        thread.start()
        thread.join(timeout=60)
    assert codes == [0]


def test_the_end_of_the_pipe_is_the_end() -> None:
    with Live() as command:
        command.say(header() + SPEECH[:-1])
        command.writing.close()
        rest, errors = command.process.communicate(timeout=60)
        assert rest.decode() == f"{SAMPLE_TEXT}\n"
        assert errors.decode() == (
            "warning: standard input: the last frame has 1 of its 2 bytes: using the whole samples\n"
        )
        assert command.process.returncode == 0


@pytest.mark.parametrize("style", ["srt", "json"])
def test_other_formats_from_a_pipe(style: str) -> None:
    """By construction: two phrases, two cues or two segments with text."""
    data = header() + SPEECH + SILENCE + SPEECH
    command = [*COMMAND, "--quiet", "--format", style, "-"]
    text = subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode()
    if style == "srt":
        assert [line for line in text.splitlines() if line and line[0].isalpha()] == [SAMPLE_TEXT] * 2
    else:
        assert text.count(f'"text": "{SAMPLE_TEXT}"') == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"error: standard input: empty \(0 bytes\)"),
        (header(), r"error: standard input: holds 0\.0 ms of sound; 10 ms is the least"),
        (
            b"fLaC\0\0\0\x22" + bytes(100),
            r"error: standard input: a FLAC file; for a pipe, convert before it: ffmpeg",
        ),
        (b"hello", r"error: standard input: a text file, beginning 'hello'"),
    ],
)
def test_pipes_without_sound(data: bytes, message: str) -> None:
    result = subprocess.run([*COMMAND, "--quiet", "-"], input=data, capture_output=True)
    assert result.returncode == 1
    assert re.match(message, result.stderr.decode())
    assert result.stdout == b""


def test_a_terminal_is_no_pipe() -> None:
    controller, terminal = os.openpty()
    result = subprocess.run([*COMMAND, "--quiet", "-"], stdin=terminal, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: standard input: there is no pipe to read from; as in: arecord")
    os.close(controller)
    os.close(terminal)


def test_a_closed_standard_input() -> None:
    result = subprocess.run(["bash", "-c", 'exec "$@" <&-', "_", *COMMAND, "-"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "there is no pipe to read from" in result.stderr


def test_summary_counts_what_was_heard() -> None:
    """By hand: 2.48 s of speech and 1 s of silence."""
    result = subprocess.run([*COMMAND, "-"], input=header() + SPEECH + SILENCE, capture_output=True, check=True)
    assert re.search(SUMMARY, result.stderr.decode())
    assert "1 file, 3.5 s of audio in" in result.stderr.decode()


def test_no_thread_is_left_waiting() -> None:
    """Of a file that ends, the thread ends, too."""
    before = threading.active_count()
    ahead = ReadAhead(io.BytesIO(bytes(10)), "bytes")
    assert ahead.read(10) == bytes(10)
    assert ahead.read(10) == b""
    until(lambda: threading.active_count() == before)
