"""Any sampling rate -> 16 kHz: a Kaiser-windowed sinc, applied as matrix products.

With 16000 / rate = up / down in lowest terms, output m lies at m * down / up on the input's time axis, so the filter's
weights repeat every `up` outputs while the input moves on by `down` samples. A group of neighbouring outputs is one
matrix product for all periods at once: (periods, input window) @ (input window, outputs of the group). BLAS does it on
all cores: a minute of 44.1 kHz takes 12 ms on a 2-core x86 server.
"""

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
_BLOCK_VALUES = 1 << 21  # float32 values of input windows per product: 8 MiB

# Most rates need a handful of groups of weights, odd ones 250 that take longer to make than to apply: all of them are
# kept for rates up to 48 kHz, which takes 38 MB for the worst of these; of odd rates above, they are made anew.
_KEPT_VALUES = 10_000_000
_PIECE = 1 << 20  # samples, of what comes all at once


def resample(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """samples: float32 (n,) at rate Hz -> float32 (ceil(n * 16000 / rate),), as by a Resampler that is given all at
    once. At equal rates samples itself comes back."""
    resampler = Resampler(rate)
    if rate == SAMPLE_RATE:
        return samples
    pieces = (samples[i : i + _PIECE] for i in range(0, len(samples), _PIECE))  # push copies its argument
    return np.concatenate([*map(resampler.push, pieces), resampler.finish()])


class Resampler:
    """A recording, piece by piece, from its rate to 16 kHz.

    Output m is the band-limited input at m / 16000 seconds: no delay. Beyond its ends the input counts as zero.
    Up to 0.9 of the lower of the two Nyquist frequencies the gain is 1 within 0.05 dB (measured: 0.0001); from that
    Nyquist frequency on, what the target may not keep (aliases, images) is at least 90 dB down (measured: 102).

    Where the input is cut into pieces changes nothing but the rounding (measured: 2e-6 of full scale). Outputs come in
    whole periods, each as soon as its input is there: 4 to 40 ms for common rates, 1 s for odd ones. Working memory
    beyond a piece and its result: some 25 MB, and up to 40 MB for odd rates.
    """

    def __init__(self, rate: int) -> None:
        """Raises AudioError for a rate outside 1 kHz .. 1 MHz."""
        if not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(f"sampling rate {rate} Hz; supported: {MIN_RATE} to {MAX_RATE} Hz")
        self._up, self._down = SAMPLE_RATE // gcd(rate, SAMPLE_RATE), rate // gcd(rate, SAMPLE_RATE)
        self._period = self._up * ceil(_GROUP / self._up)  # outputs; a multiple of up: all periods have equal weights
        self._step = self._period * self._down // self._up  # input samples per period
        # What a period needs of the input, relative to its start: from the first group's window to the last one's.
        last_count = self._period - (self._period - 1) // _GROUP * _GROUP
        first_offset, length = _input_window(self._up, self._down, 0, _GROUP)
        last_offset, last_length = _input_window(self._up, self._down, self._period - last_count, last_count)
        self._reach = -first_offset, last_offset + last_length
        self._weights = _kept_weights(self._up, self._down, _KEPT_VALUES // (length * _GROUP))
        self._held = np.zeros(0, np.float32)  # input that is still needed, beginning at sample `_first` of all
        self._first = 0
        self._n_in = self._n_out = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next samples, float32 (n,) -> the outputs that they complete; at equal rates samples itself."""
        if self._up == self._down:
            return samples
        self._n_in += len(samples)
        self._held = np.concatenate([self._held, samples])
        done = self._n_out // self._period
        ready = (self._n_in - self._reach[1]) // self._step + 1 - done
        if ready <= 0:
            return np.zeros(0, np.float32)
        return self._next(ready * self._period)

    def finish(self) -> NDArray[np.float32]:
        """The last outputs."""
        if self._up == self._down:
            return np.zeros(0, np.float32)
        left = -(-self._n_in * self._up // self._down) - self._n_out
        return self._next(left)

    def _next(self, n_outputs: int) -> NDArray[np.float32]:
        """The next outputs, whole periods of them but at the end; lets go of the input that is behind them."""
        count = -(-n_outputs // self._period)
        output = np.empty((count, self._period), np.float32)
        base = self._n_out // self._period * self._step - self._first  # of the first period, in what is held
        for first in range(0, min(self._period, n_outputs), _GROUP):
            group = min(_GROUP, self._period - first)
            offset, weights = self._weights(first, group)
            window = len(weights)
            rows = max(1, _BLOCK_VALUES // window)
            for row in range(0, count, rows):
                n_rows = min(rows, count - row)
                begin = base + row * self._step + offset
                needed = _slice_with_zeros(self._held, begin, begin + (n_rows - 1) * self._step + window)
                # The copy matters: on overlapping rows matmul would not use BLAS.
                windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(needed, window)[:: self._step])
                output[row : row + n_rows, first : first + group] = windows @ weights
        self._n_out += output.size
        behind = max(0, base + count * self._step - self._reach[0])
        self._held = self._held[behind:].copy()
        self._first += behind
        return output.reshape(-1)[:n_outputs]


def _input_window(up: int, down: int, first: int, count: int) -> tuple[int, int]:
    """Of outputs first .. first + count of a period: the first input index that they need, relative to the period's
    start, and how many."""
    reach = ceil(_HALF_LENGTH / min(1.0, up / down))
    offset = first * down // up - reach
    return offset, (first + count - 1) * down // up + reach + 2 - offset


@lru_cache(maxsize=1)
def _kept_weights(up: int, down: int, maxsize: int) -> Callable[[int, int], tuple[int, NDArray[np.float32]]]:
    """_weights for these rates, kept: the channels of a recording share them."""
    return lru_cache(maxsize)(partial(_weights, up, down))


def _weights(up: int, down: int, first: int, count: int) -> tuple[int, NDArray[np.float32]]:
    """The weights of outputs first .. first + count of a period.

    Returns the input index, relative to the period's start, of the first row, and float32 (window, count).
    """
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


def _slice_with_zeros(samples: NDArray[np.float32], begin: int, end: int) -> NDArray[np.float32]:
    """samples[begin:end], with zeros where that reaches beyond the ends; a view where it does not."""
    inside = samples[max(0, begin) : max(0, end)]
    before = min(max(0, -begin), end - begin)
    after = end - begin - before - len(inside)
    return np.pad(inside, (before, after)) if before or after else inside
