"""Where there may be speech: the loudness of a recording against the quietest of its last seconds.

Nothing here tells speech from other sounds; it tells something from nothing. Digital silence, hiss, hum and a fan's
noise are even, and speech never is. In doubt it is speech: a silent piece that is decoded costs time, speech that is
skipped is lost. The measurements are from the 400 held-out recordings of tools/demo and from an hour of each noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..mel import SAMPLE_RATE

FRAME = 320  # samples, 20 ms
# Loudness is measured in the band of telephony (ITU-T G.712), where all voices are and hum is not, over 100 ms, a
# syllable's length, in windows of two frames.
_BAND = slice(300 * 2 * FRAME // SAMPLE_RATE, 3400 * 2 * FRAME // SAMPLE_RATE + 1)  # FFT bins: 300 to 3400 Hz
_HANN = np.hanning(2 * FRAME + 1)[: 2 * FRAME]  # periodic
_SMOOTH = 4  # windows
_AT_ONCE = 128  # windows: 1.4 MB; those of a piece of 35 s would take 18 MB
# The quietest moment of the last 10 s is the noise floor: whoever speaks on, takes a breath. Speech without any pause
# has one 30 dB below its loudest moment; with white noise 5 dB below the speech, 14.
_FLOOR_FRAMES = 10 * SAMPLE_RATE // FRAME
# Before there have been 2 s of a recording, its floor is not known, and all that is audible may be speech. In 2 s of
# speech without a pause the range is 17 dB or more, in that noise 9; in 1 s it is 8 and 6.
_UNKNOWN_FRAMES = 2 * SAMPLE_RATE // FRAME
# What stands out by less is noise that happens to be louder: in an hour, white noise came up to 2.3 dB above the
# quietest moment of 35 s, pink noise to 2.8, brown noise (most like a fan's) to 4.3. Higher thresholds cost speech: of
# the 400 sentences, cut into phrases in white noise 5 dB below them, 4.5 dB skips no part, 5 dB one, 6 dB four.
THRESHOLD_DB = 4.5
# Below it nothing is speech. Full scale is 0; 16-bit rounding alone is at -105 in the band, with dither at -100. Of
# speech whose loudest moment is at -87 the demonstration model still hears 5 words of 6.
INAUDIBLE_DB = -90.0


def silence_detector(threshold_db: float = THRESHOLD_DB) -> Callable[[NDArray[np.float32]], bool]:
    """Tells of a recording's consecutive pieces, float32 (n,) at 16 kHz, whether nothing in them stands out."""
    loudness = Loudness()
    return lambda samples: not holds_speech(loudness.push(samples), threshold_db)


def is_speech(levels: NDArray[np.float64], threshold_db: float) -> NDArray[np.bool_]:
    """Which frames stand out, more than threshold_db above the floor, and are audible at all; levels: Loudness's."""
    return levels[:, 0] > np.maximum(levels[:, 1] + threshold_db, INAUDIBLE_DB)


def holds_speech(levels: NDArray[np.float64], threshold_db: float = THRESHOLD_DB) -> bool:
    """Whether any frame of a stretch stands out; levels: (frames, 2), what Loudness gave for it. In hindsight: the
    floor is what it is at its end, or the quietest in it. Less than 0.1 s at a recording's beginning never does."""
    if len(levels) == 0:
        return False
    floor = np.fmin.reduce(levels[:, 0], initial=levels[-1, 1])
    return bool((levels[:, 0] > max(floor + threshold_db, INAUDIBLE_DB)).any())


class Loudness:
    """A recording's loudness, as it comes, and its noise floor."""

    def __init__(self) -> None:
        # What was before the recording is not known: NaN.
        self._held = np.full(FRAME, np.nan, np.float32)  # the last frame, and less than one more
        self._powers = np.full(_SMOOTH - 1, np.nan)  # of the last windows
        self._last = np.full(_FLOOR_FRAMES - 1, np.nan)  # dB, of the last frames
        self._unknown = _UNKNOWN_FRAMES  # still to come

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """The next samples, float32 (n,), 16 kHz -> for each frame that they complete (loudness, floor), in dB of full
        scale: float64 (frames, 2). A recording's first loudnesses, before 0.1 s, are NaN; a floor not known is -inf."""
        samples = np.concatenate([self._held, samples])
        count = len(samples) // FRAME - 1
        self._held = samples[count * FRAME :]
        if count == 0:
            return np.zeros((0, 2))
        windows = sliding_window_view(samples, 2 * FRAME)[::FRAME]
        parts = [_band_power(windows[i : i + _AT_ONCE]) for i in range(0, count, _AT_ONCE)]
        powers = np.concatenate([self._powers, *parts])
        self._powers = powers[count:]
        loudness = 10 * np.log10(sliding_window_view(powers, _SMOOTH).mean(axis=1) + 1e-20)
        last = np.concatenate([self._last, loudness])
        self._last = last[count:]
        floor = np.fmin.reduce(sliding_window_view(last, _FLOOR_FRAMES), axis=1)
        floor[: self._unknown] = -np.inf
        self._unknown = max(0, self._unknown - count)
        return np.stack([loudness, floor], axis=1)


def _band_power(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 2 FRAME) -> the mean square of what is in the band: a full-scale sine in it has 0.5, as it has without it."""
    band = np.fft.rfft(windows * _HANN)[:, _BAND]
    power = np.square(band.real) + np.square(band.imag)
    return 2 * power.sum(axis=1) / (len(_HANN) * np.square(_HANN).sum())
