"""WAV files -> blocks of frames, in one pass: files and pipes of any length.

Recordings that were cut short, or whose header was never completed, give what is there. What is not a WAV file, or a
coding that is not supported, is an error that names what was found.
"""

from __future__ import annotations

import codecs
import select
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .codings import EXTENSIBLE, SUPPORTED, TAG_NAMES, Coding, find_coding
from .errors import AudioError

# The fields of an EXTENSIBLE file's SubFormat GUID after the first, which is the real format tag:
_GUID_TAIL = (0x0000, 0x0010, b"\x80\0\0\xaa\0\x38\x9b\x71")  # KSDATAFORMAT_SUBTYPE_*, ksmedia.h
_SUPPORTED_WAV = f"supported: WAV with {SUPPORTED}"


class _Container(NamedTuple):
    """How a kind of WAV file frames its chunks: header, body, zeros up to the alignment."""

    byte_order: str  # of all numbers, samples included: < or >
    header: struct.Struct  # id, size; the id's first four bytes tell the chunks apart in all containers
    counted: int  # bytes of the header that the size includes
    align: int  # bytes
    start: int  # bytes of the file before the first chunk: a chunk header and the form type
    unknown: tuple[range, ...]  # sizes that mean "to the end of the file"


# Writers that cannot seek back put a placeholder into the data chunk's size: ffmpeg 0xFFFFFFFF (Wave64: 2**63 - 1),
# arecord about 0x80000000, sox 0x7FFFF000, recorders that were killed often 0.
_NO_FILE_IS_LONGER = 1 << 62
_UNKNOWN_32_BIT = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 1 << 32))  # near them: less a header's length
_RIFF = _Container("<", struct.Struct("<4sI"), 0, 2, 12, _UNKNOWN_32_BIT)
_CONTAINERS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,  # EBU Tech 3306; the size is in the ds64 chunk
    b"BW64": _RIFF,  # ITU-R BS.2088; likewise
    b"RIFX": _RIFF._replace(byte_order=">", header=struct.Struct(">4sI")),
    b"riff": _Container("<", struct.Struct("<4s12xQ"), 24, 8, 40, ()),  # Sony Wave64: GUIDs as ids
}

# What people pass instead of WAV: (offset, bytes there, name).
_AUDIO_MAGICS = [
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
    (0, b"NIST_1A\n", "a NIST SPHERE file"),
]
_OTHER_MAGICS = [
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"version https://git-lfs", "a Git LFS pointer (the file itself was not downloaded: git lfs pull)"),
    (b"\xff\xfe", "a UTF-16 text file"),
]

_READ_BYTES = 1 << 18  # read and converted at once; bounds the working memory
_MOST_ZEROS = 1 << 16  # bytes between chunks; 200 MB of them, reserved and never written, took 22 s to go through
# With a size of 0, one of these next says that the recording really is empty.
_TRAILING_CHUNKS = {
    *(b"LIST", b"ID3 ", b"BEXT", b"CUE ", b"FACT", b"SMPL", b"PEAK", b"IXML", b"JUNK", b"PAD "),
    *(b"ACID", b"AXML", b"CHNA", b"DISP", b"INST", b"_PMX"),
}


@dataclass(frozen=True)
class Audio:
    """An open recording.

    name:     for messages
    rate:     Hz
    channels: 1 or more
    duration: seconds; None where only reading to the end will tell (nothing there yet counts as that)
    blocks:   float (n, channels) each, any n >= 0; to be gone through once. Integer codings give -1..1, float ones
              what they hold, which may be NaN
    live:     the blocks may come only as they are spoken
    warnings: what was wrong and did not keep the recording from being read; complete when blocks has ended
    """

    name: str
    rate: int
    channels: int
    duration: float | None
    blocks: Iterator[NDArray[np.float64]]
    live: bool = False
    warnings: list[str] = field(default_factory=list)


class NotWav(AudioError):
    """What was read is not a WAV file of ours, but may be audio that a converter knows."""


class _Format(NamedTuple):
    """What is used of the fmt chunk."""

    coding: Coding
    channels: int
    rate: int


def open_wav(file: BinaryIO, name: str) -> Audio:
    """Reads the header of a WAV file; the samples follow as `blocks` are asked for, each as soon as it is there.

    file: binary, may be a pipe;  name: for messages. Memory: some 12 MiB, whatever the header promises.

    Raises AudioError when there is no usable header, and the NotWav kind of it when it is another format or a coding
    that is not supported; while reading blocks, OSError.
    """
    start = _read_exactly(file, 12)
    container = _CONTAINERS.get(start[:4])
    if container:
        start += _read_exactly(file, container.start - len(start))
    if container is None or start[container.header.size :][:4].upper() != b"WAVE":
        raise _not_wav(start + _read_exactly(file, 64 - len(start)), name)
    fmt, size = _find_data(file, container, name)
    return _open_data(file, name, fmt, size, header=True)


def open_pcm(file: BinaryIO, name: str, coding: Coding, channels: int, rate: int) -> Audio:
    """Samples without a header, to the end of the file."""
    return _open_data(file, name, _Format(coding, channels, rate), 0, header=False)


def _open_data(file: BinaryIO, name: str, fmt: _Format, size: int, header: bool) -> Audio:
    there = _bytes_left(file)
    expected = min(size or _NO_FILE_IS_LONGER, _NO_FILE_IS_LONGER if there is None else there)
    seconds_per_byte = fmt.coding.block_frames / fmt.coding.block_bytes / fmt.rate
    duration = expected * seconds_per_byte if 0 < expected < _NO_FILE_IS_LONGER else None  # 0: also of a device
    warnings: list[str] = []
    blocks = _decode(file, fmt, size, warnings, header)
    return Audio(name, fmt.rate, fmt.channels, duration, blocks, not there, warnings)


def _bytes_left(file: BinaryIO) -> int | None:
    """How many bytes follow; None for a pipe."""
    try:
        here = file.tell()
        end = file.seek(0, 2)
        file.seek(here)
    except (OSError, AttributeError):
        return None
    return end - here


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    """count bytes, fewer only at the end of the file (a pipe may deliver less per call)."""
    parts = []
    while count > 0 and (part := _waited_for(file, file.read, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _waited_for(file: BinaryIO, read: Callable[[int], bytes | None], count: int) -> bytes:
    """What it reads, also from an unbuffered pipe that does not block: that nothing is there yet (None) is not its end
    (b"")."""
    while (part := read(count)) is None:
        select.select([file], [], [])
    return part


def _find_data(file: BinaryIO, container: _Container, name: str) -> tuple[_Format, int]:
    """Reads on to the first byte of the samples; gives the fmt and the data chunk's size, 0 when that is not known."""
    fmt = None
    ds64_size = n_zeros = 0
    pad = b""
    while True:
        header = pad + _read_exactly(file, container.header.size - len(pad))
        if len(header) < container.header.size:
            raise AudioError(f"{name}: a WAV file that ends within its header: there is no data chunk")
        chunk_id, size = container.header.unpack(header)
        n_zeros = n_zeros + len(header) if header.strip(b"\0") == b"" else 0
        if n_zeros > _MOST_ZEROS:
            raise AudioError(f"{name}: a WAV file with zeros instead of a data chunk: it was never written")
        size = max(0, size - container.counted)
        if chunk_id == b"data":
            if fmt is None:
                raise AudioError(f"{name}: a WAV file without a fmt chunk before its data chunk: a damaged header")
            size = ds64_size if any(size in sizes for sizes in container.unknown) else size
            return fmt, size if size < _NO_FILE_IS_LONGER else 0
        body = _read_exactly(file, min(size, 40))
        if chunk_id == b"fmt ":
            fmt = _parse_format(body, container.byte_order, name)
        elif chunk_id == b"ds64" and len(body) >= 16:
            (ds64_size,) = struct.unpack_from("<Q", body, 8)
        left = size - len(body)
        while left > 0 and (skipped := len(_read_exactly(file, min(left, _READ_BYTES)))):
            left -= skipped
        # Some writers forget the zeros after a chunk; no chunk id begins with one.
        pad = _read_exactly(file, -size % container.align).lstrip(b"\0")


def _parse_format(body: bytes, byte_order: str, name: str) -> _Format:
    """body: the fmt chunk's first 40 bytes, or all of it when it is shorter."""
    if len(body) < 16:
        raise AudioError(f"{name}: a WAV file with a fmt chunk of {len(body)} bytes instead of 16 or more")
    format_tag, channels, rate, _, block_align, bits = struct.unpack_from(byte_order + "HHIIHH", body)
    if format_tag == EXTENSIBLE and len(body) >= 40:
        sub_format, *tail = struct.unpack_from(byte_order + "IHH8s", body, 24)
        if tuple(tail) == _GUID_TAIL:
            format_tag = sub_format
    if channels == 0 or rate == 0:
        raise AudioError(f"{name}: a WAV file whose fmt chunk says {channels} channels at {rate} Hz: a damaged header")
    coding = find_coding(format_tag, bits, channels, block_align, byte_order)
    if coding is None:
        found = f"WAV with format tag 0x{format_tag:04X} ({TAG_NAMES.get(format_tag, 'unknown coding')})"
        found += f", {bits} bits per sample, {channels} channels, blocks of {block_align} bytes"
        raise NotWav(f"{name}: {found}; {_SUPPORTED_WAV}")
    return _Format(coding, channels, rate)


def _decode(
    file: BinaryIO, fmt: _Format, size: int, warnings: list[str], header: bool
) -> Iterator[NDArray[np.float64]]:
    """The data chunk's whole frames, float64 (n, channels); size: its bytes, 0 for all that come.

    Of an ADPCM file's last block, what the writer filled it up with counts too, as in libsndfile: the fact chunk, which
    should tell, often does not (libsndfile's own says half the frames for stereo IMA ADPCM).
    """
    block_bytes, block_frames, decode = fmt.coding
    decode = np.errstate(invalid="ignore")(decode)  # a signalling NaN is one like the others
    read_bytes = max(1, _READ_BYTES // block_bytes) * block_bytes
    # Of a live recording, what is there; not a full buffer, which may be seconds away.
    read_some = getattr(file, "read1", file.read)
    held = 0
    pending = b""
    if size == 0 and header:
        pending = _read_exactly(file, 4)
        held = len(pending)
        if pending.upper() in _TRAILING_CHUNKS:
            return
    left = (size or _NO_FILE_IS_LONGER) - held
    while left > 0 and (raw := _waited_for(file, read_some, min(left, read_bytes))):
        held += len(raw)
        left -= len(raw)
        pending += raw
        whole = len(pending) - len(pending) % block_bytes
        if whole:
            yield decode(pending[:whole])
            pending = pending[whole:]
    if pending:
        yield decode(pending)  # an ADPCM block that was cut short, or the whole of a very short file

    if held < size:
        bytes_per_second = block_bytes * fmt.rate / block_frames
        warnings.append(
            f"data chunk promises {size} bytes ({size / bytes_per_second:.2f} s), the file holds {held} "
            f"({held / bytes_per_second:.2f} s): the recording was cut short; using what is there"
        )
    elif extra := len(pending) % block_bytes:
        unit = "frame" if block_frames == 1 else "block"
        warnings.append(f"the last {unit} has {extra} of its {block_bytes} bytes: using the whole samples")
    if size and _bytes_left(file):
        following = _read_exactly(file, 12)
        file.seek(-len(following), 1)
        if following.lstrip(b"\0")[:4] in (b"data", *_CONTAINERS):
            warnings.append("another recording follows in the same file: only the first is used")


def _not_wav(start: bytes, name: str) -> AudioError:
    """The error for a file that is no WAV file, by its first bytes (up to 64)."""
    kind, audible = _identify(start)
    return NotWav(f"{name}: {kind}") if audible else AudioError(f"{name}: {kind}; {_SUPPORTED_WAV}")


def _identify(start: bytes) -> tuple[str, bool]:
    """What it is, and whether it may be audio."""
    if not start:
        return "empty (0 bytes)", False
    if start[:4] in _CONTAINERS and len(start) < _CONTAINERS[start[:4]].start:
        return f"a WAV file that ends after {len(start)} bytes", False
    for offset, magic, kind in _AUDIO_MAGICS:
        if start[offset:].startswith(magic):
            return kind, True
    for magic, kind in _OTHER_MAGICS:
        if start.startswith(magic):
            return kind, False
    if start[0] == 0xFF and start[1:2] >= b"\xe0":  # eleven set bits: an MPEG audio frame
        return "an MP3 or AAC file", True
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)  # lets the last character be incomplete
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character.isspace() for character in text):
        kind = "an HTML page" if text.lstrip().lower().startswith(("<!doctype html", "<html")) else "a text file"
        return f"{kind}, beginning {text[:30]!r}", False
    return f"not a WAV file (first bytes: {start[:12].hex(' ')})", True
