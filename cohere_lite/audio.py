"""Anything that holds sound -> blocks of samples: WAV by our own reader, raw PCM, arrays, and all else through ffmpeg
or soundfile, whichever the machine has.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from math import inf
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .codings import A_LAW, IEEE_FLOAT, MU_LAW, PCM, Coding, find_coding
from .errors import AudioError, OptionError
from .wav import Audio, NotWav, open_pcm, open_wav

AudioFile = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

# Raw sample formats by ffmpeg's names: format tag, bits, byte order.
RAW_FORMATS = {
    "u8": (PCM, 8, "<"),
    **{f"s{bits}{end}": (PCM, bits, order) for bits in (16, 24, 32) for end, order in (("le", "<"), ("be", ">"))},
    **{f"f{bits}{end}": (IEEE_FLOAT, bits, order) for bits in (32, 64) for end, order in (("le", "<"), ("be", ">"))},
    "alaw": (A_LAW, 8, "<"),
    "mulaw": (MU_LAW, 8, "<"),
}
_BLOCK_FRAMES = 1 << 16  # of an array, or of soundfile's, at once
_LONG_BLOCK_FRAMES = 1 << 21  # of a block that came live: enough for pieces to be decoded side by side
_MAX_CHANNELS = 65535  # what a WAV header can say
_NO_RECORDING_IS_LONGER_S = 1e9  # 30 years
_MAX_SAMPLE = 1e15  # full scale is 1. The power of 512 larger ones may be beyond float32; only damaged files hold them


def parse_raw(raw: str) -> tuple[Coding, int, int]:
    """ "16000:s16le:1" -> coding, channels, rate. Raises OptionError."""
    try:
        rate, format, channels = raw.split(":")
        format_tag, bits, byte_order = RAW_FORMATS[format]
        if not (0 < int(channels) <= _MAX_CHANNELS and int(rate) > 0):
            raise ValueError
    except (ValueError, KeyError):
        formats = ", ".join(RAW_FORMATS)
        raise OptionError(
            f"raw is {raw!r}; expected RATE:FORMAT:CHANNELS, such as 16000:s16le:1; formats: {formats}"
        ) from None
    coding = find_coding(format_tag, bits, int(channels), 0, byte_order)
    assert coding is not None  # all of RAW_FORMATS are known
    return coding, int(channels), int(rate)


def check_stretch(start: float, end: float | None) -> None:
    """Raises OptionError for seconds that no stretch of any recording begins and ends at."""
    if not 0 <= start < (inf if end is None else end):
        raise OptionError(f"from {start} to {'the end' if end is None else end} is no stretch: 0 <= start < end (s)")


@contextmanager
def open_audio(source: AudioFile, raw: str | None = None) -> Iterator[Audio]:
    """Opens a path, a file's bytes, or an open binary file, which may be a pipe and is then read as its bytes come.

    raw: "RATE:FORMAT:CHANNELS" such as "16000:s16le:1", for samples without a header.

    What is no WAV file is converted by the program ffmpeg if it is on the PATH, else by the Python package soundfile if
    it is installed. Bytes and open files are copied into a temporary file for that; pipes cannot be converted.

    Raises AudioError for what cannot be read, OptionError for a raw format that makes no sense, OSError.
    """
    with ExitStack() as stack:
        file, name = _open_file(source, stack)
        if raw is not None:
            yield open_pcm(file, name, *parse_raw(raw))
            return
        try:
            start = file.tell()
        except (OSError, AttributeError):  # a pipe
            start = None
        try:
            audio = open_wav(file, name)
        except NotWav as not_wav:
            if start is None:
                raise AudioError(f"{not_wav}; for a pipe, convert before it: ffmpeg -i IN -f wav - | ...") from None
            if isinstance(source, (str, os.PathLike)):
                path = os.fsdecode(source)
            else:
                file.seek(start)
                path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "audio")
                with open(path, "wb") as copy:
                    shutil.copyfileobj(file, copy)
            from .extras.convert import converted

            audio = stack.enter_context(converted(path, name, not_wav))
        yield audio


def open_blocks(blocks: Iterable[NDArray], rate: int, name: str = "the audio") -> Audio:
    """Samples as they come: arrays of float (n,) or (n, channels) in -1..1, or int16; all of as many channels.

    Raises OptionError for the rate, AudioError for a block that is none: the first at once, others as they come.
    """
    if not float(rate).is_integer():
        raise OptionError(f"rate is {rate}; it must be a whole number of Hz")
    rest = (_checked_frames(part) for block in blocks for part in _parts(block, _LONG_BLOCK_FRAMES))
    first = next(rest, np.zeros((0, 1)))
    n_channels = first.shape[1]
    if n_channels > max(64, len(first)):
        raise AudioError(f"samples of shape {first.shape}: so many channels? Expected (n,) or (n, channels)")

    def alike() -> Iterator[NDArray]:
        for block in chain([first], rest):
            if block.shape[1] != n_channels:
                raise AudioError(f"{name}: a block of {block.shape[1]} channels after blocks of {n_channels}")
            yield block

    return Audio(name, int(rate), n_channels, None, alike(), live=True)


def open_array(samples: NDArray, rate: int) -> Audio:
    """Samples in memory, as in open_blocks."""
    audio = open_blocks(_parts(samples, _BLOCK_FRAMES), rate, "the array")
    return replace(audio, duration=len(samples) / rate if rate > 0 else None, live=False)


def _parts(block: NDArray, n_frames: int) -> Iterator[NDArray]:
    """Of a long block, one after the other: what works on them takes memory in proportion."""
    if getattr(block, "ndim", 0) == 0:  # not samples at all
        yield block
    else:
        yield from (block[i : i + n_frames] for i in range(0, max(1, len(block)), n_frames))


def mixed(audio: Audio, channel: int | str | None, start: float, end: float | None) -> Iterator[NDArray[np.float32]]:
    """The stretch from start to end (seconds) in blocks of float32 (n, k), any n >= 0: k = 1, the mean of the channels
    or the one that `channel` names (from 0); or k = all of them, for "split".

    Raises OptionError for a channel or a stretch that is not there, AudioError for numbers beyond 1e15, once all before
    them has been given. In what is not asked for, other stretches and other channels, they do not matter.
    """
    if channel not in (None, "split") and channel not in range(audio.channels):
        raise OptionError(f"channel is {channel!r}, but {audio.name} has {audio.channels}, counted from 0")
    check_stretch(start, end)
    first = round(min(start, _NO_RECORDING_IS_LONGER_S) * audio.rate)
    last = None if end is None or end > _NO_RECORDING_IS_LONGER_S else round(end * audio.rate)
    position = 0  # frames read
    for frames in audio.blocks:
        wanted = frames[max(0, first - position) : None if last is None else max(0, last - position)]
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            samples = _mix(wanted, channel).astype(np.float32)
        usable = (np.abs(samples) <= _MAX_SAMPLE).all(axis=1)
        if not usable.all():
            n_usable = int(np.argmin(usable))
            yield samples[:n_usable]
            second = (max(first, position) + n_usable) / audio.rate
            raise AudioError(f"{audio.name}: NaN, infinity or a number beyond 1e15 at {second:.3f} s")
        position += len(frames)
        yield samples
        if last is not None and position >= last:
            return
    if 0 < first >= position:
        raise OptionError(f"{audio.name} ends at {position / audio.rate:.2f} s; there is nothing from {start:g} s on")


def _mix(frames: NDArray, channel: int | str | None) -> NDArray:
    """(n, channels) -> (n, 1), or as it is."""
    n_channels = frames.shape[1]
    if channel is None and n_channels > 1:
        # float64, so that the sum of the channels does not round
        return frames @ np.full((n_channels, 1), 1 / n_channels)
    return frames if channel in (None, "split") else frames[:, int(channel), None]


def _checked_frames(samples: NDArray) -> NDArray:
    """(n, channels), float."""
    if not isinstance(samples, np.ndarray):
        raise TypeError(f"expected samples as NumPy arrays, not {type(samples).__name__}")
    frames = samples[:, None] if samples.ndim == 1 else samples
    if frames.ndim != 2 or frames.shape[1] == 0:
        raise AudioError(f"samples of shape {samples.shape}; expected (n,) or (n, channels)")
    if samples.dtype == np.int16:
        return frames.astype(np.float64) / 2**15
    if samples.dtype.kind != "f":
        raise AudioError(f"samples of type {samples.dtype}; expected float in -1..1, or int16")
    return frames


def _open_file(source: AudioFile, stack: ExitStack) -> tuple[BinaryIO, str]:
    if isinstance(source, (str, os.PathLike)):
        return stack.enter_context(open(source, "rb")), os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), "audio bytes"
    if isinstance(source, io.TextIOBase):
        raise TypeError("expected a binary file: open it with mode 'rb'")
    if hasattr(source, "read"):
        name = getattr(source, "name", None)  # of a pipe: a number
        return source, name if isinstance(name, str) else "audio stream"
    raise TypeError(f"expected a path, bytes or a binary file, not {type(source).__name__}")
