"""WAV files written byte by byte, with the samples they must give worked out by hand; then soundfile's word for it."""

import io
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohere_lite.audio import mix, open_audio, stretch, usable_frames
from cohere_lite.errors import AudioError, NotWav
from cohere_lite.extras.payload import _file_in
from cohere_lite.wav import open_wav

PCM, MS_ADPCM, FLOAT, A_LAW, MU_LAW, IMA_ADPCM, EXTENSIBLE = 1, 2, 3, 6, 7, 0x11, 0xFFFE
GUID_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71")


def chunk(chunk_id, body, size=None, order="<"):
    """One RIFF chunk; size: what the header says, when that is not the truth."""
    return chunk_id + struct.pack(order + "I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def riff(*chunks, size=None, magic=b"RIFF", order="<"):
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack(order + "I", len(body) if size is None else size) + body


def fmt_body(tag=PCM, channels=1, rate=16000, bits=16, block_align=None, extra=b"", order="<"):
    align = channels * ((bits + 7) // 8) if block_align is None else block_align
    return struct.pack(order + "HHIIHH", tag, channels, rate, rate * align % 2**32, align, bits) + extra


def fmt(**format):
    return chunk(b"fmt ", fmt_body(**format))


def wav(data, size=None, **format):
    return riff(fmt(**format), chunk(b"data", data, size))


def rifx(data, size=None, **format):
    """Big-endian; the samples must be so already."""
    body = fmt_body(**format, order=">")
    return riff(chunk(b"fmt ", body, order=">"), chunk(b"data", data, size, order=">"), magic=b"RIFX", order=">")


def rf64(data, size=None, magic=b"RF64", **format):
    """The sizes that need it are in the ds64 chunk: of the file, of the data; then samples, length of a table."""
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(data) if size is None else size, 0, 0))
    return riff(ds64, fmt(**format), chunk(b"data", data, 0xFFFFFFFF), size=0xFFFFFFFF, magic=magic)


def chunk64(chunk_id, body, size=None):
    """One Wave64 chunk: a GUID, a size that counts GUID and size, zeros up to a multiple of 8."""
    guid = chunk_id + bytes.fromhex("f3acd311 8cd100c0 4f8edb8a")
    return guid + struct.pack("<Q", 24 + len(body) if size is None else size) + body + bytes(-len(body) % 8)


def wave64(*chunks, size=None):
    body = chunk64(b"wave", b"")[:16] + b"".join(chunks)
    return b"riff" + bytes.fromhex("2e91cf11 a5d628db 04c10000") + struct.pack("<Q", size or 24 + len(body)) + body


def w64(data, size=None, **format):
    return wave64(chunk64(b"fmt ", fmt_body(**format)), chunk64(b"data", data, size))


BUILDERS = [wav, rifx, rf64, w64]


class Recording(NamedTuple):
    samples: np.ndarray
    rate: int
    warnings: tuple[str, ...]


def read_wav(source):
    """All of it: float32 (n,), the mean of the channels."""
    with open_audio(source) as audio:
        blocks = [np.zeros((0, 1), np.float32), *(mix(frames, None) for frames in stretch(audio, 0.0, None))]
        return Recording(np.concatenate(blocks)[:, 0], audio.rate, (*audio.missing, *audio.warnings))


def peak_memory(source):
    """Bytes, while all of it is read, block by block."""
    tracemalloc.start()
    try:
        with open_audio(source) as audio:
            for frames in stretch(audio, 0.0, None):
                mix(frames, None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def samples(source):
    result = read_wav(source)
    assert result.warnings == ()
    assert result.samples.dtype == np.float32
    return result.samples.tolist()


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives a few bytes at a time, like a pipe: `sizes` at most, over and over."""

    def __init__(self, data, *sizes):
        self.buffer, self.sizes = io.BytesIO(data), itertools.cycle(sizes)

    def readable(self):
        return True

    def readinto(self, into):
        part = self.buffer.read(min(next(self.sizes), len(into)))
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
        (PCM, 17, b"\x00\x00\x40", [0.5]),  # 17 to 24 bits are in a container of 24: the container's scale
        (PCM, 9, b"\x00\x40", [0.5]),  # 9 to 16 in 16
        # G.711, tables 1 and 2: of A-law the largest and the smallest values; of mu-law the largest, both zeros, and 2
        (A_LAW, 8, b"\xaa\x2a\xd5\x55", [4032 / 4096, -4032 / 4096, 1 / 4096, -1 / 4096]),
        (MU_LAW, 8, b"\x80\x00\xff\x7f\xfe", [8031 / 8192, -8031 / 8192, 0, 0, 2 / 8192]),
        # exponent and mantissa 0, 10 and 1, 0 and 3, 6; of mu-law 3, 10
        (A_LAW, 8, b"\xdf\xc5\xe3", [(2 * 10 + 1) / 4096, 33 / 4096, (2 * 6 + 33) * 4 / 4096]),
        (MU_LAW, 8, b"\xc5", [((2 * 10 + 33) * 8 - 33) / 8192]),
        (MU_LAW, 16, b"\x80", [8031 / 8192]),  # some writers give the bits after decoding; they say nothing here
    ],
)
def test_codings(tag, bits, data, expected):
    assert samples(wav(data, tag=tag, bits=bits)) == expected


# One mono block of each, decoded by hand in 16-bit units.
IMA_BLOCK = struct.pack("<hBB", 100, 0, 0) + b"\x94\x07\x0f\x80"
IMA_VALUES = [
    100,  # the index is 0: step 7
    100 + 7,  # code 4: 7 + 7//8; index 0 + 2: step 9
    107 - 3,  # code 9: -(9//4 + 9//8); index 2 - 1: step 8
    104 + 15,  # code 7: 8 + 8//2 + 8//4 + 8//8; index 1 + 8: step 17
    119 + 2,  # code 0: 17//8; index 9 - 1: step 16
    121 - 30,  # code 15: -(16 + 8 + 4 + 2); index 8 + 8: step 34
    91 + 4,  # code 0: 34//8; index 16 - 1: step 31
    95 + 3,  # code 0: 31//8; index 15 - 1: step 28
    98 - 3,  # code 8: -(28//8)
]
MS_BLOCK = struct.pack("<Bhhh", 1, 16, 10, 4) + b"\x2f\x81"
MS_VALUES = [
    4,
    10,
    16 + 2 * 16,  # code 2; weights 1: 2*10 - 4 predicted; step 16, then 230/256 of that, but never below 16
    86 - 16,  # code 15 = -1; 2*48 - 10 predicted
    92 - 8 * 16,  # code 8 = -8; 2*70 - 48 predicted; step then 768/256 * 16 = 48
    -142 + 48,  # code 1; 2*-36 - 70 predicted
]
ADPCM_BLOCKS = [(IMA_ADPCM, IMA_BLOCK, IMA_VALUES), (MS_ADPCM, MS_BLOCK, MS_VALUES)]


@pytest.mark.parametrize(("tag", "block", "values"), ADPCM_BLOCKS)
def test_adpcm(tag, block, values):
    """One block, and 50000 blocks, which is more than are read at once."""
    for count in (1, 50_000):
        data = wav(block * count, tag=tag, bits=4, block_align=len(block))
        np.testing.assert_array_equal(samples(data), np.tile(values, count) / 32768)


def test_adpcm_limits():
    """By hand. IMA: the index stays within 0..88, so the step is 32767: code 7 adds 61436, code 15 takes it off.
    Microsoft: a number of weights that does not exist means the first ones, (1, 0)."""
    block = struct.pack("<hBB", 32000, 200, 0) + b"\xf7\xff\xff\xff"
    expected = [32000, 32767, 32767 - 61436] + [-32768] * 6
    assert samples(wav(block, tag=IMA_ADPCM, bits=4, block_align=8)) == [value / 32768 for value in expected]
    block = struct.pack("<Bhhh", 7, 8000, 30000, 0) + b"\x78"
    assert samples(wav(block, tag=MS_ADPCM, bits=4, block_align=8)) == [0, 30000 / 32768, 32767 / 32768, -1]


def test_fact_chunk_does_not_cut():
    """It says 2 samples here, by mistake."""
    format = fmt(tag=IMA_ADPCM, bits=4, block_align=8)
    file = riff(format, chunk(b"fact", b"\2\0\0\0"), chunk(b"data", IMA_BLOCK * 2))
    assert samples(file) == [value / 32768 for value in IMA_VALUES * 2]


def test_stereo_adpcm():
    """By hand: the mono block on the left, one that stays at -32 on the right (IMA: step 7, code 0 adds 7//8 = 0;
    Microsoft: weights (1, 0), code 0). IMA alternates every 4 bytes, Microsoft every field and every code."""
    left, right = IMA_BLOCK, struct.pack("<hBB", -32, 0, 0) + bytes(4)
    block = left[:4] + right[:4] + left[4:] + right[4:]
    expected = [(value - 32) / 2 / 32768 for value in IMA_VALUES]
    assert samples(wav(block, tag=IMA_ADPCM, bits=4, channels=2, block_align=16)) == expected
    block = struct.pack("<BBhhhhhh", 1, 0, 16, 16, 10, -32, 4, -32) + b"\x20\xf0\x80\x10"
    expected = [(value - 32) / 2 / 32768 for value in MS_VALUES]
    assert samples(wav(block, tag=MS_ADPCM, bits=4, channels=2, block_align=18)) == expected


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_64_bit_wav(magic):
    assert samples(rf64(b"\x00\x40", magic=magic)) == [0.5]
    assert samples(rf64(b"\xc0", bits=8, magic=magic) + chunk(b"LIST", b"abc")) == [0.5]
    ds64, data = chunk(b"ds64", struct.pack("<QQQI", 0, 2, 0, 0)), chunk(b"data", b"\x00\x40", 0xFFFFFFFF)
    assert samples(riff(ds64, chunk(b"junk", bytes(28)), fmt(), data, chunk(b"LIST", b"ab"), magic=magic)) == [0.5]
    assert samples(riff(ds64[:4] + b"\x0f\0\0\0" + bytes(16), fmt(), data, magic=magic)) == [0.5]  # too short: no size


def test_big_endian():
    """The same values as in test_codings; blocks of ADPCM are little-endian nevertheless (libsndfile)."""
    assert samples(rifx(b"\x00\x80\xc0", bits=8)) == [-1.0, 0.0, 0.5]
    assert samples(rifx(struct.pack(">3h", -32768, 0, 16384))) == [-1.0, 0.0, 0.5]
    assert samples(rifx(bytes.fromhex("800000 000001 ffffff"), bits=24)) == [-1.0, 2**-23, -(2**-23)]
    assert samples(rifx(struct.pack(">2i", 1, 2**30), bits=32)) == [2.0**-31, 0.5]
    assert samples(rifx(struct.pack(">f", 1.5), tag=FLOAT, bits=32)) == [1.5]
    assert samples(rifx(struct.pack(">d", 1.5), tag=FLOAT, bits=64)) == [1.5]
    assert samples(rifx(b"\x80", tag=MU_LAW, bits=8)) == [8031 / 8192]
    values = [value / 32768 for value in IMA_VALUES]
    assert samples(rifx(IMA_BLOCK, tag=IMA_ADPCM, bits=4, block_align=8)) == values
    guid = struct.pack(">IHH", PCM, 0, 0x10) + GUID_TAIL[-8:]
    assert samples(rifx(b"\x40\0", tag=EXTENSIBLE, extra=struct.pack(">HHI", 22, 16, 4) + guid)) == [0.5]


def test_wave64():
    other = chunk64(b"list", b"abc")
    form, data = chunk64(b"fmt ", fmt_body()), chunk64(b"data", b"\x00\x40")
    assert samples(wave64(form, data)) == samples(wave64(other, form, other, data, other)) == [0.5]
    assert samples(wave64(form, data[:26])) == [0.5]  # without the zeros
    for n in (*range(10), 41):
        assert samples(wave64(form, chunk64(b"list", b"x" * n), data)) == [0.5]
    values = [value / 32768 for value in MS_VALUES]
    assert samples(w64(MS_BLOCK, tag=MS_ADPCM, bits=4, block_align=9)) == values


@pytest.mark.parametrize(
    ("tag", "bits", "valid", "data"),
    [(PCM, 16, 16, b"\x00\x40"), (PCM, 32, 24, b"\x00\x00\x00\x40"), (FLOAT, 32, 32, b"\0\0\0\x3f")],
)
def test_extensible(tag, bits, valid, data):
    """0.5 in each: the tag is in the SubFormat GUID, and the container gives the scale, not the valid bits."""
    extension = struct.pack("<HHIH", 22, valid, 4, tag) + GUID_TAIL
    assert samples(wav(data, tag=EXTENSIBLE, bits=bits, extra=extension)) == [0.5]


def test_a_guid_counts_in_extensible_files_only():
    """By rule (mmreg.h): the tag is the coding; these 16 bits are no float."""
    extension = struct.pack("<HHIH", 22, 16, 4, FLOAT) + GUID_TAIL
    assert samples(wav(b"\x00\x40", tag=PCM, extra=extension)) == [0.5]


def test_channels_are_averaged_without_bias_or_overflow():
    assert samples(wav(struct.pack("<4h", 32767, 32767, -1, 0), channels=2)) == [32767 / 32768, -0.5 / 32768]
    assert samples(wav(struct.pack("<2f", 9e14, 9e14), tag=FLOAT, bits=32, channels=2)) == [float(np.float32(9e14))]
    assert samples(wav(struct.pack("<3h", 3, 6, 9), channels=3)) == [6 / 32768]
    assert samples(wav(b"\xc0" * 65535, channels=65535, bits=8)) == [0.5]
    half = np.full(65535, 0.5).tobytes()  # a frame of 512 KiB, more than is read at once
    assert samples(wav(half, tag=FLOAT, channels=65535, bits=64, block_align=0)) == [0.5]


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
    assert samples(io.BytesIO(data)) == samples(Pipe(data, 7)) == samples(Pipe(data, 1)) == expected
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
    assert samples(riff(fmt(), chunk(b"data", b""), chunk(b"_PMX", b"<x:xmpmeta/>"))) == []


OPENED = [io.BytesIO, lambda data: Pipe(data, 64)]


@pytest.mark.parametrize("second", BUILDERS)
@pytest.mark.parametrize("first", BUILDERS)
@pytest.mark.parametrize("opened", OPENED)
def test_recordings_laid_end_to_end_are_one(first, second, opened):
    """An odd length, so that there are zeros between; and chunks. Of any two kinds of WAV file."""
    one, two = first(b"\xc0" * 3, bits=8), second(b"\x40" * 3, bits=8)
    if first is wav:
        one += chunk(b"LIST", b"abc")
    for more in (two, bytes(4 if first is wav else 0) + two):
        recording = read_wav(opened(one + more + one))
        assert recording.samples.tolist() == [0.5] * 3 + [-0.5] * 3 + [0.5] * 3
        assert recording.warnings == ()


def test_two_data_chunks_are_one_recording():
    two = riff(fmt(bits=8), chunk(b"data", b"\xc0" * 3), chunk(b"LIST", b"abc"), chunk(b"data", b"\x40"))
    assert samples(two) == [0.5] * 3 + [-0.5]


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(
    ("second", "told"),
    [
        (wav(b"\0\0", rate=8000), "it has 1 channel at 8000 Hz, the first one 1 channel at 16000 Hz"),
        (wav(b"\0" * 4, channels=2), "it has 2 channels at 16000 Hz, the first one 1 channel at 16000 Hz"),
        (riff(chunk(b"data", b"\0\0")), "a WAV file without a fmt chunk before its data chunk: a damaged header"),
        (riff(fmt()[:16]), "a WAV file with a fmt chunk of 8 bytes instead of 16 or more"),
        (wav(b"\0\0", tag=0x31), "WAV with format tag 0x0031"),
        (wav(b"fLaC\0\0\0\x22" + bytes(100)), "a WAV file with FLAC in place of its samples"),
        (b"RIFF\0\0\0\0AVI ", "it is no WAV file"),
        (b"fLaC\0\0\0\x22" + bytes(100), "it is no WAV file"),
    ],
)
def test_another_recording_that_does_not_fit_is_told(opened, second, told):
    recording = read_wav(opened(wav(b"\x00\x40") + second))
    assert recording.samples.tolist() == [0.5]
    (warning,) = recording.warnings
    assert warning.startswith(f"another recording follows, which is left out: {told}")


@pytest.mark.parametrize(
    "rest",
    [
        b"\0",
        bytes(1 << 20),
        b"\1\2\3",
        chunk(b"id3 ", b"RIFF" * 9),
        riff(),
    ],
    ids=lambda rest: f"{len(rest)} {rest[:12]!r}",
)
def test_what_follows_and_is_no_recording(rest):
    assert samples(wav(b"\x00\x40") + rest) == [0.5]


UNKNOWN_SIZES = [0, 0xFFFFFFFF, 0x7FFFF000]


@pytest.mark.parametrize("size", UNKNOWN_SIZES)
@pytest.mark.parametrize("second", BUILDERS)
@pytest.mark.parametrize("opened", [*OPENED, lambda data: Pipe(data, 1), lambda data: Pipe(data, 7, 50)])
def test_a_recording_of_unknown_size_ends_where_another_begins(opened, second, size):
    """By hand. Its header does not lie on a frame's boundary in the one of 3 bytes, nor within one read."""
    one, two = wav(b"\x00\x40" * 40, size), second(b"\xc0" * 8, bits=8)
    recording = read_wav(opened(one + one + two))
    assert (recording.samples.tolist(), recording.warnings) == ([0.5] * 88, ())
    recording = read_wav(opened(wav(b"\x00\x40\x01", size)[:-1] + two))
    assert recording.samples.tolist() == [0.5] * 9
    assert recording.warnings == ("the last frame has 1 of its 2 bytes: using the whole samples",)
    recording = read_wav(opened(one + second(b"\xc0" * 8, bits=8, rate=8000)))
    assert recording.samples.tolist() == [0.5] * 40
    assert "it has 1 channel at 8000 Hz, the first one 1 channel at 16000 Hz" in recording.warnings[0]


@pytest.mark.parametrize("second", BUILDERS)
@pytest.mark.parametrize("cut", [1, 4, 5, 12, 15, 16, 40, 100])
@pytest.mark.parametrize("opened", [*OPENED, lambda data: Pipe(data, 1)])
def test_a_recording_that_was_cut_short_ends_where_another_begins(opened, cut, second):
    """By hand: the bytes that the first one promises reach into the header of the second, or its samples, or beyond."""
    recording = read_wav(opened(wav(b"\xc0" * 100, bits=8)[:-cut] + second(b"\x40" * 16, bits=8)))
    assert recording.samples.tolist() == [0.5] * (100 - cut) + [-0.5] * 16
    (warning,) = recording.warnings
    assert f"promises 100 bytes (0.01 s), the file holds {100 - cut} " in warning


def test_a_header_is_found_over_the_seam_of_two_blocks():
    """By hand: in all places about the end of the first 256 KiB of the samples."""
    for n in range((1 << 18) - 20, (1 << 18) + 4):
        recording = read_wav(wav(b"\xc0" * n, 0xFFFFFFFF, bits=8)[: 44 + n] + wav(b"\x40", bits=8))
        assert (len(recording.samples), recording.samples[-1], recording.warnings) == (n + 1, -0.5, ())


def test_samples_that_begin_no_header_come_at_once():
    """By hand: RIFF, but no WAVE behind it, and R alone, are samples; only the last bytes of what has come are kept
    back, and only while they may go on as a header does."""
    parts = (b"abcd", 4), (b"RIFFRIFFabcdabcdabcdabcd", 24), (b"abcdR", 4), (b"abcdRx", 6), (b"abRIFFabc", 2)
    for size, (data, n) in itertools.product((0xFFFFFFFF, 1000), parts):
        with open_audio(Pipe(wav(data, size, bits=8)[: 44 + len(data)], 1 << 16)) as audio:
            n_blocks = 1 if size == 1000 else 2  # after the first 4 bytes, which tell whether the recording is empty
            assert sum(len(block) for block in itertools.islice(audio.blocks, n_blocks)) == n


MP3_FRAME = b"\xff\xfb\x90\x00" + b"\x55" * 413
ID3 = b"ID3\3\0\0" + bytes([0, 0, 1, 2]) + b"\xe9" * 130


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(
    ("junk", "n_bytes"),
    [
        (b"\r\n", 0),
        (b"abcdefg", 0),
        (b"\x80\xff\1\2abc", 0),
        (b"\xff" * 16, 0),
        (b"\xff" * 17, 17),
        (b"abcdefghijklmnopq", 17),
        (b"\1\2\3" + bytes(300_000), 0),
        (bytes(300_000), 0),
        (MP3_FRAME * 1000, 417_000),
        (ID3 + MP3_FRAME * 9, 417 * 9),
        (ID3, 0),
        (b"TAG" + b"\xe9" * 125, 0),
    ],
    ids=lambda value: f"{len(value)} {value[:12]!r}" if isinstance(value, bytes) else None,
)
def test_junk_after_a_recording(opened, junk, n_bytes):
    """By hand: what may be sound is told; a recording behind it is read."""
    told = (f"{n_bytes} bytes follow the recording that are no part of it, and are left out",) if n_bytes else ()
    for more in (), (0.25,):
        recording = read_wav(opened(wav(b"\x00\x40") + junk + (wav(b"\x00\x20") if more else b"")))
        assert (recording.samples.tolist(), recording.warnings) == ([0.5, *more], told)


@pytest.mark.parametrize("text", [b"<?xml ?>" + b"x" * 99, chunk(b"LIST", b"x" * 99, 999), b"APETAGEX" * 9])
def test_text_after_a_recording_is_not_told(text):
    assert samples(wav(b"\x00\x40") + text) == [0.5]


@pytest.mark.parametrize("opened", OPENED)
def test_a_recording_after_an_empty_one(opened):
    empty = riff(fmt(), chunk(b"data", b""), chunk(b"LIST", b"INFO"))
    assert samples(opened(empty + wav(b"\x00\x40"))) == [0.5]


def test_a_socket_is_not_asked_whether_another_follows():
    """Whoever sent the first may wait for an answer, the connection open. Each is read by itself then, though its last
    byte, 0x52, is how the next one begins."""
    here, there = socket.socketpair()
    here.settimeout(5)
    with here, there, here.makefile("rb") as file:
        for data, expected in (b"\x00\x40", [0.5]), (b"\x00\x20", [0.25]), (b"\x00\x52", [0.640625]):
            there.sendall(wav(data))
            assert samples(file) == expected


@pytest.mark.parametrize("after", [b"", b"\0", chunk(b"LIST", b"INFO"), b"\0" + chunk(b"LIST", b"INFOabc")])
@pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be asked there")
def test_a_pause_after_a_recording(after):
    """Of a pipe that stays open: that nothing comes is told, and ends the phrase. By hand, then the next recording."""
    reader, writer = os.pipe()
    with open(reader, "rb") as file, open(writer, "wb", buffering=0) as pipe:
        pipe.write(wav(b"\xc0" * 5, bits=8)[:-1] + after)
        closing = threading.Timer(2, pipe.close)
        closing.start()
        with open_audio(file) as audio:
            blocks = [next(audio.blocks)]
            while not closing.finished.is_set() and (len(blocks) < 2 or len(blocks[-1])):
                blocks.append(next(audio.blocks))
            assert not closing.finished.is_set()
            pipe.write((b"" if after else b"\0") + wav(b"\x40", bits=8))
            blocks += audio.blocks
        closing.join()
    assert np.concatenate(blocks)[:, 0].tolist() == [0.5] * 5 + [-0.5]
    assert [*audio.missing, *audio.warnings] == []


@pytest.mark.parametrize("filler", [b"\0", b" ", b"\xff", b""])
def test_what_fills_up_an_odd_chunk(filler):
    """By hand: before the samples and behind them; it should be zero, and libsndfile and ffmpeg take any."""
    odd = struct.pack("<4sI", b"LIST", 5) + b"INFOx" + filler
    assert samples(riff(fmt(bits=8), odd, chunk(b"data", b"\xc0" * 4))) == [0.5] * 4
    data = struct.pack("<4sI", b"data", 3) + b"\xc0" * 3 + filler
    assert samples(riff(fmt(bits=8), data, odd, odd)) == [0.5] * 3


# Headers that lie


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x80000000, 0x7FFFF000])
@pytest.mark.parametrize("riff_size", [0, 36, 0xFFFFFFFF])
def test_streamed_files_go_on_to_the_end(size, riff_size):
    """Sizes as killed recorders, ffmpeg, arecord and sox leave them: nothing to warn of."""
    data = struct.pack("<3h", 1, 2, 3)
    expected = [1 / 32768, 2 / 32768, 3 / 32768]
    assert samples(riff(fmt(), chunk(b"data", data, size), size=riff_size)) == expected
    assert samples(rifx(struct.pack(">3h", 1, 2, 3), size)) == expected


@pytest.mark.parametrize("size", [0, 24, 2**63 - 1, 2**64 - 1])
def test_streamed_64_bit_files_go_on_to_the_end(size):
    """ffmpeg to a pipe writes 0 into RF64 files and 2**63 - 1 into Wave64 ones."""
    data = struct.pack("<4h", 1, 2, 3, 4)  # 8 bytes: no zeros follow
    expected = [1 / 32768, 2 / 32768, 3 / 32768, 4 / 32768]
    assert samples(w64(data, size)) == expected
    assert samples(rf64(data, size=0 if size == 24 else size)) == expected
    assert samples(riff(fmt(), chunk(b"data", data, 0xFFFFFFFF), magic=b"RF64")) == expected  # and no ds64 chunk


def test_three_hours_promised():
    """By hand: 3 h = 10800 s * 32000 bytes/s = 345600000; held: 80000 / 32000 = 2.5 s."""
    result = read_wav(wav(b"\x00\x40" * 40_000, size=345_600_000))
    assert result.samples.tolist() == [0.5] * 40_000
    (warning,) = result.warnings
    assert "promises 345600000 bytes (10800.00 s), the file holds 80000 (2.50 s)" in warning


@pytest.mark.parametrize("build", [rf64, w64])
def test_forty_hours_promised(build):
    """By hand: 5 GB are 156250 s, and no placeholder where sizes have 64 bits; Wave64 counts 24 bytes of header."""
    result = read_wav(build(b"\x00\x40" * 4, size=5_000_000_000 + 24 * (build is w64)))
    assert result.samples.tolist() == [0.5] * 4
    (warning,) = result.warnings
    assert "promises 5000000000 bytes (156250.00 s), the file holds 8 (0.00 s)" in warning


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
    assert result.warnings == ("the last frame has 1 of its 2 bytes: using the whole samples",)


@pytest.mark.parametrize(("tag", "block", "values"), ADPCM_BLOCKS)
def test_cut_in_the_middle_of_a_block(tag, block, values):
    """By hand: a group of 4 bytes holds 8 samples of IMA, every byte 2 samples of Microsoft ADPCM; a head that is not
    whole holds nothing."""
    head, whole = (4, 1) if tag == IMA_ADPCM else (7, 2)
    for cut in range(len(block)):
        codes = 0 if tag == IMA_ADPCM else 2 * (cut - head)
        data = b"data\0\0\0\0" + block + block[:cut]
        result = read_wav(riff(fmt(tag=tag, bits=4, block_align=len(block)), data))
        expected = values + values[: whole + codes if cut >= head else 0]
        assert result.samples.tolist() == [value / 32768 for value in expected]
        said = f"the last block has {cut} of its {len(block)} bytes: using the whole samples"
        assert result.warnings == ((said,) if cut else ())


def test_cut_adpcm_tells_how_much():
    """By hand: blocks of 1024 bytes hold 1 + 2 * 1020 = 2041 samples; 1000 promised, 2 there, at 8 kHz."""
    file = wav(bytes(2048), size=1_024_000, tag=IMA_ADPCM, bits=4, block_align=1024, rate=8000)
    (warning,) = read_wav(file).warnings
    assert "promises 1024000 bytes (255.12 s), the file holds 2048 (0.51 s)" in warning


@pytest.mark.parametrize("block_align", [0, 1, 3, 4, 7, 65535])
def test_block_align_nonsense_is_ignored(block_align):
    assert samples(wav(b"\x00\x40", block_align=block_align)) == [0.5]


def test_24_bits_in_4_bytes():
    """By hand: block_align, 4 a channel, tells that the upper three bytes of four hold the sample."""
    data = struct.pack("<ii", 0x40000000, -0x20000000)
    assert samples(wav(data, bits=24, block_align=4)) == [0.5, -0.25]
    assert samples(wav(data, bits=24, channels=2, block_align=8)) == [0.125]
    for block_align in 3, 7, 8:
        assert len(samples(wav(data[:6], bits=24, block_align=block_align))) == 2


def test_a_size_between_the_placeholders_is_one():
    """By hand: 3 GB promised, 4 bytes there: a recording that was cut short, not one of unknown length."""
    wav_file = read_wav(wav(b"\x00\x40\x00\x40", size=3_000_000_000))
    assert wav_file.samples.tolist() == [0.5, 0.5]
    assert "promises 3000000000 bytes" in wav_file.warnings[0]


ADPCM_FORMAT = {"tag": IMA_ADPCM, "bits": 4, "block_align": 1024}


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0"])
@pytest.mark.parametrize("build", [wav, rifx, rf64, w64])
@pytest.mark.parametrize(
    "format",
    [{}, {"tag": MU_LAW, "bits": 8}, *({"tag": t, "bits": 4, "block_align": 65535} for t in (IMA_ADPCM, MS_ADPCM))],
)
def test_a_promise_allocates_nothing(data, build, format):
    """2 GB, 4 GB and 4 EB promised, 4 bytes there."""
    for size in (0x7FFEFFFE, 0xFFFFFFFF) if build in (wav, rifx) else (0xFFFFFFFF, 2**62 - 1):
        assert peak_memory(build(data, size=size, **format)) < 1 << 20


def test_a_chunk_that_promises_allocates_nothing():
    for file in (
        riff(chunk(b"LIST", b"1234", 0xFFFFFFFF)),
        wave64(chunk64(b"list", b"1234", 2**64 - 1)),
        riff(chunk(b"ds64", b"1234", 0xFFFFFFFF), magic=b"RF64"),
    ):
        tracemalloc.start()
        with pytest.raises(AudioError, match="no data chunk"):
            open_wav(io.BytesIO(file))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_a_file_of_zeros_is_not_searched():
    """Space that a recorder reserved and never wrote to: 64 KiB tell. Fewer zeros may stand between chunks."""
    file = io.BytesIO(riff(fmt()) + bytes(1 << 20))
    with pytest.raises(AudioError, match="no data chunk"):
        open_wav(file)
    assert file.tell() == len(riff(fmt())) + (1 << 16) + 4
    for n in 8, 24, 2000, 1 << 16:
        assert samples(riff(fmt(), bytes(n), chunk(b"data", b"\x00\x40"))) == [0.5]


class Endless(io.RawIOBase):
    """A header, then `size` zero bytes that never exist all at once."""

    def __init__(self, header, size):
        self.header, self.left = header, size

    def readable(self):
        return True

    def readinto(self, into):
        if self.header:
            count = min(len(into), len(self.header))
            into[:count], self.header = self.header[:count], self.header[count:]
        else:
            count = min(len(into), self.left)
            into[:count], self.left = bytes(count), self.left - count
        return count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "format"), [(32 << 20, {"tag": FLOAT, "bits": 64}), (8 << 20, {"bits": 8}), (3 << 20, ADPCM_FORMAT)]
)
def test_memory_does_not_grow_with_the_length(tmp_path, size, format):
    """16 MiB of samples or more, in float32. A block of ADPCM takes the most: 256 KiB are 4 MiB of float64, and then
    there is what they are made of."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(bytes(size), **format))
    assert peak_memory(path) < 14 << 20
    assert peak_memory(Endless(wav(b"", 0xFFFFFFFF, **format), size)) < 14 << 20


# What cannot be used, and what the message says


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"RIFF\x24\0", "ends after 6 bytes"),
        (riff()[:11], "ends after 11 bytes"),
        (riff(), "no data chunk"),
        (riff(fmt()), "no data chunk"),
        (riff(fmt())[:30], "fmt chunk of 10 bytes instead of 16"),
        (riff(fmt(), b"dat"), "no data chunk"),
        (riff(chunk(b"data", b"\0\0")), "without a fmt chunk"),
        (riff(chunk(b"data", b"\0\0"), fmt()), "without a fmt chunk before its data"),
        (riff(chunk(b"fmt ", b"\1\0\1\0"), chunk(b"data", b"")), "fmt chunk of 4 bytes"),
        (wav(b"\0\0", channels=0), "0 channels at 16000 Hz"),
        (wav(b"\0\0", rate=0), "1 channels at 0 Hz"),
        (w64(b"\0\0")[:20], "a WAV file that ends after 20 bytes"),
        (w64(b"")[:-1], "no data chunk"),
    ],
)
def test_errors_say_what_was_found(data, message):
    with pytest.raises(AudioError, match=message) as caught:
        open_wav(io.BytesIO(data))
    assert not isinstance(caught.value, NotWav)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wav(b"\0\0", bits=0), "0x0001, 0 bits .*supported: .*PCM.*float"),
        (wav(b"\0\0", bits=64, block_align=4), "0x0001, 64 bits"),
        (wav(b"\0\0", bits=65535), "0x0001, 65535 bits"),
        (wav(b"\0\0", tag=FLOAT, bits=16), "0x0003, 16 bits"),
        (wav(b"\0\0\0\0", tag=FLOAT, bits=24, block_align=4), "0x0003, 24 bits"),
        (wav(b"\0\0", tag=0x11, bits=4, block_align=3), "0x0011, 4 bits .*1 channels, blocks of 3 bytes"),
        (wav(b"\0\0", tag=2, bits=4, block_align=0), "0x0002.* blocks of 0 bytes"),
        (wav(b"\0\0", tag=2, bits=4, channels=3, block_align=256), "3 channels.*supported: .*1 or 2 channels"),
        (wav(b"\0\0", tag=0x31, bits=0, block_align=65), "0x0031, 0 bits .*supported: .*PCM.*float"),
        (wav(b"\0\0", tag=EXTENSIBLE), "0xFFFE"),
        (wav(b"\0\0", tag=EXTENSIBLE, extra=struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)), "0xFFFE"),
        (wav(b"\0\0", tag=EXTENSIBLE, extra=struct.pack("<HHIH", 22, 16, 4, 1) + b"\xff" * 14), "0xFFFE"),
        (wav(b"\0\0", tag=EXTENSIBLE, extra=struct.pack("<HHIH", 22, 8, 4, 0x31) + GUID_TAIL), "0x0031"),
        (wav(b"\0\0", tag=EXTENSIBLE, extra=struct.pack("<HHIH", 22, 16, 4, 1) + GUID_TAIL[:-1]), "0xFFFE"),
        (b"RIFX" + wav(b"\0\0")[4:], "0x0100"),
        (w64(b"\0\0")[:24] + bytes(40), "not a WAV file.*72 69 66 66"),
        (b"FORM\0\0\0\x10AIFFCOMM", "not a WAV file.*46 4f 52 4d"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "not a WAV file.*52 49 46 46"),
        (b"\0", "not a WAV file.*00"),
        (bytes(100), "not a WAV file.*00 00 00"),
    ],
)
def test_what_a_converter_may_know(data, message):
    """Left to others: another format, of which the first bytes are handed on, or another coding within a WAV file."""
    with pytest.raises(NotWav, match=message) as caught:
        open_wav(io.BytesIO(data))
    assert caught.value.start == (data[:64] if message.startswith("not") else b"")


@pytest.mark.parametrize(("bits", "bad"), [(32, "nan"), (32, "inf"), (64, "-inf"), (64, "1e300")])
def test_nan_and_infinity_are_found(bits, bad):
    """By hand: number 384000 is that frame in mono and frame 192000 in stereo, the first of two, and in a later block;
    1e300 is more than float32 can hold."""
    values = np.zeros(400_000, f"<f{bits // 8}")
    values[384_000] = values[390_000] = float(bad)
    for channels, at in (1, 384_000), (2, 192_000):
        read = read_wav(wav(values.tobytes(), tag=FLOAT, bits=bits, channels=channels))
        assert usable_frames(read.samples[:, None]) == at


def test_a_signalling_nan_is_read_without_a_warning():
    """By hand, IEEE 754: exponent all ones, the mantissa's first bit 0, the rest not."""
    assert np.isnan(read_wav(wav(b"\1\0\x80\x7f", tag=FLOAT, bits=32)).samples).tolist() == [True]


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
    path = tmp_path / "a.wav"
    path.write_bytes(wav(b"\0\0"))
    with open(path, encoding="latin-1") as text, pytest.raises(TypeError, match="open it with mode 'rb'"):
        read_wav(text)
    with open(path, "rb") as closed:
        pass
    with pytest.raises(ValueError, match="closed file"):
        read_wav(closed)


# Any bytes at all


CODINGS = [
    *({"tag": PCM, "bits": bits} for bits in (8, 16, 24, 32)),
    *({"tag": FLOAT, "bits": bits} for bits in (32, 64)),
    *({"tag": tag, "bits": 8} for tag in (A_LAW, MU_LAW)),
    *({"tag": tag, "bits": 4, "block_align": 24} for tag in (IMA_ADPCM, MS_ADPCM)),
]


def outcome(data):
    """Reads data; anything but samples or AudioError fails the test."""
    try:
        result = read_wav(Pipe(data, 1 << 16))
    except AudioError:
        return
    assert result.samples.dtype == np.float32
    assert result.samples.ndim == 1
    assert result.samples.size <= 2 * len(data)  # 4 bits a sample
    assert result.rate > 0


@given(st.binary(max_size=200))
def test_random_bytes(data):
    outcome(data)
    outcome(b"RIFF\0\0\0\0WAVE" + data)
    outcome(riff(b"fmt \x10\0\0\0" + data))
    outcome(wave64(data))


@settings(max_examples=300)
@given(
    st.sampled_from(BUILDERS),
    st.sampled_from(CODINGS),
    st.binary(max_size=100),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4),
    st.integers(0, 20),
)
def test_mutated_headers(build, coding, data, changes, cut):
    file = bytearray(build(data, channels=2, **coding))
    for position, value in changes:
        if position < len(file):
            file[position] = value
    outcome(bytes(file[: len(file) - cut]))


# Hypothesis also tries constants that it finds in our sources, beginnings of other files among them, which are refused.
SOUND = st.binary(max_size=400).filter(lambda data: _file_in(data) is None)


@given(st.sampled_from(BUILDERS), st.sampled_from(CODINGS), st.integers(1, 2), SOUND)
def test_any_integers_stay_within_one(build, coding, channels, data):
    """The mean of the channels of any data in an integer coding; floats can be anything that is finite."""
    if coding["tag"] != FLOAT:
        result = read_wav(build(data, channels=channels, **coding))
        assert np.abs(result.samples).max(initial=0) <= 1


@settings(deadline=None)
@given(
    st.sampled_from(BUILDERS),
    st.sampled_from(CODINGS),
    st.integers(1, 2),
    SOUND,
    st.sampled_from([None, 0, 200]),
    st.lists(st.integers(1, 100), min_size=1, max_size=5),
    st.booleans(),
)
def test_frames_do_not_depend_on_how_the_bytes_arrive(build, coding, channels, data, size, sizes, buffered):
    """In pieces of any size, through a buffer (which has read1) or not: the samples and warnings of the whole."""
    file = build(data, size=size, channels=channels, **coding)
    pipe = Pipe(file, *sizes)
    expected = read_wav(io.BytesIO(file))
    found = read_wav(io.BufferedReader(pipe) if buffered else pipe)
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert (found.rate, found.warnings) == (expected.rate, expected.warnings)


# soundfile (libsndfile)


def soundfile_writes():
    """(format, subtype, byte order, channels) for all that libsndfile writes and that is supported."""
    plain = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"]
    adpcm = ["IMA_ADPCM", "MS_ADPCM"]
    for format, order in ("WAV", "LITTLE"), ("WAV", "BIG"), ("WAVEX", "LITTLE"), ("RF64", "LITTLE"), ("W64", "LITTLE"):
        for subtype in plain if format in ("WAVEX", "RF64") else plain + adpcm:
            for channels in (1, 2) if subtype in adpcm else (1, 2, 3, 6):
                yield format, subtype, order, channels


def assert_equals_soundfile(file):
    """Sample for sample; the mean of more than two channels to the last bit of float32."""
    soundfile = pytest.importorskip("soundfile")
    expected, expected_rate = soundfile.read(io.BytesIO(file), always_2d=True)
    result = read_wav(file)
    assert (result.rate, result.warnings) == (expected_rate, ())
    mean = expected.mean(axis=1).astype(np.float32)
    if expected.shape[1] > 2:
        np.testing.assert_allclose(result.samples, mean, atol=1e-7)
    else:
        np.testing.assert_array_equal(result.samples, mean)


@pytest.mark.reference
@pytest.mark.parametrize(("format", "subtype", "order", "channels"), list(soundfile_writes()))
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_equals_soundfile(format, subtype, order, channels, rate):
    soundfile = pytest.importorskip("soundfile")
    noise = np.random.default_rng(0).uniform(-1, 1, (5001, channels))
    noise[:2] = [[-1.0], [1.0]]
    noise[2000:] *= np.linspace(0, 1, 3001)[:, None] ** 4  # ADPCM steps from the smallest to the largest
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format=format, subtype=subtype, endian=order)
    assert_equals_soundfile(file.getvalue())


@pytest.mark.reference
@pytest.mark.parametrize(("tag", "head"), [(IMA_ADPCM, 4), (MS_ADPCM, 7)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("block_align", [32, 256, 2048])
def test_adpcm_of_any_bytes_equals_soundfile(tag, head, channels, block_align):
    """Every step, every code, values out of range, numbers that do not exist: what no encoder writes, too."""
    block_frames = 2 * (block_align - head * channels) // channels + (1 if tag == IMA_ADPCM else 2)
    coefficients = struct.pack("<H14h", 7, 256, 0, 512, -256, 0, 0, 192, 64, 240, 0, 460, -208, 392, -232)
    extra = struct.pack("<H", block_frames) + (coefficients if tag == MS_ADPCM else b"")
    format = {"tag": tag, "bits": 4, "channels": channels, "block_align": block_align}
    data = np.random.default_rng(0).bytes(100 * block_align)
    few_bits = (np.frombuffer(data, np.uint8) & 0x13).tobytes()  # small codes: small steps
    for content in (data, few_bits):
        assert_equals_soundfile(wav(content, extra=struct.pack("<H", len(extra)) + extra, **format))
