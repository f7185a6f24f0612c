"""Where a recording ends by its file's own account: tells what was cut short, whichever program converts it, and what
follows that a converter leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO, Literal

from .kinds import audio_kind

_PLACEHOLDER = 0x7F000000  # sizes from here on mean "not known": ffmpeg and sox put them there when they write a pipe
_SLACK_BYTES = 256  # of uncompressed sound: pad bytes that some writers count and do not write
_CAF_CHUNKS = b"desc data pakt chan cook info kuki free strg mark regn inst midi ovvw peak edct umid uuid".split()
_MP4_BOXES = b"ftyp moov mdat free skip wide moof mfra sidx styp uuid meta udta pdin emsg prft ssix pnot".split()
_ASF_PROPERTIES = bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")  # the GUID of the file properties object


def cut_short(path: str) -> list[str]:
    """A warning if the file ends before it says."""
    with open(path, "rb") as file:
        size, end = file.seek(0, 2), promised_end(file)
    if end is None or end <= size:
        return []
    return [f"the header promises {end} bytes, the file holds {size}: the recording was cut short; using what is there"]


def another_follows(path: str) -> list[str]:
    """A warning if the recording ends before the file does, and another one begins there."""
    with open(path, "rb") as file:
        end = promised_end(file)
        follows = end is not None and audio_kind(_at(file, end, 16))
    return ["another recording follows in the same file: only the first is used"] if follows else []


def promised_end(file: BinaryIO) -> int | None:
    """The position, in bytes; None where the file does not tell. It may be before the end of the file."""
    head = _at(file, 0, 16)
    return next((find(file) for pattern, find in _FORMATS.items() if re.match(pattern, head, re.DOTALL)), None)


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(min(position, 1 << 62))  # a damaged header may name one that no file has
    return file.read(count)


def _number(file: BinaryIO, position: int, count: int, order: Literal["big", "little"] = "big") -> int:
    return int.from_bytes(_at(file, position, count), order)


def _counted(file: BinaryIO, start: int, count: int) -> int | None:
    """The end of uncompressed sound that begins at `start`; count: bytes, 0 or a placeholder where not known."""
    if not 0 < count < _PLACEHOLDER:
        return None
    size = file.seek(0, 2)
    return size if size < start + count <= size + _SLACK_BYTES else start + count


def _caf(file: BinaryIO) -> int | None:
    position = 8
    while (header := _at(file, position, 12))[:4] in _CAF_CHUNKS:
        count = int.from_bytes(header[4:], "big", signed=True)
        if count < 0:  # "to the end of the file"
            return None
        position += 12 + count
    return position


def _voc(file: BinaryIO) -> int:
    position = _number(file, 20, 2, "little")
    while 1 <= (kind := _number(file, position, 1)) <= 9:
        position += 4 + _number(file, position + 1, 3, "little")
    return position + (kind == 0)  # the terminator, or what stands in its place


def _mp4(file: BinaryIO) -> int | None:
    position, seen = 0, set[bytes]()
    while (box := (header := _at(file, position, 16))[4:8]) in _MP4_BOXES:
        # Fragments may bring their header along again. Otherwise another file begins there.
        if box == b"ftyp" in seen and b"moof" not in seen:
            break
        count = int.from_bytes(header[:4], "big")
        if count == 1:
            count = int.from_bytes(header[8:], "big")
        if count < 8:  # 0: to the end of the file
            return None
        seen.add(box)
        position += count
    return position


def _matroska(file: BinaryIO) -> int | None:
    position = 4
    for _ in range(2):  # the EBML header, then the segment
        first = _number(file, position, 1)
        n_bytes = 9 - first.bit_length()
        count = _number(file, position, n_bytes) - (1 << 7 * n_bytes)
        position += n_bytes + count
        if count == (1 << 7 * n_bytes) - 1:  # not known: written to a pipe
            return None
        if _at(file, position, 4) == b"\x18\x53\x80\x67":
            position += 4
    return position


def _asf(file: BinaryIO) -> int | None:
    head = _at(file, 0, 1 << 16)
    at = head.find(_ASF_PROPERTIES)
    is_live = at < 0 or head[at + 88 : at + 89] != b"\2"  # flags: broadcast 1, seekable 2
    return None if is_live else int.from_bytes(head[at + 40 : at + 48], "little")


def _ogg(file: BinaryIO) -> int | None:
    """Of the last page."""
    position = max(0, file.seek(0, 2) - (1 << 16))
    tail = _at(file, position, 1 << 16)
    at = tail.rfind(b"OggS\0")
    n_segments = int.from_bytes(tail[at + 26 : at + 27], "big")
    return None if at < 0 else position + at + 27 + n_segments + sum(tail[at + 27 : at + 27 + n_segments])


def _mpeg(file: BinaryIO) -> int | None:
    """By the Xing header, which stands in the first frame."""
    start, head = 0, _at(file, 0, 10)
    if head[:3] == b"ID3":
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    frame = _at(file, start, 200)
    found = re.search(rb"(?:Xing|Info)\0\0\0[\x02\x03\x06\x07\x0a\x0b\x0e\x0f]", frame)  # flags: 1 frames, 2 bytes
    if found is None or frame[:1] != b"\xff":
        return None
    at = found.end() + 4 * (frame[found.end() - 1] & 1)
    return start + int.from_bytes(frame[at : at + 4], "big")


# What the file begins with -> its reader.
_FORMATS: dict[bytes, Callable[[BinaryIO], int | None]] = {
    rb"FORM....AIF[FC]": lambda file: _counted(file, 8, _number(file, 4, 4)),
    rb"RIFF....(?:AVI |WAVE)": lambda file: _counted(file, 8, _number(file, 4, 4, "little")),
    rb"\.snd": lambda file: _counted(file, _number(file, 4, 4), _number(file, 8, 4)),
    rb"dns\.": lambda file: _counted(file, _number(file, 4, 4, "little"), _number(file, 8, 4, "little")),
    rb"caff\0\x01": _caf,
    rb"Creative Voice ": _voc,
    rb"....ftyp": _mp4,
    rb"\x1aE\xdf\xa3": _matroska,
    rb"\x30\x26\xb2\x75": _asf,
    rb"OggS": _ogg,
    rb"ID3|\xff[\xe0-\xff]": _mpeg,
}
