"""Where a recording ends by its file's own account: tells what was cut short, whichever program converts it, and what
follows that a converter leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Literal, cast

_PLACEHOLDER = 0x7F000000  # sizes from here on mean "not known": ffmpeg and sox put them there when they write a pipe
_SLACK_BYTES = 256  # of uncompressed sound: pad bytes that some writers count and do not write
_BLOCK_BYTES, _LONGEST_BEGINNING = 1 << 22, 100  # searched at once; how far two blocks overlap
_FOLLOWS = "another recording follows in the same file: only the first is used"
# How a recording begins, in as many bytes as never come by chance.
_BEGINNING = re.compile(
    rb"(?P<flac>(?<!\x7fFLAC.{4})fLaC[\0\x80]\0\0\x22)"  # not as a stream of an Ogg file
    rb"|(?P<mpeg>ID3[\x02-\x04]\0[\0-\xf0][\0-\x7f]{4}|\xff[\xe2-\xff][^\xf0-\xff].{1,40}(?:Xing|Info)\0\0\0[\x01-\x0f])"
    rb"|(?P<wav>(?:RIFF|RIFX|RF64|BW64)....(?:WAVE|AVI )|riff\x2e\x91\xcf\x11)"
    rb"|(?P<ogg>OggS\0\x02)|(?P<aiff>FORM....AIF[FC])|(?P<au>\.snd\0\0..|dns\...\0\0)|(?P<caf>caff\0\x01\0\0desc)"
    rb"|(?P<voc>Creative Voice File\x1a)|(?P<mov>\0\0\0.ftyp[ -~]{4})"
    rb"|(?P<matroska>\x1aE\xdf\xa3.{1,8}\x42[\x82\x86\xf7])"
    rb"|(?P<asf>\x30\x26\xb2\x75\x8e\x66\xcf\x11)|(?P<amr>#!AMR(?:-WB)?\n)"
    rb"|(?P<wavpack>wvpk..[\0-\x0f]\0[\x02-\x10]\x04\0\0.{4}\0{4})|(?P<tta>TTA[12][\x01\x02]\0[\x01-\x08]\0)",
    re.DOTALL,
)
# What each of them holds: to find these first is some 25 times as fast.
_MAGICS = (
    *b"fLaC ID3 Xing Info WAVE riff\x2e OggS\0\2 AIFF AIFC .snd dns. caff Creative ftyp".split(b" "),
    *b"\x1aE\xdf\xa3 \x30\x26\xb2\x75 #!AMR wvpk TTA1 TTA2".split(b" "),
    b"AVI ",
)
_ENDLESS = ("flac", "mpeg", "ogg", "amr")  # may not tell their end, and hold nothing that looks like a beginning
_CAF_CHUNKS = b"desc data pakt chan cook info kuki free strg mark regn inst midi ovvw peak edct umid uuid".split()
_MP4_BOXES = b"ftyp moov mdat free skip wide moof mfra sidx styp uuid meta udta pdin emsg prft ssix pnot".split()
_ASF_PROPERTIES = bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")  # the GUID of the file properties object


def cut_short(file: BinaryIO) -> list[str]:
    """A warning if the file ends before it says."""
    size, end = file.seek(0, 2), promised_end(file)
    if end is None or end <= size:
        return []
    return [f"the header promises {end} bytes, the file holds {size}: the recording was cut short; using what is there"]


def another_follows(file: BinaryIO, reads_on: bool) -> list[str]:
    """A warning if another recording begins behind the first. Reads all of a file that does not tell its end: 1 s for
    80 MB.

    reads_on: the converter goes on with recordings of the same kind, so that only others are lost
    """
    own, start = _kind_and_start(file)
    end = promised_end(file)
    if own is None or (end is None and own not in _ENDLESS):
        return []
    if end is not None and own != "ogg":  # of Ogg, that is the last page's
        start = end
        # MP3 and AAC files may begin with any frame.
        if not (own == "mpeg" and reads_on) and re.match(rb"\xff[\xe2-\xff][^\xf0-\xff]", _at(file, end, 3)):
            return [_FOLLOWS]
    for kind, _ in _beginnings(file, start):
        if kind != own or not reads_on:
            return [_FOLLOWS]
        if kind == "matroska":  # which may hold what looks like a FLAC file
            break
    return []


def flac_frames(file: BinaryIO) -> int:
    """How many frames the headers of a FLAC file promise (RFC 9639, 8.2), and of FLAC files behind it; 0 for other
    files. Without a word, ffmpeg 5 leaves out what it cannot decode, the last frame before another FLAC file, and long
    stretches of 8-bit files."""
    if _at(file, 0, 4) != b"fLaC":
        return 0
    positions = [0, *(at for kind, at in _beginnings(file, _kind_and_start(file)[1], [b"fLaC"]) if kind == "flac")]
    return sum(_number(file, at + 18, 8) & 0xF_FFFF_FFFF for at in positions)


def _kind_and_start(file: BinaryIO) -> tuple[str | None, int]:
    """A group of _BEGINNING, and from where on another recording may begin, if the file does not tell its end."""
    start = _after_id3(file, 0)
    head = _at(file, start, 64)
    begins = _BEGINNING.match(head)
    kind = begins.lastgroup if begins else "mpeg" if head[:1] == b"\xff" else None
    if kind == "flac":  # of its metadata, one block may be the header of a WAV file
        start += 4
        while len(header := _at(file, start, 4)) == 4:
            start += 4 + int.from_bytes(header[1:], "big")
            if header[0] & 0x80:
                break
    return kind, start + 1


def _after_id3(file: BinaryIO, position: int) -> int:
    head = _at(file, position, 10)
    if head[:3] != b"ID3":
        return position
    return position + 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))


def _beginnings(file: BinaryIO, start: int, magics: Sequence[bytes] = _MAGICS) -> Iterator[tuple[str, int]]:
    """(group of _BEGINNING, position) of all recordings that begin from `start` on."""
    while len(block := _at(file, start, _BLOCK_BYTES)) >= 8:
        found = set()
        for magic in magics:
            at = -1
            while (at := block.find(magic, at + 1)) >= 0:
                if begins := _BEGINNING.search(block, max(0, at - 44), at + 64):
                    found.add((begins.start(), cast(str, begins.lastgroup)))
        for at, kind in sorted(found):
            # A tag may also stand at the end of a recording.
            behind = _at(file, _after_id3(file, start + at), 4) if block.startswith(b"ID3", at) else b"fLaC"
            if re.match(rb"\xff[\xe2-\xff]|fLaC", behind):
                yield kind, start + at
        start += _BLOCK_BYTES - _LONGEST_BEGINNING if len(block) == _BLOCK_BYTES else len(block)


def promised_end(file: BinaryIO) -> int | None:
    """The position, in bytes; None where the file does not tell. It may be before the end of the file."""
    head = _at(file, 0, 16)
    return next((find(file) for pattern, find in _FORMATS.items() if re.match(pattern, head, re.DOTALL)), None)


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(max(0, min(position, 1 << 62)))  # a damaged header may name one that no file has
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


def _wavpack(file: BinaryIO) -> int:
    """Of the blocks that go on counting samples. A second recording counts from 0 again."""
    position, last = 0, 0
    while (header := _at(file, position, 20))[:4] == b"wvpk":
        index = int.from_bytes(header[16:], "little")
        if index < last:
            break
        position, last = position + 8 + int.from_bytes(header[4:8], "little"), index
    return position


def _tta(file: BinaryIO) -> int:
    """By the table of the frames' sizes; each frame has 256 / 245 s."""
    rate, n_samples = _number(file, 10, 4, "little"), _number(file, 14, 4, "little")
    n_frames = -(-n_samples // max(1, 256 * rate // 245))
    sizes = _at(file, 22, 4 * n_frames)
    return 22 + 4 * n_frames + 4 + sum(int.from_bytes(sizes[i : i + 4], "little") for i in range(0, len(sizes), 4))


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
    start = _after_id3(file, 0)
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
    rb"wvpk": _wavpack,
    rb"TTA1": _tta,
    rb"ID3|\xff[\xe0-\xff]": _mpeg,
}
