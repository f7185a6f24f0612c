"""Anything that holds sound -> blocks of frames: WAV files and arrays here, others through extras/."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from math import inf
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import AudioError, NotWav, OptionError, naming, number
from .reader import ASYNC_READ, bytes_left
from .wav import Audio, open_pcm, open_wav

AudioFile = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

# Worked on at once: of an array; of a block that comes live, enough for pieces to be decoded side by side.
_ARRAY_FRAMES, _LIVE_FRAMES = 1 << 16, 1 << 21
_NO_RECORDING_IS_LONGER_S = 1e9  # 30 years
_OFFSETS = {"i2": 0, "i4": 0, "u1": 1}  # of integers as WAV files have them, where full scale is 1
_MAX_SAMPLE = 1e15  # full scale is 1. Only damaged files hold more, whose power over 512 samples may overflow float32


def check_stretch(start: float, end: float | None) -> tuple[float, float | None]:
    """Both as Python's numbers. Raises OptionError for seconds that no stretch of a recording begins and ends at."""
    start = number("start", start, "a number of seconds")
    end = None if end is None else number("end", end, "a number of seconds, or None")
    if not 0 <= start < (inf if end is None else end):
        raise OptionError(f"from {start} to {'the end' if end is None else end} is no stretch: 0 <= start < end (s)")
    return start, end


@contextmanager
def open_audio(source: AudioFile, raw: str | None = None, track: int | None = None) -> Iterator[Audio]:
    """Opens a path, a file's bytes, or an open binary file, which may be a pipe and is then read as its bytes come.
    raw: "RATE:FORMAT:CHANNELS" such as "16000:s16le:1", for samples without a header. track: of several audio tracks,
    from 0; None for the default one.

    What is not a WAV file is converted by the program ffmpeg if it is on the PATH, else by the Python package soundfile
    if it is installed. Bytes and open files are copied into a temporary file for that; pipes cannot be converted.

    Raises AudioError for what cannot be read, OptionError for a raw format or a track that makes no sense, OSError. An
    AudioError that is raised while the recording is open names it."""
    track = None if track is None else number("track", track, "a whole number from 0, or None", least=0, whole=True)
    with ExitStack() as stack:
        file, name = _open_file(source, stack)
        stack.enter_context(naming(name))
        start = None  # of a pipe
        with suppress(OSError, AttributeError):
            start = file.tell()
        if start and bytes_left(file) == 0:  # it has just been written, or read
            raise AudioError("is at its end; seek(0) before it is read")
        try:
            audio = open_wav(file) if raw is None else _open_raw(file, raw)
        except NotWav as not_wav:
            try:
                from .extras.convert import converted
            except ImportError:
                missing = "other files need cohere_lite/extras/convert.py, which is not in this copy"
                raise AudioError(f"{not_wav}; {missing}") from None
            path = name if isinstance(source, (str, os.PathLike)) else None
            audio = stack.enter_context(converted(not_wav, file, start, path, track))
        else:
            if track is not None:
                raise OptionError(f"track is {track}, but WAV files and raw samples have no tracks")
        yield replace(audio, name=name)


def _open_raw(file: BinaryIO, raw: str) -> Audio:
    try:
        from .extras.raw import parse_raw
    except ImportError:
        raise OptionError("raw samples need cohere_lite/extras/raw.py, which is not in this copy") from None
    return open_pcm(file, *parse_raw(raw))


def open_blocks(blocks: Iterable[NDArray], rate: int) -> Audio:
    """Samples as they come: arrays as in as_frames, all of as many channels, which Recording checks. A block that is
    not such an array raises AudioError when it comes, TypeError if it is no array."""
    return Audio(rate, None, in_parts(blocks, _LIVE_FRAMES), live=True)


def open_array(samples: NDArray, rate: int) -> Audio:
    """Samples in memory, as in open_blocks."""
    duration = len(samples) / float(rate) if samples.ndim and rate > 0 else None
    return Audio(rate, duration, in_parts([samples], _ARRAY_FRAMES), name="the array")


def in_parts(blocks: Iterable[NDArray], n_at_once: int, n_channels: int = 0) -> Generator[NDArray, None, None]:
    """Blocks as in open_blocks -> float frames (n, channels), at most n_at_once of them: what works on frames takes
    memory in proportion.  n_channels: if they are known already"""
    for block in blocks:
        if getattr(block, "ndim", 0) == 0:
            as_frames(block)  # raises what is to be said of it
        if block.ndim == 2 and block.shape[1] > max(64, len(block), n_channels):
            raise AudioError(f"samples of shape {block.shape}: so many channels? Expected (n,) or (n, channels)")
        n_channels = n_channels or block.shape[-1]
        for i in range(0, max(1, len(block)), n_at_once):
            yield as_frames(block[i : i + n_at_once])


def as_frames(samples: NDArray) -> NDArray:
    """Float (n,) or (n, channels) as it is, or integers as WAV files have them (_OFFSETS) scaled to -1..1 -> float
    (n, channels). Raises AudioError for other shapes and types, and masked samples; TypeError for what is not an array.
    """
    if not isinstance(samples, np.ndarray):
        raise TypeError(f"expected samples as NumPy arrays, not {type(samples).__name__}")
    if np.ma.is_masked(samples):
        raise AudioError("masked samples; pass samples.filled(0) for silence in their place")
    samples = np.asarray(samples)  # no subclass: a column of a matrix has two axes
    kind = samples.dtype.kind + str(samples.dtype.itemsize)  # in any byte order
    if samples.dtype.kind != "f" and kind not in _OFFSETS:
        fields = f"pass one of its fields, as samples[{samples.dtype.names[0]!r}]" if samples.dtype.names else ""
        expected = fields or "expected float in -1..1, or int16, int32, uint8 as in WAV files"
        raise AudioError(f"samples of type {samples.dtype}; {expected}")
    frames = samples[:, None] if samples.ndim == 1 else samples
    if frames.ndim != 2 or frames.shape[1] == 0:
        raise AudioError(f"samples of shape {samples.shape}; expected (n,) or (n, channels)")
    return frames if kind not in _OFFSETS else frames.astype(float) / 2 ** (8 * samples.itemsize - 1) - _OFFSETS[kind]


def stretch(audio: Audio, start: float, end: float | None) -> Iterator[NDArray]:
    """The frames from start to end (seconds; None: the end of the recording) in blocks (n, channels), any n >= 0.
    Raises OptionError if there is nothing from start on, AudioError if the recording has been read already."""
    start, end = check_stretch(start, end)
    if inspect.getgeneratorstate(audio.blocks) != inspect.GEN_CREATED:
        raise AudioError("has been read already; open it again")
    rate = float(audio.rate)  # of NumPy's integers, a caller's may be too small to count frames with
    first, last = (round(min(second, _NO_RECORDING_IS_LONGER_S) * rate) for second in (start, end or inf))
    position = 0  # frames read
    for frames in audio.blocks:
        yield frames[max(0, first - position) : max(0, last - position)]
        position += len(frames)
        if position >= last:
            return
    if 0 < first >= position:
        raise OptionError(f"the recording ends at {position / rate:.2f} s; there is nothing from {start:g} s on")


def mix(frames: NDArray, channel: int | str | None) -> NDArray[np.float32]:
    """Float (n, channels) -> float32 (n, 1), the mean of the channels, or the one that `channel` names (from 0); or all
    of them as they are, for "split". Raises OptionError for a channel that is not there."""
    n_channels = frames.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):  # usable_frames finds them
        if channel is None and n_channels > 1:
            # float64, so that only the mean is rounded to float32; faster than frames.mean, without BLAS (resample.py)
            frames = np.einsum("ij->i", frames, dtype=np.float64, casting="same_kind")[:, None] / n_channels
        elif channel not in (None, "split"):
            if channel not in range(n_channels):
                known = "channel 0" if n_channels == 1 else f"channels 0 to {n_channels - 1}"
                raise OptionError(f"channel is {channel!r}, but the recording has only {known}")
            frames = frames[:, int(channel), None]
        return frames.astype(np.float32)


def usable_frames(samples: NDArray) -> int:
    """How many frames come before the first NaN, infinity or number beyond 1e15; samples: float (n, k)."""
    usable = (np.abs(samples) <= _MAX_SAMPLE).all(axis=1)
    return len(usable) if usable.all() else int(np.argmin(usable))


def _open_file(source: AudioFile, stack: ExitStack) -> tuple[BinaryIO, str]:
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        try:
            return stack.enter_context(open(source, "rb")), path
        except OSError as error:
            try:
                from .extras.hints import path_hint

                error.strerror = path_hint(path, error.strerror)
            except ImportError:
                pass  # what the system says of it is all, then
            raise
        except ValueError as error:  # a NUL in it
            raise AudioError(f"a path that cannot be: {error}") from None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), "audio bytes"
    if isinstance(source, io.TextIOBase):
        raise TypeError("expected a binary file: open it with mode 'rb'")
    if hasattr(source, "read"):
        if inspect.iscoroutinefunction(source.read):
            raise TypeError(ASYNC_READ)
        name = getattr(source, "name", None)  # of a pipe: a number
        return source, name if isinstance(name, str) else "audio stream"
    raise TypeError(f"expected a path, bytes or a binary file, not {type(source).__name__}")
