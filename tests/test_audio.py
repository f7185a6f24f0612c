"""All that can be opened: raw samples by hand, arrays, stretches and channels by formula; other formats by what was
written into them (lossless ones: sample for sample) and by soundfile's word for it."""

import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import wave
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wav import FLOAT, IMA_ADPCM, IMA_BLOCK, MU_LAW, Pipe, rf64, rifx, w64, wav

from cohere_lite import audio as module
from cohere_lite.audio import RAW_FORMATS, mixed, open_array, open_audio, open_blocks
from cohere_lite.errors import AudioError, OptionError

try:
    import soundfile
except ImportError:
    soundfile = None

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not on the PATH")
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


def needs_soundfile(test):
    return pytest.mark.reference(pytest.mark.skipif(soundfile is None, reason="soundfile is not installed")(test))


SAMPLES = np.random.default_rng(0).integers(-(2**15), 2**15, (2000, 2)).astype(np.int16)  # 2000 frames, stereo


def everything(audio):
    """float (n, channels)"""
    return np.concatenate([np.zeros((0, audio.channels)), *audio.blocks])


def read(source, raw=None):
    """All frames, rate, warnings."""
    with open_audio(source, raw) as audio:
        return everything(audio), audio.rate, audio.warnings


def mix(audio, channel=None, start=0.0, end=None):
    blocks = list(mixed(audio, channel, start, end))
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
    assert (frames.shape, warnings) == ((0, 2), [])


@pytest.mark.parametrize(
    "raw",
    [
        *("", "16000", "16000:s16le", "16000:s16le:1:1", "16000:s17le:1", "16000:S16LE:1"),
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
        assert mix(audio, end=1.5).tolist() == [[0.0]] * 24_000


# Arrays and blocks


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_what_they_are(dtype):
    mono = np.array([-1, 0.5, 1.5], dtype)
    assert mix(open_array(mono, 8000)).tolist() == column([-1, 0.5, 1.5])
    assert mix(open_array(np.stack([mono, -mono], axis=1), 8000), 1).tolist() == column([1, -0.5, -1.5])


def test_int16_arrays_are_scaled():
    assert mix(open_array(np.array([-(2**15), 0, 2**14], np.int16), 8000)).tolist() == column([-1, 0, 0.5])


def test_arrays_of_more_than_one_block():
    values = np.arange(200_000, dtype=np.float32)
    np.testing.assert_array_equal(mix(open_array(values, 8000))[:, 0], values)
    wide = np.zeros((65_540, 100), np.float32)  # and a last block with fewer frames than channels
    assert mix(open_array(wide, 8000), "split").shape == wide.shape


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_an_empty_array(shape):
    audio = open_array(np.zeros(shape, np.float32), 8000)
    assert (audio.channels, audio.duration) == (len(shape), 0)
    assert mix(audio, "split").shape == (0, len(shape))


def test_blocks_are_fetched_as_they_are_asked_for():
    fetched = []

    def recorder():
        for i in range(3):
            fetched.append(i)
            yield np.full(i, i / 4, np.float32)

    audio = open_blocks(recorder(), 8000, "the recorder")
    assert (fetched, audio.live, audio.duration) == ([0], True, None)
    blocks = mixed(audio, None, 0.0, None)
    assert (next(blocks).tolist(), fetched) == ([], [0])
    assert (next(blocks).tolist(), fetched) == ([[0.25]], [0, 1])
    assert next(blocks).tolist() == [[0.5], [0.5]]
    assert list(blocks) == []


def test_no_blocks():
    assert mix(open_blocks([], 8000)).shape == (0, 1)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\); expected \(n,\) or \(n, channels\)"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
        (np.zeros(()), r"shape \(\)"),
        (np.zeros((2, 16000)), r"shape \(2, 16000\): so many channels"),  # (channels, n), as some libraries give
        (np.zeros(5, np.int32), "type int32; expected float in -1..1, or int16"),
        (np.zeros(5, np.uint8), "type uint8"),
        (np.zeros(5, bool), "type bool"),
        (np.zeros(5, complex), "type complex128"),
    ],
)
def test_arrays_that_are_no_audio(samples, message):
    for opened in (lambda: open_array(samples, 8000), lambda: open_blocks([samples], 8000)):
        with pytest.raises(AudioError, match=message):
            opened()


def test_blocks_that_are_no_audio():
    for bad in [0.5], "text":
        with pytest.raises(TypeError, match=f"expected samples as NumPy arrays, not {type(bad).__name__}"):
            open_blocks([bad], 8000)
    later = open_blocks([np.zeros(5), np.zeros((5, 2))], 8000, "the recorder")
    with pytest.raises(AudioError, match="the recorder: a block of 2 channels after blocks of 1"):
        mix(later)


@pytest.mark.parametrize("rate", [16000.5, nan, inf])
def test_rates_that_are_none(rate):
    with pytest.raises(OptionError, match=f"rate is {rate}; it must be a whole number"):
        open_array(np.zeros(5), rate)


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
    assert open_array(np.zeros((8000, 2)), 16000).duration == 0.5
    assert duration(wav(b"")) == (None, True)  # nothing there yet, perhaps


# Channels and stretches


def test_channels():
    """By hand; the third frame's numbers are the largest, and their sum is larger."""
    frames = np.array([[0.5, -0.25], [1, 0], [9.9e14, 9.9e14]], np.float32)
    assert mix(open_array(frames, 8000)).tolist() == column([0.125, 0.5, float(np.float32(9.9e14))])
    assert mix(open_array(frames, 8000), 0).tolist() == frames[:, :1].tolist()
    assert mix(open_array(frames, 8000), 1).tolist() == frames[:, 1:].tolist()
    assert mix(open_array(frames, 8000), "split").tolist() == frames.tolist()
    assert mix(open_array(frames[:, 0], 8000), 0).tolist() == frames[:, :1].tolist()


@pytest.mark.parametrize("channel", [2, -1, "left", 0.5])
def test_channels_that_are_not_there(channel):
    with pytest.raises(OptionError, match=f"channel is {channel!r}, but the array has 2, counted from 0"):
        mix(open_array(np.zeros((5, 2)), 8000), channel)


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
            mix(audio, None, start, end)
    elif 0 < first >= n < last:
        with pytest.raises(OptionError, match=f"the audio ends at {n / rate:.2f} s; there is nothing from {start:g} s"):
            mix(audio, None, start, end)
    else:
        assert mix(audio, None, start, end)[:, 0].tolist() == values[first:last].tolist()


@pytest.mark.parametrize(("start", "end"), [(-1, None), (-1, 1), (1, 1), (2, 1), (nan, None), (0, nan)])
def test_stretches_that_are_none(start, end):
    with pytest.raises(OptionError, match=rf"from {start} to {end or 'the end'} is no stretch"):
        mix(open_array(np.zeros(80_000), 8000), None, start, end)


def test_what_follows_the_stretch_is_not_read():
    def recorder():
        yield np.zeros(5)
        raise AssertionError("read too far")

    assert len(mix(open_blocks(recorder(), 10), end=0.5)) == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -2.01e15])
def test_numbers_that_are_not_finite(bad):
    """By hand: frame 384000 is at 24 s. They matter where they are asked for, and only there."""
    frames = np.zeros((400_000, 2))
    frames[384_000, 1] = frames[390_000, 0] = bad
    for channel, at in (None, "24.000"), ("split", "24.000"), (1, "24.000"), (0, "24.375"):
        for start in 0.0, 23.9:
            with pytest.raises(AudioError, match=f"the array: NaN, infinity or a number beyond 1e15 at {at} s"):
                mix(open_array(frames, 16000), channel, start)
    assert not mix(open_array(frames, 16000), None, 0, 24).any()
    assert not mix(open_array(frames, 16000), 0, 0, 24.3).any()
    assert not mix(open_array(frames, 16000), None, 24.4).any()


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


@posix
@pytest.mark.parametrize("raw", [None, "16000:s16le:1"])
def test_a_pipe_that_does_not_block(raw):
    """It has nothing at first, and again after the header; that is not its end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    data = wav(b"\x00\x40" * 5)

    def write():
        for part in (data[:6], data[6:44], data[44:47], data[47:]) if raw is None else (data[44:47], data[47:]):
            time.sleep(0.05)
            os.write(writing, part)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    with open(reading, "rb", buffering=0) as file, open_audio(file, raw) as audio:
        assert np.concatenate(list(audio.blocks)).tolist() == column([0.5] * 5)
    writer.join()
    assert audio.warnings == []


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


# Converters


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)


@pytest.fixture(params=[pytest.param("ffmpeg", marks=needs_ffmpeg), "soundfile"])
def converter(request, monkeypatch):
    """Each of the two, the other hidden."""
    if request.param == "ffmpeg":
        monkeypatch.setitem(sys.modules, "soundfile", None)
    else:
        monkeypatch.setattr(shutil, "which", lambda program: None)
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
        assert (audio.channels, audio.duration, audio.live) == (2, len(expected) / 44100, False)
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
        assert (audio.rate, audio.channels, audio.duration, audio.live) == (rate, channels, None, False)
        frames = everything(audio)
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
    for data, kind in (b"fLaC" + bytes(100), "a FLAC file"), (wav(b"", tag=0x31), r"WAV with .*GSM 6\.10.*"):
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
    with pytest.raises(AudioError, match=r"silent\.mp4: an MP4 file .*; ffmpeg: .*matches no streams"):
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
        assert started[0].poll() is None
        assert len(list(temporary.iterdir())) == 1
    assert started[0].returncode is not None
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


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """Installs a program of that name; it ends by itself after 20 s, should anybody wait for it."""
    if os.name != "posix":
        pytest.skip("POSIX only")

    def install(program):
        path = tmp_path / "bin" / "ffmpeg"
        path.parent.mkdir()
        head = f"#!{sys.executable}\nimport signal, sys\nsignal.alarm(20)\nwav = {wav(bytes(64_000), 0xFFFFFFFF)!r}\n"
        path.write_text(head + textwrap.dedent(program))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))

    return install


def test_many_messages_are_no_deadlock(fake_ffmpeg):
    fake_ffmpeg("""
        for i in range(20_000):
            print("message", i, file=sys.stderr)
        sys.stdout.buffer.write(wav)
        print("the last one", file=sys.stderr)
    """)
    frames, _, warnings = read(b"fLaC")
    assert len(frames) == 32_000
    assert warnings == ["ffmpeg: message 19998", "ffmpeg: message 19999", "ffmpeg: the last one"]


def test_a_failure_after_the_first_samples_is_an_error(fake_ffmpeg):
    fake_ffmpeg("""
        sys.stdout.buffer.write(wav)
        sys.exit("no more")
    """)
    blocks = []
    with open_audio(b"fLaC") as audio, pytest.raises(AudioError, match="audio bytes: a FLAC file; ffmpeg: no more"):
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


def test_no_output_is_an_error(fake_ffmpeg):
    fake_ffmpeg("")
    with pytest.raises(AudioError, match=r"a FLAC file; what ffmpeg made of it: audio bytes: empty \(0 bytes\)"):
        read(b"fLaC")


@needs_ffmpeg
def test_the_formats_exist():
    """By reference: ffmpeg's own list, in lines such as " D  mov,mp4,m4a,3gp,3g2,mj2 QuickTime / MOV"."""
    listed = subprocess.run([FFMPEG, "-v", "error", "-demuxers"], capture_output=True, text=True, check=True).stdout
    names = {name for line in listed.splitlines() if line[:2] == " D" for name in line.split()[1].split(",")}
    assert set(module._FFMPEG_FORMATS.split(",")) <= names
    assert not {"hls", "dash", "concat", "sdp", "imf", "image2", "avisynth"} & set(module._FFMPEG_FORMATS.split(","))


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
    monkeypatch.setattr(module, "_FFMPEG_FORMATS", f"mp3,{format}")
    assert len(read(playlist)[0]) > 0
