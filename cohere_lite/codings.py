"""Sample codings: the bytes of a WAV file's data chunk -> frames, sample for sample what libsndfile gives.

Here are integers and floats. extras/adpcm.py has ADPCM, A-law and mu-law; GSM 6.10, G.72x and the like are left to
converters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import NotWav

# Format tags: Microsoft's mmreg.h.
PCM = 0x0001
MS_ADPCM = 0x0002
IEEE_FLOAT = 0x0003
A_LAW = 0x0006
MU_LAW = 0x0007
IMA_ADPCM = 0x0011
EXTENSIBLE = 0xFFFE

SUPPORTED = "PCM 8/16/24/32-bit, float 32/64-bit, A-law, mu-law, IMA ADPCM or Microsoft ADPCM (both: 1 or 2 channels)"


class Coding(NamedTuple):
    """How the frames (one sample per channel) are stored.

    block_bytes:  the smallest piece that can be decoded by itself: one frame, or an ADPCM block
    block_frames: frames in it
    decode:       blocks, the last of which may be incomplete -> float64 (n, channels) of the whole frames in them;
                  integer codings give -1..1
    """

    block_bytes: int
    block_frames: int
    decode: Callable[[bytes], NDArray[np.float64]]


def find_coding(format_tag: int, bits: int, channels: int, block_align: int, byte_order: str) -> Coding:
    """The coding that a fmt chunk describes.

    bits:        per sample; of no meaning for A-law, mu-law and ADPCM
    channels:    1 or more
    block_align: bytes per ADPCM block; for 24 bits tells whether they are packed or in the upper bytes of 4; otherwise
                 it follows from bits and channels where it is right, and is ignored where it is not, as in libsndfile
    byte_order:  < or >

    Raises NotWav for a coding that is not one of SUPPORTED.
    """
    advice = f"supported: WAV with {SUPPORTED}"
    if format_tag in (A_LAW, MU_LAW, IMA_ADPCM, MS_ADPCM):
        try:
            from .extras.adpcm import find_adpcm

            if coding := find_adpcm(format_tag, channels, block_align):
                return coding
        except ImportError:
            advice = "ADPCM, A-law and mu-law need cohere_lite/extras/adpcm.py, which is not in this copy"
    sample_bytes = (bits + 7) // 8
    if format_tag == PCM and bits == 24 and block_align == 4 * channels:
        sample_bytes = 4
    decode_samples = _SAMPLES.get((format_tag, sample_bytes))
    if decode_samples is None:
        found = f"WAV with format tag 0x{format_tag:04X}, {bits} bits per sample, {channels} channels"
        raise NotWav(f"{found}, blocks of {block_align} bytes; {advice}", format_tag=format_tag)
    frame_bytes = channels * sample_bytes

    def decode(raw: bytes) -> NDArray[np.float64]:
        whole = len(raw) - len(raw) % frame_bytes
        return decode_samples(raw[:whole], byte_order).reshape(-1, channels)

    return Coding(frame_bytes, 1, decode)


def _scaled(raw: bytes | NDArray[np.uint8], dtype: str, full_scale: int) -> NDArray[np.float64]:
    return np.frombuffer(raw, dtype).astype(np.float64) / full_scale


def _widened(raw: bytes, byte_order: str) -> NDArray[np.uint8]:
    """Packed 3-byte integers -> 4-byte ones; in the upper bytes, which keeps the sign: value * 256."""
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    upper = wide[:, 1:] if byte_order == "<" else wide[:, :3]
    upper[:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return wide


# (format tag, bytes per sample) -> whole samples, byte order -> float64 (n,). Integers are scaled by the container's
# full scale, as libsndfile does: 16-bit by 2**15, and 20 bits kept in 24 by 2**23.
_SAMPLES: dict[tuple[int, int], Callable[[bytes, str], NDArray[np.float64]]] = {
    (PCM, 1): lambda raw, _: _scaled(raw, "u1", 2**7) - 1,  # unsigned, 128 is zero
    (PCM, 2): lambda raw, order: _scaled(raw, order + "i2", 2**15),
    (PCM, 3): lambda raw, order: _scaled(_widened(raw, order), order + "i4", 2**31),
    (PCM, 4): lambda raw, order: _scaled(raw, order + "i4", 2**31),
    (IEEE_FLOAT, 4): lambda raw, order: _scaled(raw, order + "f4", 1),
    (IEEE_FLOAT, 8): lambda raw, order: _scaled(raw, order + "f8", 1),
}
