"""WAV files -> blocks of frames, in one pass: files and pipes of any length.

A recording that was cut short, or whose header was never completed, gives the samples that it has.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .codings import EXTENSIBLE, Coding, find_coding
from .errors import AudioError, NotWav

# The fields of an EXTENSIBLE file's SubFormat GUID after the first, which is the real format tag:
_GUID_TAIL = (0x0000, 0x0010, b"\x80\0\0\xaa\0\x38\x9b\x71")  # KSDATAFORMAT_SUBTYPE_*, ksmedia.h


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

_READ_BYTES = 1 << 18  # read and converted at once; bounds the working memory
_HEAD_BYTES = 1 << 17  # of the samples are looked at: two bursts of the longest kind (extras/payload.py)
_POLL_S = 0.05  # until a file that does not block is read again
_MOST_ZEROS = 1 << 16  # bytes between chunks; 200 MB of them, reserved and never written, took 22 s to go through
# With a size of 0, one of these next says that the recording really is empty.
_TRAILING_CHUNKS = b"LIST ID3 BEXT CUE FACT SMPL PEAK IXML JUNK PAD ACID AXML CHNA DISP INST _PMX".split()


@dataclass(frozen=True)
class Audio:
    """An open recording.

    rate:     Hz
    duration: seconds; None where only reading to the end will tell (nothing there yet counts as that)
    blocks:   float (n, channels) each, any n >= 0; to be gone through once. Integer codings give -1..1, float ones
              what they hold, which may be NaN
    live:     the blocks may come only as they are spoken
    name:     for messages
    missing:  a warning for whatever is known to be lacking, such as the end of a recording that was cut short
    warnings: what else was wrong and did not keep the recording from being read
    Both are complete when blocks has ended.
    """

    rate: int
    duration: float | None
    blocks: Generator[NDArray[np.float64], None, None]
    live: bool = False
    name: str = "the audio"
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def open_wav(file: BinaryIO) -> Audio:
    """Reads the header of a WAV file, which may be a pipe; the samples follow as `blocks` are asked for, each as soon
    as it is there. Memory: some 12 MiB, whatever the header promises. Raises AudioError when there is no usable header,
    NotWav for another format or a coding that is not supported; while reading blocks, OSError."""
    start = _read_exactly(file, 12)
    container = _CONTAINERS.get(start[:4])
    if container:
        start += _read_exactly(file, container.start - len(start))
        if len(start) < container.start:
            raise AudioError(f"a WAV file that ends after {len(start)} bytes")
    if not start:
        raise AudioError("empty (0 bytes)")
    if container is None or start[container.header.size :][:4].upper() != b"WAVE":
        start += _read_exactly(file, 64 - len(start))
        raise NotWav(f"not a WAV file (first bytes: {start[:12].hex(' ')})", start)
    return open_pcm(file, *_find_data(file, container))


def open_pcm(file: BinaryIO, coding: Coding, rate: int, size: int | None = None) -> Audio:
    """The samples from here on. size: bytes that a header promises, 0 where it does not know; None: there is no header,
    and all that follows are samples."""
    n_left = _bytes_left(file)
    expected = min(size or _NO_FILE_IS_LONGER, _NO_FILE_IS_LONGER if n_left is None else n_left)
    bytes_per_second = coding.block_bytes * rate / coding.block_frames
    duration = expected / bytes_per_second if 0 < expected < _NO_FILE_IS_LONGER else None  # a device has 0 bytes, too
    missing: list[str] = []
    head = b""
    if n_left and size is not None:  # of a pipe, when it comes
        head = _read_exactly(file, min(size or n_left, _HEAD_BYTES))
        _refuse_payload(head, coding, file)
    blocks = _decode(file, coding, bytes_per_second, size, missing, head)
    return Audio(rate, duration, blocks, live=not n_left, missing=missing)


def _bytes_left(file: BinaryIO) -> int | None:
    """How many bytes follow; None for a pipe."""
    try:
        here = file.tell()
        end = file.seek(0, 2)
        file.seek(here)
    except (OSError, AttributeError):
        return None
    return end - here


def _refuse_payload(head: bytes, coding: Coding, file: BinaryIO | None = None) -> None:
    """Raises NotWav if the first bytes of the samples are compressed sound under a PCM header."""
    try:
        from .extras.payload import refuse_payload
    except ImportError:  # in a copy without it
        return
    refuse_payload(head, coding, file)


def read_some(file: BinaryIO, count: int) -> bytes:
    """1 to count bytes, as soon as there are any; b"" at the end only. Does not wait for a full buffer: of a live
    recording it may be seconds away."""
    if part := getattr(file, "read1", file.read)(count):
        return part
    # The end; or nothing yet, of a file that does not block. read1 of a buffered one gives b"" for both, read does not.
    while (part := file.read(1)) is None:
        try:
            # Not select: it takes no descriptor from 1024 on, and on Windows, where there is no poll, sockets only.
            poll = select.poll()
            poll.register(file.fileno(), select.POLLIN)
            poll.poll(_POLL_S * 1000)
        except (AttributeError, OSError):  # no poll, or no descriptor
            time.sleep(_POLL_S)
    return part


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    """count bytes, fewer only at the end of the file."""
    parts = []
    while count > 0 and (part := read_some(file, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _find_data(file: BinaryIO, container: _Container) -> tuple[Coding, int, int]:
    """Reads on to the first sample; returns coding, rate, and the data chunk's bytes, 0 where not known."""
    fmt = None
    ds64_size = n_zeros = 0
    pad = b""
    while True:
        header = pad + _read_exactly(file, container.header.size - len(pad))
        if len(header) < container.header.size:
            raise AudioError("a WAV file that ends within its header: there is no data chunk")
        chunk_id, size = container.header.unpack(header)
        n_zeros = 0 if any(header) else n_zeros + len(header)
        if n_zeros > _MOST_ZEROS:
            raise AudioError("a WAV file with zeros instead of a data chunk: it was never written")
        size = max(0, size - container.counted)
        if chunk_id == b"data":
            if fmt is None:
                raise AudioError("a WAV file without a fmt chunk before its data chunk: a damaged header")
            size = ds64_size if any(size in sizes for sizes in container.unknown) else size
            return *fmt, size if size < _NO_FILE_IS_LONGER else 0
        body = _read_exactly(file, min(size, 40))
        if chunk_id == b"fmt ":
            fmt = _parse_format(body, container.byte_order)
        elif chunk_id == b"ds64" and len(body) >= 16:
            (ds64_size,) = struct.unpack_from("<Q", body, 8)
        left = size - len(body)
        while skipped := len(_read_exactly(file, min(left, _READ_BYTES))):
            left -= skipped
        # Some writers forget the zeros after a chunk; no chunk id begins with one.
        pad = _read_exactly(file, -size % container.align).lstrip(b"\0")


def _parse_format(body: bytes, byte_order: str) -> tuple[Coding, int]:
    """The fmt chunk's first 40 bytes, or all of it when it is shorter -> coding, rate."""
    if len(body) < 16:
        raise AudioError(f"a WAV file with a fmt chunk of {len(body)} bytes instead of 16 or more")
    format_tag, channels, rate, _, block_align, bits = struct.unpack_from(byte_order + "HHIIHH", body)
    if format_tag == EXTENSIBLE and len(body) >= 40:
        sub_format, *tail = struct.unpack_from(byte_order + "IHH8s", body, 24)
        if tuple(tail) == _GUID_TAIL:
            format_tag = sub_format
    if channels == 0 or rate == 0:
        raise AudioError(f"a WAV file whose fmt chunk says {channels} channels at {rate} Hz: a damaged header")
    return find_coding(format_tag, bits, channels, block_align, byte_order), rate


def _decode(
    file: BinaryIO, coding: Coding, bytes_per_second: float, size: int | None, missing: list[str], head: bytes
) -> Generator[NDArray[np.float64], None, None]:
    """The data chunk's whole frames, float64 (n, channels); size: as in open_pcm; head: what was read of it already.

    Samples that only fill up an ADPCM file's last block are given, too, as by libsndfile: the fact chunk, which should
    count the others, is often wrong (libsndfile itself writes half the frames for stereo IMA ADPCM).
    """
    block_bytes, block_frames, decode = coding
    decode = np.errstate(invalid="ignore")(decode)  # that a NaN is a signalling one does not matter
    read_bytes = max(1, _READ_BYTES // block_bytes) * block_bytes
    pending = head or (_read_exactly(file, 4) if size == 0 else b"")
    if size == 0 and pending[:4].upper().rstrip(b" ") in _TRAILING_CHUNKS:
        return
    n_read = len(pending)
    end = size or _NO_FILE_IS_LONGER
    while n_read < end and (raw := read_some(file, min(end - n_read, read_bytes))):
        n_read += len(raw)
        pending += raw
        if size is not None and len(head) < _HEAD_BYTES:
            head += raw
            _refuse_payload(head, coding)
        whole = len(pending) - len(pending) % block_bytes
        yield decode(pending[:whole])
        pending = pending[whole:]
    if pending:
        yield decode(pending)  # an ADPCM block that was cut short, or the whole of a very short file

    if size and n_read < size:
        missing.append(
            f"data chunk promises {size} bytes ({size / bytes_per_second:.2f} s), the file holds {n_read} "
            f"({n_read / bytes_per_second:.2f} s): the recording was cut short; using what is there"
        )
    elif extra := len(pending) % block_bytes:
        unit = "frame" if block_frames == 1 else "block"
        missing.append(f"the last {unit} has {extra} of its {block_bytes} bytes: using the whole samples")
    if size and _bytes_left(file):
        following = _read_exactly(file, 12)
        file.seek(-len(following), 1)
        if following.lstrip(b"\0")[:4] in (b"data", *_CONTAINERS):
            missing.append("another recording follows in the same file: only the first is used")
