"""Compressed sound under the header of a PCM file: as samples it would be noise."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..codings import Coding
from ..errors import NotWav

PAYLOAD_BYTES = 1 << 17  # of the samples are looked at: two bursts of the longest kind
# How files of other kinds begin, in as many bytes as samples never hold there by chance.
_FILES = {
    rb"wvpk.{5}\x04": "WavPack",
    rb"fLaC[\x00\x80]\0\0\x22": "FLAC",
    rb"OggS\0\x02\0\0": "Ogg",
    rb"ID3[\x02-\x04]\0[\0-\x7f]{5}": "MP3",
}
_KBPS = (  # MPEG audio, layer III: MPEG-1, then MPEG-2 and 2.5; by the bitrate index
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_RATES_HZ = (44100, 48000, 32000)  # of MPEG-1
# Words of 16 bits that begin a frame: those at its start, a mask for the one that follows, its value.
_BURSTS = (
    ((0xF872, 0x4E1F), 0x0060, 0x0000, "AC-3, DTS or the like (IEC 61937)"),  # then the data type, 5 bits
    ((0x7FFE, 0x8001), 0xFC00, 0xFC00, "DTS"),  # then: a normal frame, of all its samples
    ((0x1FFF, 0xE800), 0xFFF0, 0x07F0, "DTS"),  # likewise, 14 bits to a word
)
_LEAST_WORDS = 256  # from one frame to the next


def refuse_payload(head: bytes, coding: Coding, file: BinaryIO | None = None) -> None:
    """Raises NotWav if the data chunk begins with another file, or with frames of compressed sound.

    head: its first bytes, up to some 100 KiB;  file: stands behind them; None for a pipe
    """
    if coding.block_frames != 1:
        return
    offset, name = _file_in(head) or _bursts_in(head, coding) or (0, None)
    if name is None:
        return
    found = f"a WAV file with {name} in place of its samples"
    if file is None:
        raise NotWav(f"{found}; for a pipe, convert before it: ffmpeg -i IN -f wav - | ...")
    raise NotWav(found, head[offset : offset + 64], position=file.tell() - len(head) + offset)


def _file_in(head: bytes) -> tuple[int, str] | None:
    """(0, its kind) of a file that the bytes begin with."""
    if name := next((name for pattern, name in _FILES.items() if re.match(pattern, head, re.DOTALL)), None):
        return 0, name
    position = 0
    for _ in range(4):
        length = _mp3_frame_bytes(head[position : position + 4])
        if not length:
            return None
        position += length
    return 0, "MP3"


def _mp3_frame_bytes(header: bytes) -> int:
    """The length of the MPEG layer III frame with this header; 0 if it is none. (ISO/IEC 11172-3, 2.4.1.3)"""
    bits = int.from_bytes(header, "big")
    version, layer, bitrate, rate = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return 0
    is_mpeg1 = version == 3
    rate_hz = _RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if is_mpeg1 else 72) * _KBPS[not is_mpeg1][bitrate] * 1000 // rate_hz + (bits >> 9 & 1)


def _bursts_in(head: bytes, coding: Coding) -> tuple[int, str] | None:
    """(bytes before the first one, what they are) of frames of compressed sound, two at least, equally far apart."""
    whole = head[: len(head) - len(head) % coding.block_bytes]
    with np.errstate(invalid="ignore"):  # a signalling NaN
        samples = np.nan_to_num(coding.decode(whole).ravel())  # the upper 16 bits of each, whatever its width
    words = np.floor(np.clip(samples, -1, 1 - 2**-15) * 2**15).astype(np.int16).view(np.uint16)
    for swapped in words, words.byteswap():
        for start, mask, value, name in _BURSTS:
            at = _places(swapped, start, mask, value)
            if len(at) >= 2 and at[1] - at[0] >= _LEAST_WORDS and (np.diff(at) == at[1] - at[0]).all():
                return int(at[0]) * (len(whole) // len(words)), name
    return None


def _places(words: NDArray[np.uint16], start: tuple[int, int], mask: int, value: int) -> NDArray[np.intp]:
    first, second, third = words[:-2], words[1:-1], words[2:]
    return np.flatnonzero((first == start[0]) & (second == start[1]) & (third & mask == value))
