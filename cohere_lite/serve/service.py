"""What all routes share: the model, the door, the threads, the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from os.path import basename, normpath
from typing import Any, BinaryIO, TypeVar

from ..errors import OptionError
from ..extras.languages import language_code
from ..model import HUB_NAME
from ..transcribe import Transcriber
from .log import log
from .metrics import Metrics
from .models import Recogniser
from .recordings import FileRecording, LiveRecording, OnHeard
from .scheduler import Scheduler

# Files that are read at once, by seconds of sound up to which they are; others wait, on the disk. A file is read for as
# long as it is recognised, which shorter ones need not wait for.
_READERS = {60.0: 8, 600.0: 4, inf: 6}
_LIVE = 2  # threads that cut live sound, which takes about a thousandth of its length
RETRY_AFTER_S = 5
STOPPING = "the server is stopping"

T = TypeVar("T")


class Refused(Exception):
    """The door is closed. status: HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Asked:
    """One recording that somebody asked for, for the log and the metrics. status: HTTP's, or what became of it."""

    route: str
    status: str = "gone"  # the client, unless somebody says otherwise
    audio_s: float = 0.0
    began: float = field(default_factory=time.monotonic)


class Service:
    """One model, many clients. For the event loop's thread."""

    def __init__(
        self, transcriber: Transcriber, language: str, max_queue: int, max_upload: int, timeout_s: float
    ) -> None:
        """language: where a client names none;  max_queue: recordings at once;  max_upload: bytes;  timeout_s: from a
        request's first byte to its answer."""
        self.transcriber, self.max_queue, self.max_upload, self.timeout_s = (
            transcriber,
            max_queue,
            max_upload,
            timeout_s,
        )
        self.language = self.known_language(language)
        self.metrics = Metrics()
        self.n_open = 0  # recordings
        self.stopping = asyncio.Event()
        self._files: set[FileRecording] = set()
        self._scheduler = Scheduler(Recogniser(transcriber))
        self._readers = {most_s: ThreadPoolExecutor(n, f"file of up to {most_s:g} s") for most_s, n in _READERS.items()}
        self._live_threads = ThreadPoolExecutor(_LIVE, "live")
        self.rendering_thread = ThreadPoolExecutor(1, "subtitles")

    @property
    def model_id(self) -> str:
        """Of the model, for clients: the hub's name of it, or its folder's last one."""
        name = str(self.transcriber.facts["name"])
        return name if HUB_NAME.fullmatch(name) and not name.startswith(("/", ".")) else basename(normpath(name))

    def known_language(self, name: str) -> str:
        """ "en" for "en-US" and "English"; "auto" and "en,de", of which the one that is spoken is found, as they are.
        Raises OptionError."""
        code = language_code(name)
        if code != "auto" and not {*code.split(",")} <= {*self.transcriber.languages}:
            known = ", ".join(self.transcriber.languages)
            raise OptionError(f"language is {name!r}; this model knows {known}, and auto")
        return code

    def named(self, language: str) -> str | None:
        """None of what `known_language` lets through and is no language, such as "auto"."""
        return language if language in self.transcriber.languages else None

    @contextmanager
    def admitted(self, route: str) -> Iterator[Asked]:
        """The door: a recording is there as long as this block. Raises Refused where there are too many, or at the
        end. What is raised in it, or `status`, is logged and counted."""
        asked = Asked(route)
        try:
            if self.stopping.is_set():
                raise Refused(503, STOPPING)
            if self.n_open >= self.max_queue:
                raise Refused(429, f"{self.n_open} recordings are being served, as many as there may be; try again")
            self.n_open += 1
            try:
                yield asked
            finally:
                self.n_open -= 1
        except Refused as refused:
            asked.status = str(refused.status)
            raise
        finally:
            seconds = time.monotonic() - asked.began
            self.metrics.answered(asked.route, asked.status, seconds, asked.audio_s)
            log("served", route=route, status=asked.status, seconds=round(seconds, 3), audio_s=round(asked.audio_s, 3))

    @contextmanager
    def file(self, file: BinaryIO, options: dict[str, Any], is_watched: bool) -> Iterator[FileRecording]:
        """A file that is recognised as long as this block. Arguments: see FileRecording. Raises Refused at the end."""
        if self.stopping.is_set():
            file.close()
            raise Refused(503, STOPPING)
        recording = FileRecording(file, options, self.transcriber, self._scheduler, self._readers, is_watched)
        self._files.add(recording)
        try:
            yield recording
        finally:
            self._files.discard(recording)
            recording.cancel()

    def live(self, rate: int, options: dict[str, Any], on_heard: OnHeard) -> LiveRecording:
        """A live recording, to be cancelled in the end. Arguments and errors: see LiveRecording."""
        return LiveRecording(rate, options, on_heard, self.transcriber, self._scheduler, self._live_threads)

    async def unless_stopping(self, awaitable: Awaitable[T]) -> T | None:
        """What it gives; None when the server stops before. Then it is cancelled."""
        task, stop = asyncio.ensure_future(awaitable), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)  # or what it raised would be told as a fault

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For the metrics."""
        return {
            "recordings": ("Recordings that are being served, uploads and live ones included.", self.n_open),
            "pieces_waiting": ("Pieces of audio that wait for the model.", self._scheduler.n_waiting),
            "batches": ("Batches that the model has decoded.", self._scheduler.n_batches),
        }

    async def drain(self) -> None:
        """Closes the door, refuses what has not begun, and waits for the rest."""
        self.stopping.set()
        for recording in self._files:
            if not recording.is_begun:
                recording.fail(Refused(503, STOPPING))
        while self.n_open:
            await asyncio.sleep(0.02)

    def give_up(self) -> None:
        """Refuses what has begun, too."""
        for recording in self._files:
            recording.fail(Refused(503, STOPPING))

    def close(self) -> None:
        """Ends the threads. Whatever is still there is dropped."""
        self.stopping.set()
        for recording in self._files:
            recording.cancel()
        for threads in (*self._readers.values(), self._live_threads, self.rendering_thread):
            threads.shutdown(cancel_futures=True)
        self._scheduler.close()
