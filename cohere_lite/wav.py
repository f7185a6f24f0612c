"""WAV files -> blocks of frames, in one pass: files and pipes of any length.

A recording that was cut short, or whose header was never completed, gives the samples that it has.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .codings import EXTENSIBLE, Coding, find_coding
from .errors import AudioError, NotWav
from .reader import Reader, bytes_left

# The fields of an EXTENSIBLE file's SubFormat GUID after the first, which is the real format tag:
_GUID_TAIL = (0x0000, 0x0010, b"\x80\0\0\xaa\0\x38\x9b\x71")  # KSDATAFORMAT_SUBTYPE_*, ksmedia.h


class Container(NamedTuple):
    """How a kind of WAV file frames its chunks: header, body, zeros up to a multiple of 2 or 8 bytes."""

    byte_order: str  # of all numbers, samples included: < or >
    header: struct.Struct  # id, size; the id's first four bytes tell the chunks apart in all containers
    counted: int  # bytes of the header that the size includes
    start: int  # bytes of the file before the first chunk: a chunk header and the form type
    unknown: tuple[range, ...]  # sizes that mean "to the end of the file"


# Writers that cannot seek back put a placeholder into the data chunk's size: ffmpeg 0xFFFFFFFF (Wave64: 2**63 - 1),
# arecord about 0x80000000, sox 0x7FFFF000, recorders that were killed often 0.
NO_FILE_IS_LONGER = 1 << 62
_UNKNOWN_32_BIT = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 1 << 32))  # near them: less a header's length
_RIFF = Container("<", struct.Struct("<4sI"), 0, 12, _UNKNOWN_32_BIT)
CONTAINERS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,  # EBU Tech 3306; the size is in the ds64 chunk
    b"BW64": _RIFF,  # ITU-R BS.2088; likewise
    b"RIFX": _RIFF._replace(byte_order=">", header=struct.Struct(">4sI")),
    b"riff": Container("<", struct.Struct("<4s12xQ"), 24, 40, ()),  # Sony Wave64: GUIDs as ids
}

READ_BYTES = 1 << 18  # read and converted at once; bounds the working memory
_MOST_ZEROS = 1 << 16  # bytes between chunks before the first sample
# With a size of 0, one of these next says that the recording really is empty.
TRAILING_CHUNKS = b"LIST ID3 BEXT CUE FACT SMPL PEAK IXML JUNK PAD ACID AXML CHNA DISP INST _PMX APET".split()
_CHUNKS = (b"DATA", b"FMT", *TRAILING_CHUNKS)


class Data(NamedTuple):
    """A data chunk. size: bytes that its header promises, 0 where that does not know; None: there is no header, and all
    that follows are samples."""

    container: Container
    coding: Coding
    rate: int
    size: int | None


ReadParts = Callable[[Reader, Data], Iterator[bytes | None]]
PassOver = Callable[[Reader, int], None]


@dataclass(frozen=True)
class Audio:
    """An open recording.

    rate:     Hz
    duration: seconds; None where only reading to the end will tell (nothing there yet counts as that)
    blocks:   float (n, channels) each, any n >= 0; to be gone through once. Integer codings give -1..1, float ones
              what they hold, which may be NaN
    live:     the blocks may come only as they are spoken; an empty one says that nothing has come for a while
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
    reader = Reader(file)
    container, start = _read_start(reader)
    if not start:
        raise AudioError("empty (0 bytes)")
    if not container:
        if start[:4] in CONTAINERS and len(start) < CONTAINERS[start[:4]].start:
            raise AudioError(f"a WAV file that ends after {len(start)} bytes")
        start += reader.exactly(64 - len(start))
        raise NotWav(f"not a WAV file (first bytes: {start[:12].hex(' ')})", start)
    if not (data := find_data(reader, container)):
        raise AudioError("a WAV file with no data chunk: it was cut short, or never written")
    return _open(reader, data)


def open_pcm(file: BinaryIO, coding: Coding, rate: int) -> Audio:
    """Samples without a header, from here to the end."""
    return _open(Reader(file), Data(_RIFF, coding, rate, None))


def _open(reader: Reader, data: Data) -> Audio:
    n_left = bytes_left(reader.file)  # nothing is put back yet
    expected = min(data.size or NO_FILE_IS_LONGER, NO_FILE_IS_LONGER if n_left is None else n_left)
    seconds = expected / (data.coding.block_bytes * data.rate / data.coding.block_frames)
    duration = seconds if 0 < expected < NO_FILE_IS_LONGER else None  # a device has 0 bytes, too
    missing: list[str] = []
    if n_left and data.size is not None:  # of a pipe, when it comes
        try:
            from .extras.payload import PAYLOAD_BYTES, refuse_payload
        except ImportError:
            pass  # compressed sound under a PCM header is then noise
        else:
            refuse_payload(reader.peek(min(data.size or n_left, PAYLOAD_BYTES)), data.coding, reader.file)
    return Audio(data.rate, duration, _frames(reader, data, missing), live=not n_left, missing=missing)


def _read_start(reader: Reader) -> tuple[Container | None, bytes]:
    """The container that begins with the next bytes, if one does; all that was read of it."""
    start = reader.exactly(12)
    if container := CONTAINERS.get(start[:4]):
        start += reader.exactly(container.start - len(start))
        if start[container.header.size :][:4].upper() == b"WAVE":
            return container, start
    return None, start


def _pass_over(reader: Reader, count: int) -> None:
    while count > 0 and (part := reader.exactly(min(count, READ_BYTES))):
        count -= len(part)


def find_data(
    reader: Reader, container: Container, before: Data | None = None, pass_over: PassOver = _pass_over
) -> Data | None:
    """Reads on to the next data chunk, up to its first sample; None where there is no more. before: the data chunk that
    was read before, of the same recording or of one that this one follows; it is given back where a chunk was passed
    over, after which nothing may come for a while. Raises AudioError for a damaged header."""
    coding, rate = before[1:3] if before else (None, 0)
    ds64_size = 0
    while _skip_zeros(reader, before is None):
        if reader.peek(5)[1:].upper().rstrip(b" ") in _CHUNKS:
            reader.exactly(1)  # what fills up an odd chunk, and should be zero
        header = reader.peek(container.header.size)
        if len(header) < container.header.size:
            return None
        if before and header[:4] in (*CONTAINERS, b"fLaC", b"OggS"):
            found, _ = _read_start(reader)
            if not found:
                raise AudioError("it is no WAV file")
            container, coding, ds64_size = found, None, 0
            continue
        chunk_id, size = container.header.unpack(header)
        size = max(0, size - container.counted)
        if chunk_id == b"data":
            if coding is None:
                raise AudioError("a WAV file without a fmt chunk before its data chunk: a damaged header")
            reader.exactly(len(header))
            size = ds64_size if any(size in sizes for sizes in container.unknown) else size
            return Data(container, coding, rate, size if size < NO_FILE_IS_LONGER else 0)
        body = reader.peek(len(header) + min(size, 40))[len(header) :]
        if chunk_id == b"fmt ":
            coding, rate = _parse_format(body, container.byte_order)
        elif chunk_id == b"ds64" and len(body) >= 16:
            (ds64_size,) = struct.unpack_from("<Q", body, 8)
        pass_over(reader, len(header) + size)
        if before and coding is before.coding:
            return before
    return None


def _skip_zeros(reader: Reader, is_start: bool) -> bool:
    """Up to the next byte that is not zero, if there is one: some writers leave out the zeros that fill up a chunk,
    others write more of them. Before the first sample not so many: of a device there may be no end of them."""
    n_at_once, n_left = (4, _MOST_ZEROS) if is_start else (READ_BYTES, NO_FILE_IS_LONGER)
    while n_left >= 0 and (part := reader.some(n_at_once)) != b"":
        n_left -= len(part or b"")
        if rest := (part or b"").lstrip(b"\0"):
            reader.put_back(rest)
            return True
    return False


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


def _frames(reader: Reader, data: Data, missing: list[str]) -> Generator[NDArray[np.float64], None, None]:
    """The frames of a data chunk, float64 (n, channels), and of what follows it."""
    if data.size is not None:
        try:
            from .extras.chained import chained
        except ImportError:
            pass  # what follows is then told, and not read
        else:
            yield from chained(reader, data, missing)
            return
    yield from decode_data(reader, data, missing)
    if data.size and not reader.is_socket:  # whoever sent it may wait for an answer
        follows: object = data
        try:
            while follows is data:
                follows = find_data(reader, data.container, data)
        except AudioError as error:
            follows = error
        if follows:
            needed = "cohere_lite/extras/chained.py, which is not in this copy"
            missing.append(f"another recording follows, which is left out: it needs {needed}")


def read_parts(reader: Reader, data: Data) -> Iterator[bytes | None]:
    """The bytes of a data chunk, as they come; None for a pause that passes by the clock."""
    n_left = data.size or NO_FILE_IS_LONGER
    while n_left > 0 and (part := reader.some(min(n_left, READ_BYTES), pauses=True)) != b"":
        n_left -= len(part or b"")
        yield part


def decode_data(
    reader: Reader, data: Data, missing: list[str], read: ReadParts = read_parts
) -> Iterator[NDArray[np.float64]]:
    """The data chunk's whole frames.

    Samples that only fill up an ADPCM file's last block are given, too, as by libsndfile: the fact chunk, which should
    count the others, is often wrong (libsndfile itself writes half the frames for stereo IMA ADPCM).
    """
    size, (block_bytes, block_frames, decode) = data.size, data.coding
    bytes_per_second = block_bytes * data.rate / block_frames
    decode = np.errstate(invalid="ignore")(decode)  # that a NaN is a signalling one does not matter
    if size == 0 and reader.peek(4).upper().rstrip(b" ") in TRAILING_CHUNKS:
        return
    pending, n_read = b"", 0
    for part in read(reader, data):
        if part is None:
            yield decode(b"")
            continue
        n_read += len(part)
        pending += part
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
