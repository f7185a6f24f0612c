"""The service as a process of its own, as its clients meet it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
from conftest import until

from cohere_lite.audio import open_audio

SAMPLE = Path(__file__).parents[1] / "cohere_lite/demo/sample.wav"
SAID = "Turn on the light in the living room."  # in the sample, as the README says
SAMPLE_S = 2.48  # of the sample: 39,680 frames at 16 kHz


class Server:
    """url, wyoming_port: where it listens;  lines: what it has logged"""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict] = []
        self.errors: list[dict] = []  # warnings, tracebacks
        self._reader = Thread(target=self._read)
        self._reader.start()
        until(lambda: "listening" in [line["event"] for line in self.http_lines()] or process.poll() is not None)
        assert process.poll() is None, self.errors
        self.url = self.http_lines()[0]["url"]
        self.port = int(self.url.rsplit(":", 1)[1])

    def http_lines(self) -> list[dict]:
        return [line for line in self.lines if line["event"] != "listening" or line["url"].startswith("http")]

    @property
    def wyoming_port(self) -> int:
        return next(int(line["url"].rsplit(":", 1)[1]) for line in self.lines if str(line.get("url")).startswith("tcp"))

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            found = json.loads(line) if line.startswith("{") else {"level": "not JSON", "event": line}
            (self.errors if "level" in found else self.lines).append(found)

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        found = re.search(rf"^cohere_lite_{name} (\S+)$", text, re.M)
        assert found, text
        return float(found[1])

    def held(self) -> tuple[int, int, int]:
        """Descriptors, threads and child processes that it has."""
        here = Path(f"/proc/{self.process.pid}")
        children = (here / "task" / str(self.process.pid) / "children").read_text().split()
        return len([*(here / "fd").iterdir()]), len([*(here / "task").iterdir()]), len(children)

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        return code


@contextmanager
def serving(*options: str, **variables: str) -> Iterator[Server]:
    """With the demonstration model, at a free port. Fails where it wrote anything to standard error but its log."""
    command = [sys.executable, "-m", "cohere_lite.serve", "--port", "0", "--threads", "1", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | variables) as process:
        try:
            server = Server(process)
            yield server
            if process.poll() is None:
                assert server.stop() == 0
            assert not server.errors, server.errors
        finally:
            process.kill()
            server._reader.join()


def samples() -> np.ndarray:
    """The sample's, int16, 16 kHz."""
    with wave.open(str(SAMPLE)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def wav(sound: np.ndarray, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(sound.astype(np.int16).tobytes())
    return file.getvalue()


def repeated(n: int, pause_s: float = 1.0) -> np.ndarray:
    """The sample n times, with noise of one bit between, at which nobody speaks."""
    pause = np.random.default_rng(0).integers(-1, 2, round(pause_s * 16000)).astype(np.int16)
    return np.concatenate([part for _ in range(n) for part in (samples(), pause)])


def converted(tmp_path: Path, name: str, *options: str) -> bytes:
    """The sample as ffmpeg writes it."""
    path = tmp_path / name
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", SAMPLE, *options, path], check=True)
    return path.read_bytes()


def is_readable(data: bytes) -> bool:
    with open_audio(data) as audio:
        return sum(len(frames) for frames in audio.blocks) > 0
