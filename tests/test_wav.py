"""WAV files written byte by byte, with the samples they must give worked out by hand; then soundfile's word for it."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohere_lite.errors import AudioError
from cohere_lite.wav import read_wav

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")


def chunk(chunk_id, body, size=None):
    """One RIFF chunk; size: what the header says, when that is not the truth."""
    return chunk_id + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def riff(*chunks, size=None):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def fmt(tag=PCM, channels=1, rate=16000, bits=16, block_align=None, extra=b""):
    align = channels * ((bits + 7) // 8) if block_align is None else block_align
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align, bits) + extra)


def wav(data, size=None, **format):
    return riff(fmt(**format), chunk(b"data", data, size))


def samples(source):
    result = read_wav(source)
    assert result.warnings == ()
    assert result.samples.dtype == np.float32
    return result.samples.tolist()


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives at most a few bytes at a time, like a pipe."""

    def __init__(self, data, most=7):
        self.buffer, self.most = io.BytesIO(data), most

    def readable(self):
        return True

    def readinto(self, into):
        part = self.buffer.read(min(self.most, len(into)))
        into[: len(part)] = part
        return len(part)


# What good files give


@pytest.mark.parametrize(
    ("tag", "bits", "data", "expected"),
    [  # by hand: (value - zero) / full scale of the container
        (PCM, 8, b"\x00\x80\xc0\xff", [-1.0, 0.0, 0.5, 127 / 128]),
        (PCM, 16, struct.pack("<4h", -32768, 0, 16384, 32767), [-1.0, 0.0, 0.5, 32767 / 32768]),
        (PCM, 24, bytes.fromhex("000080 000000 010000 ffffff"), [-1.0, 0, 2**-23, -(2**-23)]),
        (PCM, 32, struct.pack("<3i", -(2**31), 1, 2**30), [-1.0, 2.0**-31, 0.5]),
        (FLOAT, 32, struct.pack("<3f", 0.1, -1.0, 1.5), [float(np.float32(0.1)), -1.0, 1.5]),
        (FLOAT, 64, struct.pack("<3d", 0.1, -1.0, 1.5), [float(np.float32(0.1)), -1.0, 1.5]),
        (PCM, 20, b"\x00\x00\x40", [0.5]),  # 20 bits in a container of 24: the container's scale
        (PCM, 12, b"\x00\x40", [0.5]),  # 12 in 16
    ],
)
def test_codings(tag, bits, data, expected):
    assert samples(wav(data, tag=tag, bits=bits)) == expected


@pytest.mark.parametrize(
    ("tag", "bits", "valid", "data"),
    [(PCM, 16, 16, b"\x00\x40"), (PCM, 32, 24, b"\x00\x00\x00\x40"), (FLOAT, 32, 32, b"\0\0\0\x3f")],
)
def test_extensible(tag, bits, valid, data):
    """0.5 in each: the tag is in the SubFormat GUID, and the container gives the scale, not the valid bits."""
    extension = struct.pack("<HHIH", 22, valid, 4, tag) + GUID_TAIL
    assert samples(wav(data, tag=EXTENSIBLE, bits=bits, extra=extension)) == [0.5]


def test_channels_are_averaged_without_bias_or_overflow():
    assert samples(wav(struct.pack("<4h", 32767, 32767, -1, 0), channels=2)) == [32767 / 32768, -0.5 / 32768]
    assert samples(wav(struct.pack("<2f", 3e38, 3e38), tag=FLOAT, bits=32, channels=2)) == [float(np.float32(3e38))]
    assert samples(wav(struct.pack("<3h", 3, 6, 9), channels=3)) == [6 / 32768]
    assert samples(wav(b"\xc0" * 65535, channels=65535, bits=8)) == [0.5]


def test_other_chunks_are_skipped():
    """Before and after the data, of odd size with its pad byte and (some writers) without it."""
    half = chunk(b"data", b"\x00\x40")
    assert samples(riff(chunk(b"JUNK", b"x" * 28), fmt(), chunk(b"LIST", b"abc"), half)) == [0.5]
    assert samples(riff(fmt(), half, chunk(b"LIST", b"abc"), chunk(b"id3 ", b"tag"))) == [0.5]
    assert samples(riff(fmt(), chunk(b"LIST", b"abc")[:-1], half)) == [0.5]
    assert samples(riff(fmt(extra=b"\0\0"), chunk(b"fact", b"\1\0\0\0"), half)) == [0.5]
    assert samples(riff(chunk(b"bext", bytes(3_000_000)), fmt(), half)) == [0.5]


def test_odd_data_without_its_pad_byte():
    assert samples(wav(b"\xc0", bits=8)[:-1]) == [0.5]


@pytest.mark.parametrize("rate", [1, 8000, 44100, 4_000_000_000])
def test_rate_is_what_the_header_says(rate):
    assert read_wav(wav(b"\0\0", rate=rate)).rate == rate


def test_every_kind_of_source(tmp_path):
    data = wav(struct.pack("<100h", *range(100)))
    expected = [i / 32768 for i in range(100)]
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    assert samples(path) == samples(str(path)) == expected
    assert samples(data) == samples(bytearray(data)) == samples(memoryview(data)) == expected
    assert samples(io.BytesIO(data)) == samples(Pipe(data)) == samples(Pipe(data, most=1)) == expected
    with open(path, "rb") as file:
        assert samples(file) == expected


def test_real_pipe():
    data = wav(bytes(200_000))
    program = f"import sys; sys.stdout.buffer.write({data[:44]!r} + bytes(200_000))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert samples(process.stdout) == [0.0] * 100_000


def test_more_than_one_block():
    """By formula, over the seams of the blocks in which the file is read: 24-bit stereo, 3.6 MB."""
    values = np.arange(600_000, dtype=np.int32)
    stereo = np.stack([values, -values // 2], axis=1)
    raw = stereo.astype("<i4").tobytes()
    packed = np.frombuffer(raw, np.uint8).reshape(-1, 4)[:, :3].tobytes()
    result = read_wav(wav(packed, channels=2, bits=24))
    np.testing.assert_array_equal(result.samples, (stereo.mean(axis=1) / 2**23).astype(np.float32))


# Empty, short and silent


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0" * 1000])
def test_no_sample_one_sample_all_zeros(data):
    assert samples(wav(data)) == [0.0] * (len(data) // 2)


def test_an_empty_recording_with_chunks_after_it():
    """The size is 0 because there is nothing, not because the writer could not know it: LIST is not audio."""
    assert samples(riff(fmt(), chunk(b"data", b""), chunk(b"LIST", b"INFO"))) == []


# Headers that lie


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x80000000, 0x7FFFF000])
@pytest.mark.parametrize("riff_size", [0, 36, 0xFFFFFFFF])
def test_streamed_files_go_on_to_the_end(size, riff_size):
    """Sizes as killed recorders, ffmpeg, arecord and sox leave them: nothing to warn of."""
    data = struct.pack("<3h", 1, 2, 3)
    assert samples(riff(fmt(), chunk(b"data", data, size), size=riff_size)) == [1 / 32768, 2 / 32768, 3 / 32768]


def test_three_hours_promised():
    """By hand: 3 h = 10800 s * 32000 bytes/s = 345600000; held: 80000 / 32000 = 2.5 s."""
    result = read_wav(wav(b"\x00\x40" * 40_000, size=345_600_000))
    assert result.samples.tolist() == [0.5] * 40_000
    (warning,) = result.warnings
    assert "promises 345600000 bytes (10800.00 s), the file holds 80000 (2.50 s)" in warning


@pytest.mark.parametrize(("cut", "frames"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 0)])
def test_cut_in_the_middle_of_a_frame(cut, frames):
    """Stereo 16-bit, two frames of 4 bytes: the whole frames count, and the loss is told."""
    result = read_wav(wav(struct.pack("<4h", 16384, 16384, 8192, 8192), channels=2)[:-cut])
    assert result.samples.tolist() == [0.5][:frames]
    (warning,) = result.warnings
    assert "cut short" in warning


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF])
def test_an_incomplete_last_frame_is_told(size):
    body = fmt() + b"data" + struct.pack("<I", 3 if size is None else size) + b"\x00\x40\x01"
    result = read_wav(riff(body))
    assert result.samples.tolist() == [0.5]
    assert result.warnings == ("the last frame has 1 of its 2 bytes: left out",)


@pytest.mark.parametrize("block_align", [0, 1, 3, 7, 65535])
def test_block_align_nonsense_is_ignored(block_align):
    assert samples(wav(b"\x00\x40", block_align=block_align)) == [0.5]


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0"])
def test_a_promise_allocates_nothing(data):
    """4 GB and 2 GB promised, 4 bytes there."""
    for size in (0xFFFFFFFF, 0x7FFEFFFE):
        tracemalloc.start()
        read_wav(wav(data, size=size))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20


def test_memory_is_bounded_by_the_samples(tmp_path):
    """40 MiB of stereo float64 make 10 MiB of samples; the rest is a few blocks of 1 MiB."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(bytes(40 << 20), tag=FLOAT, bits=64, channels=2))
    tracemalloc.start()
    decoded = read_wav(path).samples.nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoded == 10 << 20
    assert peak < 2 * decoded


# What cannot be used, and what the message says


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"RIFF\x24\0", "ends after 6 bytes"),
        (riff(), "no data chunk"),
        (riff(fmt()), "no data chunk"),
        (riff(fmt())[:30], "fmt chunk of 10 bytes instead of 16"),
        (riff(fmt(), b"dat"), "no data chunk"),
        (riff(chunk(b"data", b"\0\0")), "without a fmt chunk"),
        (riff(chunk(b"data", b"\0\0"), fmt()), "without a fmt chunk before its data"),
        (riff(chunk(b"fmt ", b"\1\0\1\0"), chunk(b"data", b"")), "fmt chunk of 4 bytes"),
        (wav(b"\0\0", channels=0), "0 channels at 16000 Hz"),
        (wav(b"\0\0", rate=0), "1 channels at 0 Hz"),
        (wav(b"\0\0", bits=0), "PCM.*0 bits"),
        (wav(b"\0\0", bits=64), "PCM.*64 bits"),
        (wav(b"\0\0", bits=65535), "PCM.*65535 bits"),
        (wav(b"\0\0", tag=FLOAT, bits=16), "float.*16 bits"),
        (wav(b"\0\0", tag=6, bits=8), r"0x0006 \(A-law\), 8 bits.*supported: .*PCM.*float.*ffmpeg -i"),
        (wav(b"\0\0", tag=7, bits=8), r"0x0007 \(mu-law\)"),
        (wav(b"\0\0", tag=0x11, bits=4), r"0x0011 \(IMA ADPCM\), 4 bits"),
        (wav(b"\0\0", tag=0x55, bits=0), r"0x0055 \(MP3\)"),
        (wav(b"\0\0", tag=0x1234), r"0x1234 \(unknown coding\)"),
        (wav(b"\0\0", tag=EXTENSIBLE), "EXTENSIBLE with an incomplete"),
        (wav(b"\0\0", tag=EXTENSIBLE, extra=struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)), "foreign SubFormat"),
        (wav(b"\0\0", tag=EXTENSIBLE, extra=struct.pack("<HHIH", 22, 8, 4, 7) + GUID_TAIL), "mu-law"),
        (b"RF64" + wav(b"\0\0")[4:], "RF64.*supported: .*ffmpeg -i in -ar 16000 -ac 1 out.wav"),
        (b"RIFX" + wav(b"\0\0")[4:], "RIFX"),
        (b"FORM\0\0\0\x10AIFFCOMM", "AIFF"),
        (b"RIFF\x10\0\0\0AVI LIST", "AVI"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "not a WAV file.*52 49 46 46"),
        (b"OggS\0\2" + bytes(30), "Ogg"),
        (b"fLaC\0\0\0\x22" + bytes(30), "FLAC"),
        (b"ID3\4\0\0" + bytes(30), "MP3"),
        (b"\xff\xfb\x90\x64" + bytes(30), "MP3 or AAC"),
        (b"\0\0\0\x20ftypM4A " + bytes(30), "M4A"),
        (b"\x1aE\xdf\xa3" + bytes(30), "WebM"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"These are notes, not audio.\n", "a text file, beginning 'These are notes"),
        (f"Übung{57 * ' '}ü, cut in two at byte 64".encode(), "a text file, beginning 'Übung"),
        (b"hi", "a text file, beginning 'hi'"),
        (b"\n<!DOCTYPE html>\n<html><body>404", "an HTML page"),
        (bytes(100), "not a WAV file.*00 00 00"),
    ],
)
def test_errors_say_what_was_found(tmp_path, data, message):
    path = tmp_path / "sound.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=f"(?s)sound.wav: .*{message}"):
        read_wav(path)


@pytest.mark.parametrize(("bits", "bad"), [(32, "nan"), (32, "inf"), (64, "-inf"), (64, "1e300")])
def test_nan_and_infinity_are_refused(bits, bad):
    """By hand: number 384000 is at 24 s in mono and at 12 s in stereo, the first of two, and in a later block; 1e300 is
    more than float32 can hold."""
    values = np.zeros(400_000, f"<f{bits // 8}")
    values[384_000] = values[390_000] = float(bad)
    for channels, at in (1, "24.000 s"), (2, "12.000 s"):
        with pytest.raises(AudioError, match=f"at {at}"):
            read_wav(wav(values.tobytes(), tag=FLOAT, bits=bits, channels=channels))


def test_errors_name_their_source(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"")
    with open(path, "rb") as named, open(os.open(path, os.O_RDONLY), "rb") as numbered:
        for source, name in (path, "a.wav"), (named, "a.wav"), (numbered, "^audio stream"), (b"", "^audio bytes"):
            with pytest.raises(AudioError, match=f"{name}: empty"):
                read_wav(source)


def test_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such\.wav"):
        read_wav(tmp_path / "no such.wav")
    with pytest.raises((IsADirectoryError, PermissionError)):  # POSIX, Windows
        read_wav(tmp_path)
    with pytest.raises(TypeError, match="not int"):
        read_wav(3)


# Any bytes at all


def outcome(data):
    """Reads data; anything but samples or AudioError fails the test."""
    try:
        result = read_wav(Pipe(data, most=1 << 16))
    except AudioError:
        return
    assert result.samples.dtype == np.float32
    assert result.samples.ndim == 1
    assert result.samples.size <= len(data)
    assert np.isfinite(result.samples).all()
    assert result.rate > 0


@given(st.binary(max_size=200))
def test_random_bytes(data):
    outcome(data)
    outcome(b"RIFF\0\0\0\0WAVE" + data)
    outcome(riff(b"fmt \x10\0\0\0" + data))


@settings(max_examples=300)
@given(
    st.sampled_from([(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)]),
    st.binary(max_size=100),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4),
    st.integers(0, 20),
)
def test_mutated_headers(coding, data, changes, cut):
    file = bytearray(wav(data, tag=coding[0], bits=coding[1], channels=2))
    for position, value in changes:
        if position < len(file):
            file[position] = value
    outcome(bytes(file[: len(file) - cut]))


# soundfile (libsndfile)


@pytest.mark.reference
@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_equals_soundfile(tmp_path, format, subtype, channels, rate):
    """Sample for sample in mono; the mean of several channels to the last bit or so of float32."""
    soundfile = pytest.importorskip("soundfile")
    path = os.fspath(tmp_path / "a.wav")
    noise = np.random.default_rng(0).uniform(-1, 1, (5001, channels))
    noise[:2] = [[-1.0], [1.0]]
    soundfile.write(path, noise, rate, format=format, subtype=subtype)
    expected, expected_rate = soundfile.read(path, dtype="float32", always_2d=True)
    result = read_wav(path)
    assert (result.rate, result.warnings) == (expected_rate, ())
    if channels == 1:
        np.testing.assert_array_equal(result.samples, expected[:, 0])
    else:
        np.testing.assert_allclose(result.samples, expected.mean(axis=1, dtype=np.float64), atol=1e-7)
