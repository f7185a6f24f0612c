"""Where a piece of audio is silent, in hindsight and to 10 ms: words begin with a sound. (loudness.py tells as it goes,
and to a syllable, whether there may be speech.)"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..mel import HOP_LENGTH, SAMPLE_RATE

# Loudness is that of 200 to 4000 Hz in windows of 20 ms. In noise 10 dB below the speech a higher share of the range
# between noise and speech cuts off words' quiet beginnings (with 0.25 starts are 30 ms late, not 20), and a lower one,
# or shorter sounds, break pauses up (the worst 5 % are then 1.2 s off, not 0.16).
_STEP = HOP_LENGTH  # samples, 10 ms
_HANN_20_MS = np.hanning(2 * _STEP + 1)[: 2 * _STEP].astype(np.float32)  # periodic
_VOICE_BINS = slice(4, 81)  # FFT bins of 50 Hz
_RANGE_DB, _NOISE_SHARE, _SOUND = 60.0, 0.15, 3  # below the speech at most;  of that range;  steps, 30 ms
SILENCE_S = 0.06  # shorter ones are inside of sounds: [t], [k], [p]


def silences(samples: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Where nothing is louder than the noise: float32 (n,) at 16 kHz -> starts and ends in seconds, in order."""
    count = len(samples) // _STEP
    if count == 0:
        return []
    padded = np.pad(samples, (_STEP // 2, 2 * _STEP))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _STEP)[::_STEP][:count] * _HANN_20_MS
    band = np.fft.rfft(windows)[:, _VOICE_BINS]
    levels = 10 * np.log10((np.square(band.real) + np.square(band.imag)).sum(axis=1) + 1e-10)
    speech = np.percentile(levels, 95)
    noise = max(levels.min(), speech - _RANGE_DB)
    loud = levels > noise + _NOISE_SHARE * (speech - noise)
    for first, last in _runs(loud):
        loud[first:last] &= last - first >= _SOUND
    seconds = _STEP / SAMPLE_RATE
    return [(first * seconds, last * seconds) for first, last in _runs(~loud) if (last - first) * seconds >= SILENCE_S]


def _runs(flags: NDArray[np.bool_]) -> list[list[int]]:
    """From and up to: of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return edges.reshape(-1, 2).tolist()
