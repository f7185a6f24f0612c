"""A file, or sound as it comes -> pieces for the scheduler -> what is heard in them, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from os import SEEK_END
from threading import Condition
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..audio import open_audio
from ..errors import AudioError
from ..transcribe import Transcriber
from .models import Cutting, Heard, Piece
from .scheduler import Cancelled, Scheduler, Share

ROOM = 2  # pieces of a file that may wait for the model
# Files up to here are short, 33 s as 16-bit WAV, some minutes compressed; and from there on long: to look how long they
# are would write a copy of them for ffmpeg.
SHORT_BYTES, LONG_BYTES = 1 << 20, 1 << 26
LIVE_S = 120.0  # seconds of live sound that may wait for the model; then whoever sends it waits
OnHeard = Callable[[Piece, Heard | Exception], None]


class FileRecording:
    """A file that is recognised: `async for heard in recording`. Its threads and files end when it is cancelled, which
    its user has to do in any case.

    warnings: of the audio, complete when all is heard;  duration_s: of what was read so far
    """

    def __init__(
        self,
        file: BinaryIO,
        options: dict[str, Any],
        transcriber: Transcriber,
        scheduler: Scheduler,
        readers: Mapping[float, Executor],
        is_watched: bool,
    ) -> None:
        """file: is closed in the end;  options: of Transcriber.recording;  readers: threads for files of up to so many
        seconds, the shortest first;  is_watched: somebody sees the text come: the first piece waits for no others, none
        until its language is sure, and what was read before the audio failed is heard, too."""
        self.warnings: list[str] = []
        self.duration_s = 0.0
        self.is_begun = False
        self._file, self._options, self._transcriber, self._scheduler = file, options, transcriber, scheduler
        self._is_watched = self._is_urgent = is_watched
        self._share = Share()
        self._n_put = self._n_taken = self._n_heard = 0  # pieces, by the model
        self._changed = Condition()  # one of these, or the share
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[Heard | Exception | None] = asyncio.Queue()
        self._readers = readers
        first, *_, last = readers.values()
        n_bytes = file.seek(0, SEEK_END)
        file.seek(0)
        reader = first if n_bytes < LONG_BYTES else last
        read = self._choose_reader if SHORT_BYTES < n_bytes < LONG_BYTES else self._read
        with self._changed:  # before _choose_reader changes it
            self._reading: Future[None] = reader.submit(read)

    async def __aiter__(self) -> AsyncIterator[Heard]:
        """Raises what the audio, the model or `fail` raised: AudioError, ModelError, ..."""
        while (heard := await self._heard.get()) is not None:
            if isinstance(heard, Exception):
                raise heard
            yield heard

    def cancel(self) -> None:
        """Its pieces leave the queue, its thread ends soon, its file is closed."""
        self._scheduler.cancel(self._share)
        with self._changed:
            self._changed.notify()
            is_unread = self._reading.cancel()
        if is_unread:
            self._file.close()

    def fail(self, error: Exception) -> None:
        """Ends it with an error."""
        self.cancel()
        self._heard.put_nowait(error)

    def _choose_reader(self) -> None:
        """By the length of the sound, which bytes do not tell."""
        length_s = self._length_s()
        reader = next(reader for most_s, reader in self._readers.items() if length_s <= most_s)
        with self._changed:
            if not self._share.is_cancelled:
                self._reading = reader.submit(self._read)
                return
        self._file.close()

    def _length_s(self) -> float:
        """As far as it matters: a header may promise less than comes, so that the rest is read."""
        *_, enough_s, _ = self._readers
        length_s = 0.0
        with suppress(Exception), open_audio(self._file) as audio:  # the reader tells what is wrong
            n_frames = 0
            for frames in audio.blocks:
                n_frames += len(frames)
                length_s = max(audio.duration or 0.0, n_frames / audio.rate)
                if length_s > enough_s or self._share.is_cancelled:
                    break
        self._file.seek(0)
        return length_s

    def _read(self) -> None:
        self.is_begun = True
        try:
            with open_audio(self._file) as audio:
                cutting = Cutting(self._transcriber, audio.rate, self._options, self._is_watched)
                try:
                    for frames in audio.blocks:
                        if self._share.is_cancelled:  # there may be no piece for long: in silence, or without an end
                            raise Cancelled
                        self._put(cutting.push(frames))
                        self.duration_s = cutting.position_s
                except AudioError:
                    if self._is_watched:
                        with suppress(AudioError):
                            self._put(cutting.finish())
                        self._wait_until_heard()
                    raise
                self._put(cutting.finish())
                self._wait_until_heard()
            self.warnings = [*audio.missing, *audio.warnings, *cutting.recording.warnings]
            self._tell(None)
        except Cancelled:
            pass
        except Exception as error:
            if isinstance(error, AudioError):
                error.name = None  # not the client's name of it, which we do not know
            self._tell(error)
        finally:
            self._file.close()

    def _wait_until_heard(self) -> None:
        self._wait_for(lambda: self._n_heard == self._n_put)

    def _put(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._wait_for(lambda: self._n_put - self._n_taken < ROOM)
            self._n_put += 1
            self._scheduler.put(self._share, piece, self._is_urgent, self._deliver, self._taken)
            self._is_urgent &= piece.seconds == 0

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Raises Cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._share.is_cancelled or condition())
        if self._share.is_cancelled:
            raise Cancelled

    def _taken(self) -> None:
        with self._changed:
            self._n_taken += 1
            self._changed.notify()

    def _deliver(self, heard: list[Heard] | Exception) -> None:
        for one in [heard] if isinstance(heard, Exception) else heard:
            self._tell(one)
        with self._changed:
            self._n_heard += 1
            self._changed.notify()

    def _tell(self, heard: Heard | Exception | None) -> None:
        if not self._share.is_cancelled:
            self._loop.call_soon_threadsafe(self._heard.put_nowait, heard)


class LiveRecording:
    """Sound as it comes; whoever begins one cancels it in the end.

    n_waiting: pieces that on_heard has still to be called for;  waiting_s: their length
    """

    def __init__(
        self,
        rate: int,
        options: dict[str, Any],
        on_heard: OnHeard,
        transcriber: Transcriber,
        scheduler: Scheduler,
        threads: Executor,
    ) -> None:
        """options: of Transcriber.recording;  on_heard: is called for each piece, in order, with what was heard in it,
        or why that failed. Raises OptionError, AudioError."""
        self._cutting = Cutting(transcriber, rate, options, is_watched=True)
        self._on_heard, self._scheduler, self._threads = on_heard, scheduler, threads
        self._share = Share()
        self._loop = asyncio.get_running_loop()
        self.n_waiting, self.waiting_s = 0, 0.0
        self._less_waits = asyncio.Event()

    @property
    def position_s(self) -> float:
        """Seconds that were pushed."""
        return self._cutting.position_s

    @property
    def is_speech(self) -> bool:
        """Whether a phrase has begun; only of recordings cut at pauses."""
        return self._cutting.is_speech

    async def push(self, frames: NDArray) -> list[Piece]:
        """The next frames (n, channels) -> the pieces that they complete, which are on their way to the model. Waits
        while too much waits for the model. Raises AudioError."""
        await self._waits_for(lambda: self.waiting_s <= LIVE_S)
        return self._put(await self._loop.run_in_executor(self._threads, self._cutting.push, frames, True))

    async def push_nothing(self) -> list[Piece]:
        """As `push`, while nothing comes: some sources send nothing in silence, which ends a phrase, too."""
        return await self.push(np.zeros((0, 1)))

    async def finish(self) -> list[Piece]:
        """The last pieces. Raises AudioError for less than 10 ms."""
        return self._put(await self._loop.run_in_executor(self._threads, self._cutting.finish))

    async def all_heard(self) -> None:
        """Waits until on_heard has been called for every piece."""
        await self._waits_for(lambda: not self.n_waiting)

    def cancel(self) -> None:
        """What waits for the model is dropped."""
        self._scheduler.cancel(self._share)

    async def _waits_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._less_waits.clear()
            await self._less_waits.wait()

    def _put(self, pieces: list[Piece]) -> list[Piece]:
        for piece in pieces:
            self.n_waiting += 1
            self.waiting_s += piece.end_s - piece.start_s
            self._scheduler.put(self._share, piece, True, partial(self._tell, piece))
        return pieces

    def _tell(self, piece: Piece, heard: list[Heard] | Exception) -> None:
        one = heard if isinstance(heard, Exception) else heard[0]  # whoever is watched does not wait
        self._loop.call_soon_threadsafe(self._take, piece, one)

    def _take(self, piece: Piece, heard: Heard | Exception) -> None:
        self.n_waiting -= 1
        self.waiting_s -= piece.end_s - piece.start_s
        self._less_waits.set()
        if not self._share.is_cancelled:
            self._on_heard(piece, heard)
