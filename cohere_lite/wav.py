"""WAV files -> mono float32 samples, in one pass: paths, bytes, pipes.

Recordings that were cut short, or whose header was never completed, give what is there. What is not a WAV file, or a
coding that is not in the table below, is an error that names what was found.
"""

from __future__ import annotations

import codecs
import io
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import AudioError

# Format tags: Microsoft's mmreg.h.
_PCM = 0x0001
_IEEE_FLOAT = 0x0003
_EXTENSIBLE = 0xFFFE  # the real tag is the first two bytes of the SubFormat GUID
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # the rest of it: KSDATAFORMAT_SUBTYPE_*, ksmedia.h
_TAG_NAMES = {
    _PCM: "PCM",
    _IEEE_FLOAT: "float",
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0040: "G.721 ADPCM",
    0x0045: "G.726 ADPCM",
    0x0050: "MPEG audio",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x0161: "Windows Media Audio",
    0xF1AC: "FLAC",
    _EXTENSIBLE: "EXTENSIBLE with an incomplete or foreign SubFormat",
}


def _int24(raw: bytes) -> NDArray[np.int32]:
    """Packed 3-byte integers, moved to the upper bytes of int32, which keeps the sign: value * 256."""
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return wide.view("<i4")[:, 0]


# (format tag, bytes per sample) -> bytes of whole samples to float64 (n,). Integers are scaled by the container's full
# scale, as libsndfile does: 16-bit by 2**15, and 20 bits kept in 24 by 2**23.
_DECODERS: dict[tuple[int, int], Callable[[bytes], NDArray[np.float64]]] = {
    (_PCM, 1): lambda raw: np.frombuffer(raw, np.uint8).astype(np.float64) / 2**7 - 1,  # unsigned, 128 is zero
    (_PCM, 2): lambda raw: np.frombuffer(raw, "<i2").astype(np.float64) / 2**15,
    (_PCM, 3): lambda raw: _int24(raw).astype(np.float64) / 2**31,
    (_PCM, 4): lambda raw: np.frombuffer(raw, "<i4").astype(np.float64) / 2**31,
    (_IEEE_FLOAT, 4): lambda raw: np.frombuffer(raw, "<f4").astype(np.float64),
    (_IEEE_FLOAT, 8): lambda raw: np.frombuffer(raw, "<f8").astype(np.float64),
}
_SUPPORTED = (
    "supported: WAV with PCM 8/16/24/32-bit or float 32/64-bit samples; "
    "to convert: ffmpeg -i in -ar 16000 -ac 1 out.wav"
)

# What people pass instead of WAV: (offset, bytes there, name).
_MAGICS = [
    (0, b"RF64", "an RF64 (64-bit WAV) file"),
    (0, b"BW64", "a BW64 (64-bit WAV) file"),
    (0, b"riff\x2e\x91\xcf\x11", "a Wave64 file"),
    (0, b"RIFX", "a big-endian WAV (RIFX) file"),
    (8, b"AVI ", "an AVI video"),
    (8, b"AIFF", "an AIFF file"),
    (8, b"AIFC", "an AIFF-C file"),
    (0, b"OggS", "an Ogg file (Vorbis, Opus)"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"ID3", "an MP3 file"),
    (4, b"ftyp", "an MP4 file (M4A, MOV)"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"\x30\x26\xb2\x75", "a Windows Media (ASF) file"),
    (0, b".snd", "an AU file"),
    (0, b"caff\0\1", "a Core Audio file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"version https://git-lfs", "a Git LFS pointer (the file itself was not downloaded: git lfs pull)"),
    (0, b"\xff\xfe", "a UTF-16 text file"),
]

_BLOCK_BYTES = 1 << 20  # read and converted at once; bounds the working memory
# Writers that cannot seek back put a placeholder into the data chunk: ffmpeg 0xFFFFFFFF, arecord about 0x80000000,
# sox 0x7FFFF000, recorders that were killed often 0. All mean "to the end of the file".
_PLACEHOLDER = 0x7FFF0000
# With a size of 0, one of these next says that the recording really is empty.
_TRAILING_CHUNKS = {b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"fact", b"smpl", b"PEAK", b"iXML", b"JUNK", b"PAD "}


@dataclass(frozen=True)
class Wav:
    """A decoded recording.

    samples:  float32 (n,), mono (the mean of the channels); integer codings give -1..1, float ones what they hold
    rate:     Hz
    warnings: what was wrong with the file and did not keep it from being read; empty for a sound file
    """

    samples: NDArray[np.float32]
    rate: int
    warnings: tuple[str, ...]


class _Format(NamedTuple):
    """The parts of the fmt chunk that decide. block_align and bytes_per_second follow from them where they are right,
    and are ignored where they are not: libsndfile does the same."""

    format_tag: int
    channels: int
    rate: int
    bits_per_sample: int

    @property
    def sample_bytes(self) -> int:
        return (self.bits_per_sample + 7) // 8

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.sample_bytes


def read_wav(source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO) -> Wav:
    """Reads a WAV file: a path, the file's bytes, or an open binary file, which may be a pipe.

    A recording of 0 samples is returned as such. Working memory beyond the samples is a few times 1 MiB, whatever the
    header promises.

    Raises AudioError when the source is not WAV, is in a coding that is not supported, has no usable header, or holds
    NaN or infinity; OSError (FileNotFoundError, ...) when it cannot be opened or read.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return _read_wav(file, os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read_wav(io.BytesIO(source), "audio bytes")
    if hasattr(source, "read"):
        name = getattr(source, "name", None)  # of a pipe: a number
        return _read_wav(source, name if isinstance(name, str) else "audio stream")
    raise TypeError(f"expected a path, bytes or a binary file, not {type(source).__name__}")


def _read_wav(file: BinaryIO, name: str) -> Wav:
    start = _read(file, 12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise AudioError(f"{name}: {_identify(start + _read(file, 52))}; {_SUPPORTED}")
    fmt, size = _find_data(file, name)
    samples, held = _decode(file, fmt, size, name)

    warnings = []
    if held < size < _PLACEHOLDER:
        bytes_per_second = fmt.frame_bytes * fmt.rate
        warnings.append(
            f"data chunk promises {size} bytes ({size / bytes_per_second:.2f} s), the file holds {held} "
            f"({held / bytes_per_second:.2f} s): the recording was cut short; using what is there"
        )
    elif extra := held % fmt.frame_bytes:
        warnings.append(f"the last frame has {extra} of its {fmt.frame_bytes} bytes: left out")
    return Wav(samples, fmt.rate, tuple(warnings))


def _read(file: BinaryIO, count: int) -> bytes:
    """count bytes, fewer only at the end of the file (a pipe may deliver less per call)."""
    parts = []
    while count > 0 and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _find_data(file: BinaryIO, name: str) -> tuple[_Format, int]:
    """Reads on to the first byte of the samples; gives the fmt and the data chunk's size as written."""
    fmt = None
    pad = b""
    while True:
        header = pad + _read(file, 8 - len(pad))
        if len(header) < 8:
            raise AudioError(f"{name}: a WAV file that ends within its header: there is no data chunk")
        chunk_id, size = struct.unpack("<4sI", header)
        if chunk_id == b"data":
            if fmt is None:
                raise AudioError(f"{name}: a WAV file without a fmt chunk before its data chunk: a damaged header")
            return fmt, size
        body = _read(file, min(size, 40))
        if chunk_id == b"fmt ":
            fmt = _parse_format(body, name)
        left = size - len(body)
        while left > 0 and (skipped := len(_read(file, min(left, _BLOCK_BYTES)))):
            left -= skipped
        # Chunks of odd size are followed by a zero byte, which some writers forget; no chunk id begins with one.
        pad = _read(file, size % 2).strip(b"\0")


def _parse_format(body: bytes, name: str) -> _Format:
    """body: the fmt chunk's first 40 bytes, or all of it when it is shorter."""
    if len(body) < 16:
        raise AudioError(f"{name}: a WAV file with a fmt chunk of {len(body)} bytes instead of 16 or more")
    format_tag, channels, rate, _, _, bits_per_sample = struct.unpack("<HHIIHH", body[:16])
    if format_tag == _EXTENSIBLE and body[26:40] == _GUID_TAIL:
        (format_tag,) = struct.unpack("<H", body[24:26])
    fmt = _Format(format_tag, channels, rate, bits_per_sample)
    if (format_tag, fmt.sample_bytes) not in _DECODERS:
        coding = _TAG_NAMES.get(format_tag, "unknown coding")
        found = f"WAV with format tag 0x{format_tag:04X} ({coding}), {bits_per_sample} bits per sample"
        raise AudioError(f"{name}: {found}; {_SUPPORTED}")
    if channels == 0 or rate == 0:
        raise AudioError(f"{name}: a WAV file whose fmt chunk says {channels} channels at {rate} Hz: a damaged header")
    return fmt


def _decode(file: BinaryIO, fmt: _Format, size: int, name: str) -> tuple[NDArray[np.float32], int]:
    """The data chunk -> float32 (n,) of its whole frames, and how many bytes there were."""
    decode = _DECODERS[fmt.format_tag, fmt.sample_bytes]
    weights = np.full(fmt.channels, 1 / fmt.channels)
    block_bytes = max(1, _BLOCK_BYTES // fmt.frame_bytes) * fmt.frame_bytes
    left = size if 0 < size < _PLACEHOLDER else sys.maxsize
    mono = bytearray()  # grows in place, by an eighth at a time: no second copy of the samples at the end
    held = 0
    while left > 0 and (block := _read(file, min(left, block_bytes))):
        if size == 0 and held == 0 and block[:4] in _TRAILING_CHUNKS:
            break
        whole = len(block) - len(block) % fmt.frame_bytes
        # float64, so that the sum of the channels neither overflows nor rounds
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            frames = decode(block[:whole]).reshape(-1, fmt.channels)
            samples = (frames @ weights).astype(np.float32) if fmt.channels > 1 else frames[:, 0].astype(np.float32)
        finite = np.isfinite(samples)
        if not finite.all():
            second = (held // fmt.frame_bytes + int(np.argmin(finite))) / fmt.rate
            raise AudioError(f"{name}: NaN, infinity or a number beyond float32 at {second:.3f} s")
        mono += samples.tobytes()
        held += len(block)
        left -= len(block)
    return np.frombuffer(mono, np.float32), held


def _identify(start: bytes) -> str:
    """What a file that is no WAV file is, by its first bytes (up to 64)."""
    if not start:
        return "empty (0 bytes)"
    if start[:4] == b"RIFF" and len(start) < 12:
        return f"a WAV file that ends after {len(start)} bytes"
    for offset, magic, kind in _MAGICS:
        if start[offset:].startswith(magic):
            return kind
    if start[0] == 0xFF and start[1:2] >= b"\xe0":  # eleven set bits: an MPEG audio frame
        return "an MP3 or AAC file"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)  # lets the last character be incomplete
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character.isspace() for character in text):
        kind = "an HTML page" if text.lstrip().lower().startswith(("<!doctype html", "<html")) else "a text file"
        return f"{kind}, beginning {text[:30]!r}"
    return f"not a WAV file (first bytes: {start[:12].hex(' ')})"
