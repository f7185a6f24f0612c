"""The codings of telephones and games, sample for sample what libsndfile gives. A-law, mu-law: a table of 256 values.
ADPCM: 4 bits a sample, which say how far it lies from what the samples before it predict.

Every ADPCM block begins afresh, so the blocks are decoded side by side, in a loop over the samples of one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..codings import A_LAW, IMA_ADPCM, MS_ADPCM, MU_LAW, Coding


def find_adpcm(format_tag: int, channels: int, block_align: int) -> Coding | None:
    """format_tag: A_LAW, MU_LAW, IMA_ADPCM or MS_ADPCM. None for ADPCM of more than 2 channels, and in blocks shorter
    than their head."""
    if format_tag in _G711:
        table = _G711[format_tag]
        return Coding(channels, 1, lambda raw: table[_whole(raw, channels)].reshape(-1, channels))
    decode_blocks, head_bytes, head_frames, codes_at_once = _ADPCM[format_tag]
    head_bytes *= channels
    if channels > 2 or block_align < head_bytes:
        return None
    codes = 2 * (block_align - head_bytes) // channels

    def decode(raw: bytes) -> NDArray[np.float64]:
        data = np.frombuffer(raw, np.uint8)
        whole = data.size - data.size % block_align
        parts = data[:whole].reshape(-1, block_align), data[None, whole:]
        frames = [decode_blocks(part, channels) for part in parts if part.size >= head_bytes]
        return np.concatenate([np.zeros((0, channels)), *frames]) / 2**15

    return Coding(block_align, head_frames + codes - codes % codes_at_once, decode)


def _whole(raw: bytes, channels: int) -> NDArray[np.uint8]:
    """The bytes of the whole frames, a sample each."""
    return np.frombuffer(raw, np.uint8)[: len(raw) - len(raw) % channels]


def _g711(a_law: bool) -> NDArray[np.float64]:
    """G.711, table 1 (A-law) or 2 (mu-law): sign, 3 bits of exponent, 4 of mantissa; A-law inverts every second bit,
    mu-law all but the sign. float64 (256,)."""
    code = np.arange(256) ^ (0x55 if a_law else 0x7F)
    exponent, mantissa = code >> 4 & 7, code & 15
    if a_law:
        magnitude = np.where(exponent == 0, 2 * mantissa + 1, 2 * mantissa + 33 << np.maximum(exponent, 1) - 1) * 2
    else:
        magnitude = (2 * mantissa + 33 << exponent) - 33
    return np.where(code & 0x80, magnitude, -magnitude) / 2**13


_G711 = {A_LAW: _g711(a_law=True), MU_LAW: _g711(a_law=False)}


# Numbers in the blocks are little-endian even in big-endian files, as libsndfile writes them.

# IMA, "Recommended Practices for Enhancing Digital Audio Compatibility in Multimedia Systems", 3.00, 1992: the 89 step
# sizes, and how far a code moves the index into them (bit 3 is the sign and does not).
_IMA_STEPS = np.array([
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107,
    118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963,
    1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894,
    6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794,
    32767,
], np.int32)  # fmt: skip
_IMA_INDEX_CHANGE = np.array([-1, -1, -1, -1, 2, 4, 6, 8] * 2)


def _ima_tables() -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """For every 16 * index + code: the change of the value, and 16 * the next index; both (1424,)."""
    step, code = _IMA_STEPS[:, None], np.arange(16, dtype=np.int32)
    # shifted one by one, as in the standard: the bits that this loses are part of the result
    change = (step >> 3) + (step >> 2) * (code & 1) + (step >> 1) * (code >> 1 & 1) + step * (code >> 2 & 1)
    index = np.clip(np.arange(len(_IMA_STEPS))[:, None] + _IMA_INDEX_CHANGE, 0, len(_IMA_STEPS) - 1)
    return np.where(code & 8, -change, change).ravel(), 16 * index.ravel()


_IMA_CHANGE, _IMA_NEXT = _ima_tables()


def _decode_ima(blocks: NDArray[np.uint8], channels: int) -> NDArray[np.int16]:
    """IMA ADPCM blocks (n_blocks, bytes) -> int16 (frames, channels).

    Per channel 4 bytes: first value, index, 0. Then in turn 4 bytes = 8 codes of each channel, low half first.
    """
    head = np.ascontiguousarray(blocks[:, : 4 * channels]).reshape(-1, channels, 4)
    value = head[..., :2].copy().view("<i2")[..., 0].astype(np.int32)
    state = 16 * np.minimum(head[..., 2], len(_IMA_STEPS) - 1).astype(np.intp)

    n_groups = blocks.shape[1] // (4 * channels) - 1
    body = blocks[:, 4 * channels :][:, : n_groups * 4 * channels].reshape(len(blocks), n_groups, channels, 4)
    halves = np.stack([body & 15, body >> 4], axis=-1)  # (block, group, channel, byte, half)
    codes = halves.transpose(1, 3, 4, 0, 2).reshape(8 * n_groups, len(blocks), channels)

    frames = np.empty((1 + len(codes), len(blocks), channels), np.int16)
    frames[0] = value
    for i, code in enumerate(codes, 1):
        state += code
        value += _IMA_CHANGE[state]
        value = np.minimum(np.maximum(value, -(2**15)), 2**15 - 1)
        state = _IMA_NEXT[state]
        frames[i] = value
    return frames.transpose(1, 0, 2).reshape(-1, channels)


# Microsoft, "New Multimedia Data Types and Data Techniques", 3.0, 1994: the weights of the two samples before, and how
# a code changes the step; in 1/256.
_MS_WEIGHTS = np.array(
    [[256, 0], [512, -256], [0, 0], [192, 64], [240, 0], [460, -208], [392, -232]], np.int32
)  # files repeat them in their fmt chunk; others are not known to exist, and libsndfile has these seven only
_MS_STEP_CHANGE = np.array([230, 230, 230, 230, 307, 409, 512, 614, 768, 614, 512, 409, 307, 230, 230, 230], np.int32)


def _decode_ms(blocks: NDArray[np.uint8], channels: int) -> NDArray[np.int16]:
    """Microsoft ADPCM blocks (n_blocks, bytes) -> int16 (frames, channels).

    For all channels in turn: 1 byte number of the weights, 2 step, 2 second sample, 2 first sample. Then the codes of
    one frame after the other, high half first.
    """
    predictor = blocks[:, :channels]
    weights = _MS_WEIGHTS[np.where(predictor < len(_MS_WEIGHTS), predictor, 0)]
    head = np.ascontiguousarray(blocks[:, channels : 7 * channels]).view("<i2").astype(np.int32)
    step, last, second_last = head.reshape(-1, 3, channels).swapaxes(0, 1)

    body = blocks[:, 7 * channels :]
    halves = np.stack([body >> 4, body & 15], axis=-1).reshape(len(blocks), -1)
    n_codes = halves.shape[1] // channels
    codes = halves[:, : n_codes * channels].reshape(len(blocks), n_codes, channels).swapaxes(0, 1)

    frames = np.empty((2 + n_codes, len(blocks), channels), np.int16)
    frames[0], frames[1] = second_last, last
    for i, code in enumerate(codes, 2):
        predicted = (last * weights[..., 0] + second_last * weights[..., 1]) >> 8
        signed = (code.astype(np.int32) ^ 8) - 8  # 4 bits, two's complement
        value = np.minimum(np.maximum(predicted + signed * step, -(2**15)), 2**15 - 1)
        last, second_last = value, last
        # a step beyond 16 bits wraps around, as in libsndfile, and is then too small
        step = np.maximum((_MS_STEP_CHANGE[code] * step >> 8).astype(np.int16), 16).astype(np.int32)
        frames[i] = value
    return frames.transpose(1, 0, 2).reshape(-1, channels)


# format tag -> decoder, bytes per channel in a block's head, frames in it, codes in a row of the same channel
_ADPCM: dict[int, tuple[Callable[[NDArray[np.uint8], int], NDArray[np.int16]], int, int, int]] = {
    IMA_ADPCM: (_decode_ima, 4, 1, 8),
    MS_ADPCM: (_decode_ms, 7, 2, 1),
}
