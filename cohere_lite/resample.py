"""Any sampling rate -> 16 kHz: a Kaiser-windowed sinc, applied as matrix products.

With 16000 / rate = up / down in lowest terms, output m lies at m * down / up on the input's time axis, so the filter's
weights repeat every `up` outputs while the input moves on by `down` samples. A group of neighbouring outputs is one
matrix product for many periods at once: (periods, input window) @ (input window, outputs of the group)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from .errors import AudioError
from .mel import SAMPLE_RATE

MIN_RATE, MAX_RATE = 1_000, 1_000_000  # Hz; outside of it a header is damaged rather than unusual

# All relative to the lower of the two rates. Design formulas: Kaiser, see Oppenheim & Schafer, Discrete-Time Signal
# Processing, "FIR filter design by the Kaiser window method". Designed for 100 dB; measured: 102 dB or more.
_ATTENUATION = 100.0  # dB
_PASS, _STOP = 0.45, 0.50  # edges of the transition band: 0.9 and 1.0 of the lower Nyquist frequency
_CUTOFF = (_PASS + _STOP) / 2
_BETA = 0.1102 * (_ATTENUATION - 8.7)
_HALF_LENGTH = (_ATTENUATION - 7.95) / (2.285 * 2 * np.pi * (_STOP - _PASS)) / 2  # 64.1 samples of the lower rate

# Points of the filter per sample of the lower rate, with straight lines between: at most 0.4 / _FINENESS**2 = -128 dB
# off the formula, which would take 170 ms for the 3 million weights of 15999 Hz, nearly all of it in np.i0.
_FINENESS = 1024

# Wider groups mean fewer, larger products but more multiplications by zero.
_GROUP = 64  # outputs
_BLOCK_VALUES = 1 << 21  # float32 values of input windows at once: 8 MiB
# More multiplications OpenBLAS does in threads: slow where cores are busy (mel.py); and where another thread forks the
# process in the meantime, they never end. From 192 kHz on, two periods take more.
_PRODUCT = 64**3

# Most rates need a handful of groups of weights; odd ones need 250, which take longer to make than to apply. All are
# kept for rates up to 48 kHz, 38 MB for the worst of them; for odd rates above, they are made again whenever needed.
_KEPT_VALUES = 10_000_000


class Resampler:
    """A recording, piece by piece, from its rate to 16 kHz.

    Output m is the band-limited input at m / 16000 seconds: no delay. Beyond its ends the input counts as zero.
    Up to 0.9 of the lower of the two Nyquist frequencies the gain is 1 within 0.05 dB (measured: 0.0001); from that
    Nyquist frequency on, what the target may not keep (aliases, images) is at least 90 dB down (measured: 102).

    Where the input is cut into pieces changes nothing but the rounding (measured: 2e-6 of full scale). Outputs come in
    whole periods, each as soon as its input is there: 4 to 40 ms for common rates, 1 s for odd ones. Working memory
    beyond a piece and its result: some 25 MB, and up to 40 MB for odd rates.
    """

    def __init__(self, rate: float) -> None:
        """Raises AudioError for a rate that is not a whole number of Hz, 1 kHz to 1 MHz."""
        if not (MIN_RATE <= rate <= MAX_RATE and rate == int(rate)):
            raise AudioError(f"sampling rate {rate} Hz; supported: {MIN_RATE} to {MAX_RATE} Hz, whole numbers")
        divisor = gcd(int(rate), SAMPLE_RATE)
        self._up, self._down = SAMPLE_RATE // divisor, int(rate) // divisor
        self._period = self._up * ceil(_GROUP / self._up)  # outputs; a multiple of up: all periods have equal weights
        self._step = self._period * self._down // self._up  # input samples per period
        self._weights = _kept_weights(self._up, self._down)
        self._offset, self._window = _input_window(self._up, self._down, 0, self._period)
        self._held = np.zeros(-self._offset, np.float32)  # from the first input that the next period needs
        self._n_in = self._n_out = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next samples, float32 (n,) -> the outputs that they complete; at equal rates samples itself."""
        if self._up == self._down:
            return samples
        self._n_in += len(samples)
        self._held = np.concatenate([self._held, samples])
        ready = (len(self._held) - self._window) // self._step + 1  # periods
        return self._next(ready * self._period) if ready > 0 else np.zeros(0, np.float32)

    def finish(self) -> NDArray[np.float32]:
        """The last outputs; n inputs give ceil(n * 16000 / rate) in all, at equal rates none here."""
        self._held = np.pad(self._held, (0, self._window))
        return self._next(-(-self._n_in * self._up // self._down) - self._n_out)

    def _next(self, n_outputs: int) -> NDArray[np.float32]:
        """The next outputs, in whole periods except at the end; drops the input that no later output needs."""
        count = ceil(n_outputs / self._period)
        output = np.empty((count, self._period), np.float32)
        for first in range(0, min(self._period, n_outputs), _GROUP):
            group = min(_GROUP, self._period - first)
            offset, weights = self._weights(first, group)
            window = len(weights)
            rows = _BLOCK_VALUES // window
            for row in range(0, count, rows):
                n_rows = min(rows, count - row)
                needed = self._held[row * self._step + offset - self._offset :][: (n_rows - 1) * self._step + window]
                periods = max(2, _PRODUCT // weights.size)  # of a product
                # A copy: on overlapping rows matmul would not use BLAS.
                windows = np.zeros((ceil(n_rows / periods) * periods, window), np.float32)
                windows[:n_rows] = np.lib.stride_tricks.sliding_window_view(needed, window)[:: self._step]
                products = np.matmul(windows.reshape(-1, periods, window), weights).reshape(-1, group)
                output[row : row + n_rows, first : first + group] = products[:n_rows]
        self._n_out += output.size
        self._held = self._held[count * self._step :].copy()
        return output.reshape(-1)[:n_outputs]


def _input_window(up: int, down: int, first: int, count: int) -> tuple[int, int]:
    """The first input that outputs first .. first + count need, counted from the period's start; and how many."""
    reach = ceil(_HALF_LENGTH / min(1.0, up / down))
    offset = first * down // up - reach
    return offset, (first + count - 1) * down // up + reach + 2 - offset


@lru_cache(maxsize=1)
def _kept_weights(up: int, down: int) -> Callable[[int, int], tuple[int, NDArray[np.float32]]]:
    """_weights for these rates, kept: the channels of a recording share them."""
    _, window = _input_window(up, down, 0, _GROUP)
    return lru_cache(_KEPT_VALUES // (window * _GROUP))(partial(_weights, up, down))


def _weights(up: int, down: int, first: int, count: int) -> tuple[int, NDArray[np.float32]]:
    """The weights of outputs first .. first + count of a period: the first row's input, as in _input_window, and
    float32 (window, count)."""
    to_lower = min(1.0, up / down)  # samples of the lower rate per input sample
    offset, window = _input_window(up, down, first, count)
    # Distances in units of 1 / up input samples are integers: exact, also late in a long period.
    outputs = np.arange(first, first + count, dtype=np.int64) * down
    inputs = np.arange(offset, offset + window, dtype=np.int64) * up
    filter, slope = _filter()
    place = np.abs(outputs[None, :] - inputs[:, None]) * (to_lower / up * _FINENESS)
    index = np.minimum(place.astype(np.int32), len(slope) - 1)
    weights = filter[index] + (place - index) * slope[index]
    weights /= weights.sum(axis=0)  # gain 1 at 0 Hz for every output, so a constant stays one
    return offset, weights.astype(np.float32)


@lru_cache(maxsize=1)
def _filter() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Half of the symmetric filter at every 1 / _FINENESS sample of the lower rate, and the differences to the next."""
    distance = np.arange(ceil(_HALF_LENGTH * _FINENESS) + 2) / _FINENESS
    inside = np.maximum(0, 1 - (distance / _HALF_LENGTH) ** 2)
    values = np.sinc(2 * _CUTOFF * distance) * np.i0(_BETA * np.sqrt(inside)) * (inside > 0)
    return values, np.append(np.diff(values), 0)
