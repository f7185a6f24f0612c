"""All that can be opened: raw samples by hand, arrays, stretches and channels by formula; other formats by what was
written into them (lossless ones: sample for sample) and by soundfile's word for it."""

import codecs
import importlib
import io
import itertools
import os
import pickle
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import wave
from math import fsum, inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wav import FLOAT, IMA_ADPCM, IMA_BLOCK, MU_LAW, Pipe, rf64, rifx, w64, wav

from cohere_lite.audio import (
    as_frames,
    mix,
    open_array,
    open_audio,
    open_blocks,
    stretch,
    usable_frames,
)
from cohere_lite.errors import AudioError, OptionError, naming
from cohere_lite.extras.raw import RAW_FORMATS
from cohere_lite.reader import read_some

try:
    import soundfile
except ImportError:
    soundfile = None

convert = importlib.import_module("cohere_lite.extras.convert")  # also where all modules are one file
ffmpeg = importlib.import_module("cohere_lite.extras.ffmpeg")
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not on the PATH")
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def needs_soundfile(test):
    return pytest.mark.reference(pytest.mark.skipif(soundfile is None, reason="soundfile is not installed")(test))


SAMPLES = np.random.default_rng(0).integers(-(2**15), 2**15, (2000, 2)).astype(np.int16)  # 2000 frames, stereo


def everything(audio):
    """float (n, channels)"""
    return np.concatenate([*audio.blocks] or [np.zeros((0, 1))])


def read(source, raw=None):
    """All frames, rate, warnings."""
    with open_audio(source, raw) as audio:
        return everything(audio), audio.rate, [*audio.missing, *audio.warnings]


def heard(audio, channel=None, start=0.0, end=None):
    """float32 (n, k) of a stretch"""
    blocks = [mix(frames, channel) for frames in stretch(audio, start, end)]
    assert all(block.dtype == np.float32 for block in blocks)
    return np.concatenate(blocks)


def column(values):
    return [[value] for value in values]


# Raw samples


RAW = {  # by hand: -1, then 0.5, then the smallest step or, of floats, 1.5
    "u8": (b"\x00\xc0\x81", [-1, 0.5, 2**-7]),
    "s16le": (b"\x00\x80\x00\x40\x01\x00", [-1, 0.5, 2**-15]),
    "s16be": (b"\x80\x00\x40\x00\x00\x01", [-1, 0.5, 2**-15]),
    "s24le": (bytes.fromhex("000080 000040 010000"), [-1, 0.5, 2**-23]),
    "s24be": (bytes.fromhex("800000 400000 000001"), [-1, 0.5, 2**-23]),
    "s32le": (struct.pack("<3i", -(2**31), 2**30, 1), [-1, 0.5, 2**-31]),
    "s32be": (struct.pack(">3i", -(2**31), 2**30, 1), [-1, 0.5, 2**-31]),
    "f32le": (struct.pack("<3f", -1, 0.5, 1.5), [-1, 0.5, 1.5]),
    "f32be": (struct.pack(">3f", -1, 0.5, 1.5), [-1, 0.5, 1.5]),
    "f64le": (struct.pack("<3d", -1, 0.5, 1.5), [-1, 0.5, 1.5]),
    "f64be": (struct.pack(">3d", -1, 0.5, 1.5), [-1, 0.5, 1.5]),
    # G.711, tables 1 and 2: the largest values, the smallest one
    "alaw": (b"\xaa\x2a\xd5", [4032 / 4096, -4032 / 4096, 1 / 4096]),
    "mulaw": (b"\x80\x00\xff", [8031 / 8192, -8031 / 8192, 0]),
}


@pytest.mark.parametrize("format", RAW_FORMATS)
def test_raw(tmp_path, format):
    data, expected = RAW[format]
    path = tmp_path / "a.raw"
    path.write_bytes(data)
    for source in path, data, io.BytesIO(data), Pipe(data, 1), Pipe(data, 7):
        frames, rate, warnings = read(source, f"8000:{format}:1")
        assert (frames.tolist(), rate, warnings) == (column(expected), 8000, [])
    stereo, rate, _ = read(data * 2, f"48000:{format}:2")  # the six samples, two by two
    assert (stereo.tolist(), rate) == (np.reshape(expected * 2, (3, 2)).tolist(), 48000)


@pytest.mark.parametrize(("channels", "frame"), [(1, 2), (3, 6)])
def test_raw_bytes_that_are_no_frame_are_told(channels, frame):
    frames, _, warnings = read(b"\x00\x40" * channels + b"\1", f"8000:s16le:{channels}")
    assert frames.tolist() == [[0.5] * channels]
    assert warnings == [f"the last frame has 1 of its {frame} bytes: using the whole samples"]


def test_raw_data_may_look_like_a_file():
    """By hand: "LIST" and "RIFF" as two 16-bit samples each."""
    frames, _, _ = read(b"LISTRIFF", "8000:s16le:1")
    assert frames.tolist() == column(value / 2**15 for value in (0x494C, 0x5453, 0x4952, 0x4646))


def test_no_raw_samples():
    frames, _, warnings = read(b"", "8000:s16le:2")
    assert (len(frames), warnings) == (0, [])


@pytest.mark.parametrize(
    "raw",
    [
        *("", "16000", "16000:s16le", "16000:s16le:1:1", "16000:s17le:1"),
        *("x:s16le:1", "1.5:s16le:1", "0:s16le:1", "-1:s16le:1"),
        *("16000:s16le:x", "16000:s16le:0", "16000:s16le:65536"),
    ],
)
def test_raw_formats_that_are_none(raw):
    with pytest.raises(OptionError, match=f"raw is '{raw}'; expected RATE:FORMAT:CHANNELS.*; formats: u8, s16le, "):
        read(b"\0\0", raw)


@posix
def test_an_endless_device():
    with open_audio("/dev/zero", "16000:s16le:1") as audio:
        assert audio.duration is None
        assert heard(audio, end=1.5).tolist() == [[0.0]] * 24_000


# Arrays and blocks


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_what_they_are(dtype):
    mono = np.array([-1, 0.5, 1.5], dtype)
    assert heard(open_array(mono, 8000)).tolist() == column([-1, 0.5, 1.5])
    assert heard(open_array(np.stack([mono, -mono], axis=1), 8000), 1).tolist() == column([1, -0.5, -1.5])


def test_int16_arrays_are_scaled():
    assert heard(open_array(np.array([-(2**15), 0, 2**14], np.int16), 8000)).tolist() == column([-1, 0, 0.5])


def test_arrays_of_more_than_one_block():
    values = np.arange(200_000, dtype=np.float32)
    np.testing.assert_array_equal(heard(open_array(values, 8000))[:, 0], values)
    wide = np.zeros((65_540, 100), np.float32)  # and a last block with fewer frames than channels
    assert heard(open_array(wide, 8000), "split").shape == wide.shape


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_an_empty_array(shape):
    audio = open_array(np.zeros(shape, np.float32), 8000)
    assert audio.duration == 0
    assert heard(audio, "split").shape == (0, len(shape))


def test_blocks_are_fetched_as_they_are_asked_for():
    fetched = []

    def recorder():
        for i in range(3):
            fetched.append(i)
            yield np.full(i, i / 4, np.float32)

    audio = open_blocks(recorder(), 8000)
    assert (fetched, audio.live, audio.duration) == ([], True, None)
    blocks = stretch(audio, 0.0, None)
    assert (next(blocks).tolist(), fetched) == ([], [0])
    assert (next(blocks).tolist(), fetched) == ([[0.25]], [0, 1])
    assert next(blocks).tolist() == [[0.5], [0.5]]
    assert list(blocks) == []


def test_no_blocks():
    assert list(stretch(open_blocks([], 8000), 0.0, None)) == []


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\); expected \(n,\) or \(n, channels\)"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
        (np.zeros(()), r"shape \(\)"),
        (np.zeros((2, 16000)), r"shape \(2, 16000\): so many channels"),  # (channels, n), as some libraries give
        (np.zeros(5, np.int64), "type int64; expected float in -1..1, or int16, int32, uint8 as in WAV files"),
        *(
            (np.zeros(5, dtype), f"type {dtype}")
            for dtype in ("bool", "complex128", "object", "int8", "uint16", "uint32")
        ),
        (np.zeros(5, [("left", "<i2"), ("right", "<i2")]), "pass one of its fields, as samples\\['left'\\]"),
        (np.zeros(5, [("left", "<i2")]).view(np.recarray), "pass one of its fields, as samples\\['left'\\]"),
        (np.ma.array([1.0, 2.0], mask=[True, False]), r"masked samples; pass samples.filled\(0\)"),
        (np.zeros((1, 100)).view(np.matrix), r"shape \(1, 100\): so many channels"),
    ],
)
def test_arrays_that_are_no_audio(samples, message):
    for audio in open_array(samples, 8000), open_blocks([samples], 8000):
        with pytest.raises(AudioError, match=message):
            next(audio.blocks)


def test_blocks_that_are_no_audio():
    for bad in [0.5], "text":
        with pytest.raises(TypeError, match=f"expected samples as NumPy arrays, not {type(bad).__name__}"):
            next(open_blocks([bad], 8000).blocks)


def test_duration():
    """By formula: frames / rate, of what is there; None when only the end will tell."""

    def duration(source, raw=None):
        with open_audio(source, raw) as audio:
            return audio.duration, audio.live

    data = bytes(32_000)
    for build in wav, rifx, rf64, w64:
        assert duration(build(data)) == (1.0, False)
        assert duration(build(data, channels=2, rate=8000)) == (1.0, False)
        assert duration(build(data, tag=FLOAT, bits=64)) == (0.25, False)
        assert duration(build(data, tag=MU_LAW, bits=8, rate=8000)) == (4.0, False)
        # 9 frames in a block of 8 bytes
        assert duration(build(IMA_BLOCK * 16_000, tag=IMA_ADPCM, bits=4, block_align=8, rate=8000)) == (18.0, False)
        assert duration(Pipe(build(data), 99)) == (1.0, True)  # the header's word
    for size in 0, 0xFFFFFFFF:
        assert duration(wav(data, size=size)) == (1.0, False)
        assert duration(Pipe(wav(data, size=size), 99)) == (None, True)
    assert duration(wav(data, size=64_000)) == (1.0, False)  # cut short
    assert duration(wav(data) + b"LIST\4\0\0\0INFO") == (1.0, False)
    assert duration(data, "8000:s16le:1") == (2.0, False)
    assert duration(Pipe(data, 99), "8000:s16le:1") == (None, True)
    array = open_array(np.zeros((8000, 2)), 16000)
    assert (array.duration, array.live) == (0.5, False)
    assert duration(wav(b"")) == (None, True)  # nothing there yet, perhaps


# Channels and stretches


def test_channels():
    """By hand; the third frame's numbers are the largest, and their sum is larger."""
    frames = np.array([[0.5, -0.25], [1, 0], [9.9e14, 9.9e14]], np.float32)
    assert heard(open_array(frames, 8000)).tolist() == column([0.125, 0.5, float(np.float32(9.9e14))])
    assert heard(open_array(frames, 8000), 0).tolist() == frames[:, :1].tolist()
    assert heard(open_array(frames, 8000), 1).tolist() == frames[:, 1:].tolist()
    assert heard(open_array(frames, 8000), "split").tolist() == frames.tolist()
    assert heard(open_array(frames[:, 0], 8000), 0).tolist() == frames[:, :1].tolist()


@pytest.mark.parametrize("channel", [2, -1, "left", 0.5])
def test_channels_that_are_not_there(channel):
    with pytest.raises(OptionError, match=f"channel is {channel!r}, but the recording has only channels 0 to 1"):
        heard(open_array(np.zeros((5, 2)), 8000), channel)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6),
    st.floats(0, 20, width=32),
    st.one_of(st.none(), st.floats(0, 30, width=32), st.just(inf)),
)
def test_stretches(sizes, start, end):
    """By formula: to the nearest sample, wherever the blocks end. Sample i has the value i."""
    rate, n = 10, sum(sizes)
    values = np.arange(n, dtype=np.float32)
    audio = open_blocks(np.split(values, np.cumsum(sizes)[:-1]), rate)
    first, last = round(start * rate), n + 1 if end in (None, inf) else round(end * rate)
    if end is not None and start >= end:
        with pytest.raises(OptionError, match="is no stretch"):
            heard(audio, None, start, end)
    elif 0 < first >= n < last:
        with pytest.raises(
            OptionError, match=f"the recording ends at {n / rate:.2f} s; there is nothing from {start:g} s"
        ):
            heard(audio, None, start, end)
    else:
        assert heard(audio, None, start, end)[:, 0].tolist() == values[first:last].tolist()


@pytest.mark.parametrize(("start", "end"), [(-1, None), (-1, 1), (1, 1), (2, 1), (inf, None)])
def test_stretches_that_are_none(start, end):
    with pytest.raises(OptionError, match=rf"from {start} to {end or 'the end'} is no stretch"):
        heard(open_array(np.zeros(80_000), 8000), None, start, end)


def test_what_follows_the_stretch_is_not_read():
    def recorder():
        yield np.zeros(5)
        raise AssertionError("read too far")

    assert len(heard(open_blocks(recorder(), 10), end=0.5)) == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -2.01e15])
def test_numbers_that_are_not_finite(bad):
    """By hand: what is mixed has 3 usable frames before the first bad one, wherever that is not left out."""
    frames = np.array([[1, -1e15], [0, 0], [1e15, 0], [0, bad], [bad, 0], [0, 0]])
    for channel, expected in (None, 3), ("split", 3), (1, 3), (0, 4):
        assert usable_frames(mix(frames, channel)) == expected
    assert usable_frames(mix(frames[:3], None)) == 3
    assert usable_frames(np.zeros((0, 2))) == 0


def test_the_mean_is_rounded_once():
    """By reference: the exact sum of each frame (math.fsum). In float32 a third of the means would be other numbers."""
    frames = np.random.default_rng(0).uniform(-1, 1, (1000, 6)).astype(np.float32)
    assert mix(frames, None)[:, 0].tolist() == [float(np.float32(fsum(frame) / 6)) for frame in frames.tolist()]


def test_frames_of_samples():
    """By hand. Floats stay what they are, without a copy."""
    samples = np.array([0.5, -2], np.float32)
    frames = as_frames(samples)
    assert (frames.tolist(), np.shares_memory(frames, samples)) == ([[0.5], [-2]], True)
    assert as_frames(np.array([[2**14, -(2**15)]], np.int16)).tolist() == [[0.5, -1]]


HALVES = np.array([[-1.0, 0.5], [0.5, 0.0], [0.0, -1.0]])


@pytest.mark.parametrize(
    "samples",
    [
        *((HALVES * 2**15).astype(dtype) for dtype in ("<i2", ">i2")),
        (HALVES * 2**15).astype("i2").view(np.dtype("i2", metadata={"made": "by hand"})),
        (HALVES * 2**15).astype(np.dtype("int16").newbyteorder()),
        *((HALVES * 2**31).astype(dtype) for dtype in ("<i4", ">i4", np.intc)),  # full scale 2**31: -1, 0.5
        (HALVES * 2**7 + 2**7).astype(np.uint8),  # 128 is zero
        *(HALVES.astype(dtype) for dtype in ("<f2", ">f2", "<f4", ">f4", ">f8", np.longdouble)),
        np.asfortranarray(HALVES),
        np.repeat(HALVES, 2, axis=0)[::2],
        HALVES.view(np.matrix),
        np.ma.array(HALVES, mask=False),
        np.ma.array(HALVES),
        HALVES.view(np.recarray),
        np.frombuffer(HALVES.tobytes()).reshape(3, 2),  # read-only
    ],
    ids=lambda samples: f"{type(samples).__name__} of {samples.dtype.str}",
)
def test_samples_in_every_spelling(samples):
    """By hand: -1, 0.5 and 0, as integers of each kind in the way of scipy's WAV reader. Both channels, to the mean."""
    for blocks in [samples], [samples[:1], samples[1:]]:
        assert heard(open_blocks(blocks, 8000), "split").tolist() == HALVES.tolist()
        assert heard(open_blocks(blocks, 8000)).tolist() == column([-0.25, 0.25, -0.5])
    assert heard(open_array(samples, 8000), 1).tolist() == column([0.5, 0, -1])


def test_samples_in_a_mapped_file(tmp_path):
    np.save(tmp_path / "a.npy", (HALVES * 2**15).astype(">i2"))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert heard(open_array(mapped, 8000), "split").tolist() == HALVES.tolist()


@pytest.mark.parametrize("raw", [None, "8000:s16le:1"])
def test_a_file_at_its_end(raw, tmp_path):
    """As it is just after it was written."""
    data = wav(bytes(100))
    (tmp_path / "a.wav").write_bytes(data)
    with open(tmp_path / "a.wav", "rb") as file, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(data)
        for source in io.BytesIO(data), file, spooled:
            source.seek(0, 2)
            with pytest.raises(AudioError, match=r"is at its end; seek\(0\) before it is read"):
                read(source, raw)
            source.seek(0)
            assert len(read(source)[0]) == 50


def test_a_file_that_is_read_asynchronously():
    class Upload:
        async def read(self, size=-1):
            return b""

    with pytest.raises(TypeError, match=r"whose read is asynchronous: pass the bytes, await read\(\)"):
        read(Upload())


def test_a_read_that_gives_a_coroutine():
    async def later(size):
        return b""

    class Upload:
        def read(self, size=-1):
            return later(size)

    with pytest.raises(TypeError, match=r"whose read is asynchronous: pass the bytes, await read\(\)"):
        read(Upload())


@pytest.mark.parametrize("content", ["", "some words", wav(b"\x00\x80" * 99)])
def test_files_in_text_mode(tmp_path, content):
    """Each empty one, and one with a WAV file's bytes that are no UTF-8."""
    path = tmp_path / "a.wav"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with (
        tempfile.NamedTemporaryFile("w+", encoding="utf-8") as named,
        tempfile.SpooledTemporaryFile(mode="w+", encoding="utf-8") as spooled,
        codecs.open(str(path), encoding="utf-8") as decoded,
    ):
        for file in named, spooled:
            file.write(content if isinstance(content, str) else "")
            file.seek(0)
        for source in named, spooled, decoded:
            with pytest.raises(TypeError, match="expected a binary file: open it with mode 'rb'"):
                read(source)


@pytest.mark.parametrize("error", [OSError, ValueError, io.UnsupportedOperation])
def test_a_file_that_cannot_seek(error):
    """fsspec's HTTP files raise ValueError."""

    class Stream(io.BytesIO):
        def seek(self, *where):
            raise error("Cannot seek")

    assert read(Stream(wav(b"\x00\x40")))[0].tolist() == column([0.5])


def test_a_path_with_a_nul():
    with pytest.raises(AudioError, match="a path that cannot be: embedded null byte"):
        read("a\0.wav")


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_read_that_gives_other_bytes(kind):
    class Buffer:
        def __init__(self, data):
            self.file = io.BytesIO(data)

        def read(self, size):
            return kind(self.file.read(size))

    assert read(Buffer(wav(b"\x00\x40" * 3)))[0].tolist() == column([0.5] * 3)


def test_a_recording_can_be_read_once():
    """Nor the rest of one of which a part has been read: the times would be wrong."""
    with open_audio(wav(bytes(100))) as audio:
        assert len(heard(audio)) == 50
        with pytest.raises(AudioError, match="has been read already; open it again"):
            heard(audio)
    for audio in open_array(np.zeros(200_000), 8000), open_blocks([np.zeros(5), np.zeros(5)], 5):
        heard(audio, end=1)
        with pytest.raises(AudioError, match="has been read already; open it again"):
            heard(audio)


# Names


def test_a_recording_is_named_once():
    """The innermost name wins. It survives a trip to another process."""
    with pytest.raises(AudioError) as caught, naming("outer"), naming("inner"):
        raise AudioError("damaged")
    for error in caught.value, pickle.loads(pickle.dumps(caught.value)):
        assert (str(error), error.name, error.args) == ("inner: damaged", "inner", ("damaged",))
    assert (str(AudioError("damaged")), AudioError("damaged").name, str(AudioError())) == ("damaged", None, "")
    with pytest.raises(OptionError, match=r"^wrong$"), naming("outer"):
        raise OptionError("wrong")


def test_what_is_raised_while_a_recording_is_open_names_it():
    with pytest.raises(AudioError, match=r"^audio bytes: damaged$"), open_audio(wav(b"")):
        raise AudioError("damaged")
    with pytest.raises(AudioError, match=r"^audio bytes: empty"), open_audio(wav(b"")), open_audio(b""):
        pass


# Files and pipes that are not as they should be


class OnlyRead:
    """The least that can be read from."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


def test_objects_that_can_only_be_read():
    assert read(OnlyRead(wav(b"\x00\x40")))[0].tolist() == [[0.5]]
    with pytest.raises(AudioError, match="audio stream: a FLAC file; for a pipe, convert before it: ffmpeg"):
        read(OnlyRead(b"fLaC" + bytes(100)))


def test_a_block_comes_as_soon_as_its_bytes_do():
    class Recorder(Pipe):
        def readinto(self, into):
            return super().readinto(into) or pytest.fail("read too far")

    for data, raw in (wav(b"\x00\x40" * 5, 0xFFFFFFFF), None), (b"\x00\x40" * 5, "16000:s16le:1"):
        with open_audio(Recorder(data, 1 << 16), raw) as audio:
            blocks = audio.blocks
            n_frames = 0
            while n_frames < 5:
                n_frames += len(next(blocks))


def open_slow_pipe(raw, descriptor, buffering):
    """The reading end, on `descriptor` or a higher one, of a pipe that does not block, and its writer, of 5 samples of
    0.5. There is nothing at first, and again within the header and within a sample."""
    import fcntl  # POSIX only

    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    moved = fcntl.fcntl(reading, fcntl.F_DUPFD, descriptor)
    os.close(reading)
    data = wav(b"\x00\x40" * 5)

    def write():
        for part in (data[:6], data[6:44], data[44:47], data[47:]) if raw is None else (data[44:47], data[47:]):
            time.sleep(0.05)
            os.write(writing, part)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    return open(moved, "rb", buffering=buffering), writer


@pytest.fixture(params=["poll", "beyond 1023", "no poll"])
def descriptor(request, monkeypatch):
    """At least so large; select, on Windows, takes sockets only, and there is no poll."""
    if request.param == "no poll":

        def select_of_windows(*_):
            raise OSError(10038, "An operation was attempted on something that is not a socket")

        monkeypatch.delattr(select, "poll")
        monkeypatch.setattr(select, "select", select_of_windows)
    if request.param != "beyond 1023":
        yield 3
        return
    resource = pytest.importorskip("resource", reason="POSIX only")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 1100:
        pytest.skip("this process may not have so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 1100), limits[1]))
    yield 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@posix
@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("raw", [None, "16000:s16le:1"])
def test_a_pipe_that_does_not_block(raw, buffering, descriptor):
    """That there is nothing yet is not its end, of an unbuffered file (None) or of a buffered one (b"" by read1)."""
    file, writer = open_slow_pipe(raw, descriptor, buffering)
    with file, open_audio(file, raw) as audio:
        assert everything(audio).tolist() == column([0.5] * 5)
    writer.join()
    assert [*audio.missing, *audio.warnings] == []


@posix
def test_waiting_keeps_no_core_busy(descriptor):
    """By hand: 2 reads that find nothing every 50 ms, and 4 for each of the 4 parts and for the end. Twice as many are
    allowed of these; a busy loop would read 100,000 times a second."""
    file, writer = open_slow_pipe(None, descriptor, 0)
    reads, start = [], time.monotonic()

    class Counted:
        fileno = file.fileno

        def read(self, count):
            reads.append(count)
            return file.read(count)

    with file:
        found = b"".join(part or b"" for part in iter(lambda: read_some(Counted(), 100), b""))
        assert len(reads) <= 2 * (time.monotonic() - start) / 0.05 + 2 * 4 * 5
    assert found == wav(b"\x00\x40" * 5)
    writer.join()


@pytest.mark.slow
def test_a_file_without_descriptor_that_does_not_block():
    class Slow(Pipe):
        def readinto(self, into):
            return super().readinto(memoryview(into)[:count]) if (count := next(counts)) else None

    data = wav(b"\x00\x40" * 5)
    for buffered in False, True:
        counts = itertools.cycle([0, 0, 7])
        file = Slow(data, 99)
        assert read(io.BufferedReader(file) if buffered else file)[0].tolist() == column([0.5] * 5)


@posix
@pytest.mark.parametrize(("data", "message"), [(b"", "empty"), (b"fLaC" + bytes(100), "for a pipe, convert before it")])
def test_named_pipes(tmp_path, data, message):
    """One that nobody writes to, and one with what could be converted if it could be read twice."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    with pytest.raises(AudioError, match=message):
        read(path)
    writer.join()


def test_a_file_that_grows(tmp_path):
    """A recording that goes on: what is there when it is read; its length when it was opened."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(bytes(16_000), 0))
    with open_audio(path) as audio:
        with open(path, "ab") as file:
            file.write(bytes(16_000))
        assert audio.duration == 0.5
        assert len(everything(audio)) == 16_000


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.wav"
    path.touch(mode=0)
    with pytest.raises(PermissionError):
        read(path)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("~/no such.wav", "only shells know ~; use os.path.expanduser"),
        (Path("~/no such.wav"), "only shells know ~; use os.path.expanduser"),
        ("file:///home/a.wav", "pass the path alone, without file://"),
        ("https://example.org/a.wav", "this is an address; download the file and pass its path"),
        ("HTTP://example.org/a.wav", "this is an address; download the file and pass its path"),
        (Path("s3://bucket/a.wav"), "this is an address; download the file and pass its path"),
        (Path(__file__).parent, "pass the files that are in it"),
    ],
)
def test_paths_that_cannot_be_opened_get_a_hint(path, hint):
    """The error is the system's, with its number and the file's name, as Python makes it."""
    with pytest.raises(OSError) as expected:  # noqa: PT011 - of the system, whichever it is
        open(path, "rb")  # noqa: SIM115 - does not open
    with pytest.raises(type(expected.value), match=re.escape(f" ({hint}): ")) as caught:
        read(path)
    assert (caught.value.errno, caught.value.filename) == (expected.value.errno, expected.value.filename)


@pytest.mark.parametrize("path", ["no such.wav", "C:/no such.wav", "a~b.wav"])
def test_other_paths_get_none(path):
    with pytest.raises(FileNotFoundError, match=f"No such file or directory: '{path}'"):
        read(path)


# Files of other kinds


def test_files_that_are_not_audio(monkeypatch):
    """They never reach a converter: ffmpeg makes a picture of text."""
    monkeypatch.setattr(convert, "_through", lambda path, kind, track: pytest.fail(f"converted {kind}"))
    for data, message in [
        (b"PK\3\4" + bytes(30), "a zip archive: unpack it first$"),
        (b"\x1f\x8b" + bytes(30), "a gzip file: unpack it first$"),
        (b"\xff\xfeh\0i\0", "a UTF-16 text file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "not audio, but a Git LFS pointer .*git lfs pull",
        ),
        (b"These are notes, not audio.\n", "a text file, beginning 'These are notes, not audio.*'$"),
        (f"Übung{57 * ' '}ü, cut in two at byte 64".encode(), "a text file, beginning 'Übung"),
        (b"hi", "a text file, beginning 'hi'"),
        (b"R", "a text file, beginning 'R'"),
        (b"\xef\xbb\xbfhi", "a text file, beginning 'hi'"),
        (b"\n<!DOCTYPE html>\n<html><body>404", "not audio, but an HTML page: a failed download; fetch it again"),
        (b"\xef\xbb\xbf<html><body>404", "not audio, but an HTML page"),
        (b"Entry not found", "not audio, but the hub's message that there is no such file"),
    ]:
        for source, name in (data, "audio bytes"), (Pipe(data, 99), "audio stream"):
            with pytest.raises(AudioError, match=f"^{name}: {message}"):
                read(source)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"FORM\0\0\0\x10AIFFCOMM", "an AIFF file"),
        (b"RIFF\x10\0\0\0AVI LIST", "an AVI video"),
        (b"OggS\0\2" + bytes(30), "an Ogg file"),
        (b"fLaC\0\0\0\x22" + bytes(30), "a FLAC file"),
        (b"ID3\4\0\0" + bytes(30), "an MP3 file"),
        (b"\xff\xfb\x90\x64" + bytes(30), "an MP3 or AAC file"),
        (b"\0\0\0\x20ftypM4A " + bytes(30), "an MP4 file"),
        (b"\x1aE\xdf\xa3" + bytes(30), "a Matroska or WebM file"),
        (b"NIST_1A\n   1024\n", "a NIST SPHERE file"),
        (b"\0", r"not a WAV file \(first bytes: 00\)"),
        (b"\xff", r"not a WAV file \(first bytes: ff\)"),
        (bytes(100), r"not a WAV file \(first bytes: 00 00 00"),
        (wav(b"", tag=0x31), r"GSM 6\.10: WAV with format tag 0x0031"),
        (wav(b"", tag=0x55), "MP3: WAV with format tag 0x0055"),
        (wav(b"", bits=64), "PCM: WAV with format tag 0x0001, 64 bits"),
        (wav(b"", tag=FLOAT, bits=16), "float: WAV with format tag 0x0003, 16 bits"),
        (wav(b"", tag=IMA_ADPCM, bits=4, block_align=3), "IMA ADPCM: WAV with format tag 0x0011, 4 bits"),
        (wav(b"", tag=0x1234), "unknown coding: WAV with format tag 0x1234"),
        (wav(b"", tag=0xFFFE), "EXTENSIBLE with an incomplete or foreign SubFormat: WAV with format tag 0xFFFE"),
    ],
)
def test_what_a_pipe_holds_that_could_be_converted(data, kind):
    with pytest.raises(AudioError, match=f"^audio stream: {kind}.*; for a pipe, convert before it: ffmpeg"):
        read(Pipe(data, 99))


@pytest.mark.folder
def test_a_copy_without_the_optional_files(monkeypatch):
    """The error names the file that is missing; WAV is read as ever."""
    for name in "adpcm", "convert":
        monkeypatch.setitem(sys.modules, f"cohere_lite.extras.{name}", None)
    assert read(wav(b"\x00\x40"))[0].tolist() == [[0.5]]
    missing = "other files need cohere_lite/extras/convert.py, which is not in this copy"
    with pytest.raises(AudioError, match=rf"audio bytes: not a WAV file \(first bytes: 66 4c 61 43\); {missing}$"):
        read(b"fLaC")
    with pytest.raises(AudioError, match=r"0x0011, 4 bits .*; ADPCM, .* need cohere_lite/extras/adpcm.py, which"):
        read(wav(IMA_BLOCK, tag=IMA_ADPCM, bits=4, block_align=8))


@posix
def test_a_program_in_the_current_folder_is_not_started(tmp_path, monkeypatch):
    """As if on Windows, where shutil.which begins there: the sender of a file may have put one beside it. Nor by a PATH
    that has the current folder in it."""
    for name in "ffmpeg", "ffmpeg.EXE", "ffmpeg.exe":
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", "empty/..", str(tmp_path / "empty")]))
    monkeypatch.setenv("PATHEXT", ".EXE")
    assert convert.find_ffmpeg() is None
    monkeypatch.setattr(sys, "platform", "win32")
    assert convert.find_ffmpeg() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert convert.find_ffmpeg() == str(tmp_path / "ffmpeg")


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setenv("PATH", "")


@pytest.fixture(params=[pytest.param("ffmpeg", marks=needs_ffmpeg), "soundfile"])
def converter(request, monkeypatch):
    """Each of the two, the other hidden."""
    if request.param == "ffmpeg":
        monkeypatch.setitem(sys.modules, "soundfile", None)
    else:
        monkeypatch.setenv("PATH", "")
    return request.param


def run_ffmpeg(*arguments):
    subprocess.run([FFMPEG, "-v", "error", "-nostdin", *map(str, arguments)], check=True)


def flac(folder, samples=SAMPLES, rate=22050):
    """The path of a FLAC file of int16 samples (n, channels), made by ffmpeg."""
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((samples.shape[1], 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    run_ffmpeg("-y", "-i", folder / "a.wav", folder / "a.flac")
    return folder / "a.flac"


@pytest.fixture
def started(monkeypatch):
    """The processes that are started."""
    processes = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return processes


@needs_ffmpeg
def test_every_kind_of_source_through_ffmpeg(tmp_path, monkeypatch):
    path = flac(tmp_path)
    data = path.read_bytes()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    later = io.BytesIO(b"12345" + data)
    later.seek(5)

    class InBytes:
        def __fspath__(self):
            return os.fsencode(path)

    with open(path, "rb") as file:
        for source in (
            path,
            str(path),
            InBytes(),
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            later,
            file,
        ):
            frames, rate, warnings = read(source)
            np.testing.assert_array_equal(frames, SAMPLES / 2**15)
            assert (rate, warnings) == (22050, [])
    assert list(temporary.iterdir()) == []


@needs_soundfile
@pytest.mark.parametrize(
    ("format", "subtype"),
    [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("CAF", "ALAC_16"), ("NIST", "PCM_16"), ("NIST", "ULAW")]
    + [(format, s) for format in ("AIFF", "AU") for s in ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "ULAW")],
)
def test_lossless_formats(tmp_path, converter, format, subtype):
    """Sample for sample what soundfile reads; of 32 bits ffmpeg keeps the 24 of float32."""
    path = tmp_path / "sound"  # the name says nothing
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, (5000, 2)), 44100, format=format, subtype=subtype)
    frames, rate, warnings = read(path)
    np.testing.assert_array_equal(frames.astype(np.float32), soundfile.read(path, dtype="float32")[0])
    assert (rate, warnings) == (44100, [])


@needs_soundfile
@pytest.mark.parametrize("format", ["MP3", "OGG", "FLAC"])
def test_soundfile_in_blocks(tmp_path, no_ffmpeg, format):
    """More than a block, and what comes of a lossy format too: as soundfile reads it at once; MP3 but for rounding."""
    path = tmp_path / "sound"
    soundfile.write(path, SAMPLES[np.arange(200_000) % 2000] / 2**17, 44100, format=format)
    expected, _ = soundfile.read(path)
    with open_audio(path) as audio:
        assert (audio.duration, audio.live) == (len(expected) / 44100, False)
        blocks = list(audio.blocks)
    assert max(map(len, blocks)) < len(expected)
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-7)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options", "rate", "channels"),
    [
        ("a.m4a", "-c:a aac", 22050, 1),
        ("a.mp3", "-c:a libmp3lame", 44100, 2),
        ("a.ogg", "-c:a libvorbis", 44100, 1),
        ("a.opus", "-c:a libopus", 48000, 2),
        ("a.wma", "-c:a wmav2", 44100, 1),
        ("a.mp4", "-f lavfi -i testsrc=s=64x64:d=1 -c:v mpeg4 -c:a aac", 44100, 2),  # a video
        ("a.webm", "-f lavfi -i testsrc=s=64x64:d=1 -c:v libvpx -c:a libopus", 48000, 1),
        ("a.wav", "-c:a libmp3lame", 44100, 2),  # within a WAV file
    ],
)
def test_lossy_formats_and_videos(tmp_path, name, options, rate, channels):
    """By formula: a second of ffmpeg's sine of 440 Hz, 1/8 loud, its power spread over the channels, at its own rate.
    Encoders add up to 0.1 s."""
    encoders = subprocess.run([FFMPEG, "-v", "error", "-encoders"], capture_output=True, text=True).stdout
    for encoder in [options.split()[i + 1] for i, option in enumerate(options.split()) if option.startswith("-c:")]:
        if f" {encoder} " not in encoders:
            pytest.skip(f"this ffmpeg has no {encoder}")
    run_ffmpeg("-f", "lavfi", "-i", "sine=440:d=1", *options.split(), "-ar", rate, "-ac", channels, tmp_path / name)
    with open_audio(tmp_path / name) as audio:
        assert (audio.rate, audio.duration, audio.live) == (rate, None, False)
        frames = everything(audio)
    assert frames.shape[1] == channels
    assert abs(len(frames) / rate - 1) < 0.1
    middle = frames[rate // 4 : rate // 4 + rate // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))[:, None], axis=0)) / (len(middle) / 4)
    assert (spectrum.argmax(axis=0) == 220).all()  # half a second: bins of 2 Hz
    np.testing.assert_allclose(spectrum.max(axis=0), 1 / 8 / channels**0.5, rtol=0.1)


@needs_soundfile
def test_a_coding_within_wav_that_is_not_ours(tmp_path, converter):
    """GSM 6.10, whose decoder computes in integers; 6 blocks of 320 samples, quiet enough not to be clipped."""
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES[:1920, 0] // 8, 8000, subtype="GSM610")
    frames, rate, warnings = read(path)
    np.testing.assert_array_equal(frames, soundfile.read(path, always_2d=True)[0])
    assert (rate, warnings) == (8000, [])


@pytest.mark.parametrize("broken", [False, True])
def test_no_converter(tmp_path, monkeypatch, no_ffmpeg, broken):
    """What to install; also where soundfile is there but not its library, which is an OSError."""
    monkeypatch.delitem(sys.modules, "soundfile", raising=False)
    (tmp_path / "soundfile.py").write_text(f"raise {'OSError' if broken else 'ImportError'}('sndfile not found')")
    monkeypatch.syspath_prepend(tmp_path)
    for data, kind in (b"fLaC" + bytes(100), "a FLAC file"), (wav(b"", tag=0x31), r"GSM 6\.10: WAV with .*"):
        with pytest.raises(
            AudioError, match=f"audio bytes: {kind}; to read it, install the program ffmpeg .*soundfile"
        ):
            read(data)


NAMES = [" a b.x", "-i", "http:x.flac", "concat:a.flac", "%d.flac", "a'b\".x", "ü.x", "x.wav"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe.flac")])
@needs_ffmpeg
def test_any_name_will_do(tmp_path, monkeypatch, converter, name):
    if converter == "soundfile" and soundfile is None:
        pytest.skip("soundfile is not installed")
    path = flac(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        path.rename(name)
    except OSError:
        pytest.skip("no name for a file on this system")
    np.testing.assert_array_equal(read(name)[0], SAMPLES / 2**15)


def test_what_no_converter_knows(tmp_path, converter):
    """Both errors: ours, and theirs."""
    if converter == "soundfile" and soundfile is None:
        pytest.skip("soundfile is not installed")
    for name in "a.raw", "a.x":
        path = tmp_path / name
        path.write_bytes(bytes(1000))
        with pytest.raises(AudioError, match=rf"{name}: not a WAV file \(first bytes: 00 .*; {converter}: \w+"):
            read(path)


@needs_ffmpeg
def test_ffmpeg_says_what_is_wrong(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", tmp_path / "a.m4a")
    data = (tmp_path / "a.m4a").read_bytes()
    with pytest.raises(
        AudioError, match=r"audio bytes: an MP4 file .*; ffmpeg: \[mov,.*\] moov atom not found"
    ) as caught:
        read(data[: len(data) // 2])
    assert " 0x" not in str(caught.value)  # ffmpeg's addresses in memory
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x64", "-c:v", "mpeg4", tmp_path / "silent.mp4")
    with pytest.raises(AudioError, match=r"silent\.mp4: an MP4 file \(M4A, MOV\): it has no audio track$"):
        read(tmp_path / "silent.mp4")


def damaged(path):
    """Its bytes, 200 of them in the middle overwritten."""
    data = path.read_bytes()
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(1).bytes(200) + data[middle + 200 :]


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_what_ffmpeg_could_not_decode_is_told(tmp_path, name):
    """A hole in the middle: a warning, and all that is around it; without the hole no warning."""
    run_ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=3:r=16000:seed=1", tmp_path / name)
    frames, _, warnings = read(damaged(tmp_path / name))
    assert warnings
    assert all(warning.startswith("ffmpeg: ") for warning in warnings)
    assert 2.5 < len(frames) / 16000 < 3.2
    assert read(tmp_path / name)[2] == []


@needs_soundfile
def test_what_soundfile_could_not_decode_is_told(tmp_path, no_ffmpeg):
    """A hole in an MP3 file is skipped, one in a FLAC file is its end."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 3 * 16000)
    soundfile.write(tmp_path / "a.mp3", noise, 16000)
    frames, _, (warning,) = read(damaged(tmp_path / "a.mp3"))
    assert (
        warning == f"soundfile: decoded {len(frames) / 16000:.2f} s of 3.00 s: the file is damaged, or of a rare kind"
    )
    soundfile.write(tmp_path / "a.flac", np.tile(noise, 3), 16000)
    with open_audio(damaged(tmp_path / "a.flac")) as audio, pytest.raises(AudioError, match="a FLAC file; soundfile: "):
        everything(audio)


@needs_ffmpeg
def test_ffmpeg_ends_with_its_reader(tmp_path, monkeypatch, started):
    """Ten minutes, of which one block is read: no process, thread or file is left."""
    long = flac(tmp_path, np.zeros((600 * 16000, 1), np.int16), 16000).read_bytes()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    threads = threading.active_count()
    started.clear()
    with open_audio(long) as audio:
        assert len(next(audio.blocks)) > 0
        assert started[-1].poll() is None
        assert len(list(temporary.iterdir())) == 1
    assert all(process.returncode is not None for process in started)
    assert threading.active_count() == threads
    assert list(temporary.iterdir()) == []


@needs_ffmpeg
@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
def test_ffmpeg_behind_a_script_ends_too(tmp_path, monkeypatch):
    """A script that starts ffmpeg as a process of its own, which outlives the script; 20 s for it all."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "ffmpeg"
    script.write_text(f'#!/bin/sh\n{FFMPEG} "$@"\n:\n')
    script.chmod(0o755)
    path = flac(tmp_path, np.zeros((600 * 16000, 1), np.int16), 16000)
    monkeypatch.setenv("PATH", str(script.parent))
    code = "import sys; from cohere_lite.audio import open_audio\nwith open_audio(sys.argv[1]) as a: next(a.blocks)"
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)


# What ffmpeg prints of a file, by record.
FOUND = """[info] Input #0, flac, from 'file:a':
[info]   Duration: N/A, start: 0.000000, bitrate: N/A
[info]   Stream #0:0: Audio: flac, 16000 Hz, mono, s16
[info] Stream mapping:
[info]   Stream #0:0 -> #0:0 (flac (native) -> pcm_f32le (native))
[info] Output #0, wav, to 'pipe:':"""


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """Installs a program of that name, which finds an audio track in anything; it ends by itself after 20 s, should
    anybody wait for it."""
    if os.name != "posix":
        pytest.skip("POSIX only")

    def install(program):
        path = tmp_path / "bin" / "ffmpeg"
        path.parent.mkdir()
        head = f"#!{sys.executable}\nimport signal, sys\nsignal.alarm(20)\nwav = {wav(bytes(64_000), 0xFFFFFFFF)!r}\n"
        head += f"print({FOUND!r}, file=sys.stderr)\n"
        path.write_text(head + textwrap.dedent(program))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))
        monkeypatch.setitem(sys.modules, "soundfile", None)  # which would be asked next

    return install


def test_many_messages_are_no_deadlock(fake_ffmpeg):
    fake_ffmpeg("""
        for i in range(20_000):
            print("[flac @ 0x55d0] [error] message", i, file=sys.stderr)
        sys.stdout.buffer.write(wav)
        print("[error] the last one", file=sys.stderr)
    """)
    frames, _, warnings = read(b"fLaC")
    assert len(frames) == 32_000
    assert warnings == ["ffmpeg: [flac] message 19998", "ffmpeg: [flac] message 19999", "ffmpeg: the last one"]


def test_a_failure_after_the_first_samples_is_an_error(fake_ffmpeg):
    fake_ffmpeg("""
        sys.stdout.buffer.write(wav)
        sys.exit("no more")
    """)
    blocks = []
    with pytest.raises(AudioError, match="audio bytes: a FLAC file; ffmpeg: no more"), open_audio(b"fLaC") as audio:
        blocks.extend(audio.blocks)
    assert sum(map(len, blocks)) == 32_000


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_a_failure_without_a_message_is_an_error(fake_ffmpeg, ending, code):
    fake_ffmpeg(ending)
    with pytest.raises(AudioError, match=f"audio bytes: a FLAC file; ffmpeg ended with code {code}$"):
        read(b"fLaC")


def test_frames_that_are_missing_are_told(fake_ffmpeg):
    """By hand: the header promises 33,600 of them (RFC 9639, 8.2: the last 36 bits of bytes 18 to 26), 32,000 come."""
    fake_ffmpeg("sys.stdout.buffer.write(wav)")
    for promised, expected in ((33_600, ["2.00 s of 2.10 s"]), (32_000, []), (0, [])):
        head = b"fLaC" + bytes(14) + (0xABCDEF << 40 | promised).to_bytes(8, "big")
        _, _, warnings = read(head)
        assert len(warnings) == len(expected)
        assert all(part in warning for part, warning in zip(expected, warnings, strict=True))


def test_ctrl_c_while_ffmpeg_starts(fake_ffmpeg, monkeypatch, capfd):
    """Once its thread runs, but before it is known to: nothing is said by the thread."""
    fake_ffmpeg("import time; time.sleep(10)")
    start = threading.Thread.start

    def interrupt():
        raise KeyboardInterrupt

    def interrupted(thread):
        thread._started.wait = interrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(b"fLaC")
    assert capfd.readouterr().err == ""


def test_what_is_no_wav_is_an_error(fake_ffmpeg):
    fake_ffmpeg("""
        while True:
            sys.stdout.buffer.write(bytes(1000))
    """)
    with pytest.raises(AudioError, match=r"audio bytes: a FLAC file; ffmpeg: .*BrokenPipeError"):
        read(b"fLaC")


def test_an_ffmpeg_without_messages_is_told(fake_ffmpeg, monkeypatch):
    """A script in its place that leaves them out: it would wait for its reader, and the reader for its messages."""
    monkeypatch.setattr(ffmpeg, "_SILENT_S", 0.1)
    fake_ffmpeg("""
        sys.stdout.buffer.write(wav)
        import time; time.sleep(15)
    """)
    script = Path(os.environ["PATH"], "ffmpeg")
    script.write_text(script.read_text().replace("file=sys.stderr", "file=open('/dev/null', 'w')"))
    with pytest.raises(AudioError, match="a FLAC file; ffmpeg does not say what it finds"):
        read(b"fLaC")


def test_no_output_is_an_error(fake_ffmpeg):
    fake_ffmpeg("")
    with pytest.raises(AudioError, match=r"a FLAC file; what ffmpeg made of it: empty \(0 bytes\)"):
        read(b"fLaC")


@needs_ffmpeg
def test_the_formats_exist():
    """By reference: ffmpeg's own list, in lines such as " D  mov,mp4,m4a,3gp,3g2,mj2 QuickTime / MOV"."""
    listed = subprocess.run([FFMPEG, "-v", "error", "-demuxers"], capture_output=True, text=True, check=True).stdout
    names = {name for line in listed.splitlines() if line[:2] == " D" for name in line.split()[1].split(",")}
    assert set(ffmpeg._FFMPEG_FORMATS.split(",")) <= names
    assert not {"hls", "dash", "concat", "sdp", "imf", "image2", "avisynth"} & set(ffmpeg._FFMPEG_FORMATS.split(","))


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#\xff\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\n#\xff\nfile other.mp3\n",
}


@needs_ffmpeg
@pytest.mark.parametrize("format", PLAYLISTS)
def test_a_file_cannot_name_others_to_be_read(tmp_path, monkeypatch, format):
    """Playlists that do not look like text: not followed, though ffmpeg would, if it were let."""
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "other.mp3")
    playlist = tmp_path / "a.mp3"
    playlist.write_text(PLAYLISTS[format].format(path=tmp_path / "other.mp3"), encoding="latin-1")
    with pytest.raises(AudioError, match=r"ffmpeg: .*whitelist"):
        read(playlist)
    monkeypatch.setattr(ffmpeg, "_FFMPEG_FORMATS", f"mp3,{format}")
    assert len(read(playlist)[0]) > 0
