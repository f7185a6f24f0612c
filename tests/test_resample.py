"""Filter quality by formula: sines, pulses and constants go in, and what must come out is known exactly."""

import sys
import tracemalloc
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohere_lite.errors import AudioError
from cohere_lite.resample import Resampler

RATES = [8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000, 12345, 15999, 16001]


def sine(frequency, rate, n):
    return np.sin(2 * np.pi * frequency * np.arange(n) / rate + 0.3)


def resample(samples, rate, cuts=()):
    """Piece by piece, with these cuts."""
    resampler = Resampler(rate)
    pieces = np.split(samples, sorted(cuts))
    return np.concatenate([*(resampler.push(piece) for piece in pieces), resampler.finish()])


def steady(samples, rate):
    """Without the first and last 64.1 samples of the lower rate, where the filter still reaches beyond the ends."""
    edge = int(66 * 16000 / min(rate, 16000)) + 1
    return samples[edge:-edge].astype(np.float64)


def db(ratio):
    return 20 * np.log10(max(float(ratio), 1e-15))


def rms(samples):
    return np.sqrt(np.mean(samples**2))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("part", [0.01, 0.3, 0.7, 0.85, 0.9])
def test_pass_band(rate, part):
    """A sine below 0.9 of the lower Nyquist comes out as the same sine: gain within 0.05 dB, no shift, and nothing else
    (images, aliases, rounding) above -90 dB."""
    frequency = part * min(rate, 16000) / 2
    n = rate // 2
    output = resample(sine(frequency, rate, n).astype(np.float32), rate)
    expected = steady(sine(frequency, 16000, len(output)), rate)
    output = steady(output, rate)
    gain = output @ expected / (expected @ expected)
    assert abs(db(gain)) < 0.05
    # The rest holds what is in quadrature, too: a shift in time.
    assert db(rms(output - gain * expected) / rms(expected)) < -90


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate > 16000])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 1.0])
def test_stop_band_when_going_down(rate, part):
    """Everything from 8 kHz to the input's Nyquist is gone, by the 100 dB that the filter is designed for: what were
    left of it would be an alias."""
    frequency = 8000 + part * (rate / 2 - 8000)
    output = steady(resample(sine(frequency, rate, rate // 2).astype(np.float32), rate), rate)
    assert db(rms(output) * np.sqrt(2)) < -100


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate < 16000])
@pytest.mark.parametrize("part", [0.5, 0.9, 0.95, 0.99])
def test_images_when_going_up(rate, part):
    """Nothing above the input's Nyquist, also for the transition band, where the sine's own gain is free: whatever is
    left after the best fit of that sine."""
    frequency = part * rate / 2
    output = steady(resample(sine(frequency, rate, rate // 2).astype(np.float32), rate), rate)
    phase = 2 * np.pi * frequency * np.arange(len(output)) / 16000
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    rest = output - basis @ np.linalg.lstsq(basis, output, rcond=None)[0]
    assert db(rms(rest) * np.sqrt(2)) < -90


@pytest.mark.parametrize("rate", [*RATES, 1000, 1_000_000, 999_999])
def test_a_constant_stays_constant(rate):
    """Gain 1 at 0 Hz for every output, as each output's weights are divided by their sum. What is left is the rounding
    of float32 sums of up to 8,000 products: measured 1.1e-6 of 0.5."""
    n = rate // 4 if rate > 8000 else rate
    output = steady(resample(np.full(n, 0.5, np.float32), rate), rate)
    assert np.abs(output - 0.5).max() < 3e-6


@pytest.mark.parametrize("rate", RATES)
def test_a_pulse_stays_where_it_was(rate):
    """By symmetry: a pulse at 1 s, an instant that all rates have, comes out symmetric about its peak at 1 s."""
    pulse = np.zeros(2 * rate, np.float32)
    pulse[rate] = 1
    output = resample(pulse, rate)
    assert np.argmax(output) == 16000
    np.testing.assert_allclose(output[16000:16200], output[15801:16001][::-1], atol=1e-7)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 3000), st.integers(1000, 1_000_000))
def test_length(n, rate):
    """By formula: ceil(n * 16000 / rate), in integers."""
    output = resample(np.zeros(n, np.float32), rate)
    assert output.dtype == np.float32
    assert output.shape == ((n * 16000 + rate - 1) // rate,)


@pytest.mark.parametrize("rate", RATES)
def test_blocks_do_not_show(rate, monkeypatch):
    """One block or many: the same but for the order in which BLAS adds up, 1e-6 or -120 dB."""
    samples = np.random.default_rng(0).uniform(-1, 1, 2 * rate + 17).astype(np.float32)
    whole = resample(samples, rate)
    monkeypatch.setattr(sys.modules["cohere_lite.resample"], "_BLOCK_VALUES", 3000)
    np.testing.assert_allclose(resample(samples, rate), whole, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 44100, 12345])
def test_it_is_linear_and_shifts_with_its_input(rate):
    """By definition of a filter. The shift is by a whole number of samples at both rates (1 s)."""
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, rate)).astype(np.float32)
    np.testing.assert_allclose(resample(a + 2 * b, rate), resample(a, rate) + 2 * resample(b, rate), atol=3e-6)
    later = resample(np.concatenate([np.zeros(rate, np.float32), a]), rate)[16000:]
    np.testing.assert_allclose(later, resample(a, rate), atol=1e-6)


def test_16_khz_comes_back_itself():
    samples = np.ones(10, np.float32)
    assert Resampler(16000).push(samples) is samples


@pytest.mark.parametrize("rate", [0, -8000, 999, 1_000_001, 2**32 - 1, 16000.5, nan, inf])
def test_rates_that_are_none(rate):
    with pytest.raises(AudioError, match=f"{rate} Hz; supported: 1000 to 1000000"):
        resample(np.zeros(10, np.float32), rate)


# Piece by piece


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([8000, 11025, 16000, 16001, 44100, 48000, 1_000_000]),
    st.lists(st.integers(0, 40_000), max_size=8),
    st.integers(0, 40_000),
)
def test_cuts_do_not_show(rate, cuts, n):
    """Pieces of any size, empty ones too: the samples of the whole but for the order in which BLAS adds up."""
    samples = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    found, whole = resample(samples, rate, [min(cut, n) for cut in cuts]), resample(samples, rate)
    assert (found.dtype, found.shape) == (np.float32, whole.shape)
    np.testing.assert_allclose(found, whole, atol=3e-6)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_sample_by_sample(rate):
    samples = np.random.default_rng(0).uniform(-1, 1, 3000).astype(np.float32)
    np.testing.assert_allclose(resample(samples, rate, range(3000)), resample(samples, rate), atol=3e-6)


@pytest.mark.parametrize(("rate", "period"), [(8000, 64), (44100, 160), (48000, 64), (16001, 16000)])
def test_outputs_come_as_soon_as_their_period_is_complete(rate, period):
    """By formula: the filter reaches 64.1 samples of the lower rate ahead, and a period begins where the last one
    ended; so of n samples no more is kept back than a period and that reach."""
    resampler = Resampler(rate)
    n_out = 0
    for n in range(1000, 60_000, 1000):
        n_out += len(resampler.push(np.zeros(1000, np.float32)))
        assert n * 16000 / rate - n_out < period + 67 * 16000 / min(rate, 16000)


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 16001])
def test_what_is_held_stays_small(rate):
    """By formula: no more than the input of a period (1 s at most) and of the filter's length, 2 * 64.1 samples of the
    lower rate, and the piece."""
    resampler = Resampler(rate)
    piece = np.zeros(rate // 10, np.float32)
    for _ in range(25):
        resampler.push(piece)
        held = [value.size for value in vars(resampler).values() if isinstance(value, np.ndarray)]
        assert sum(held) <= rate + 130 * max(rate / 16000, 1) + len(piece)


def test_memory_of_one_large_piece():
    """By design: beyond a copy of the piece and its result, 25 MB whatever its length: 5 minutes here."""
    piece, resampler = np.zeros(300 * 44100, np.float32), Resampler(44100)
    tracemalloc.start()
    try:
        result = resampler.push(piece)
        assert tracemalloc.get_traced_memory()[1] < piece.nbytes + result.nbytes + 25_000_000
    finally:
        tracemalloc.stop()


def test_pushed_samples_may_be_overwritten():
    """As a recorder does that fills the same array again and again."""
    samples = np.random.default_rng(0).uniform(-1, 1, 4410).astype(np.float32)
    resampler, buffer, parts = Resampler(44100), np.empty(10, np.float32), []
    for i in range(0, 4410, 10):
        buffer[:] = samples[i : i + 10]
        parts.append(resampler.push(buffer))
    np.testing.assert_allclose(np.concatenate([*parts, resampler.finish()]), resample(samples, 44100), atol=3e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_nothing_in_nothing_out(rate):
    resampler = Resampler(rate)
    assert resampler.push(np.zeros(0, np.float32)).shape == resampler.finish().shape == (0,)


@pytest.mark.reference
@pytest.mark.parametrize("rate", RATES)
def test_agrees_with_soxr(rate):
    """soxr VHQ on noise below 0.85 of the lower Nyquist, which both leave alone. The limit is soxr's pass band: from
    44.1 and 22.05 kHz it loses 0.004 dB at 6.8 kHz, hence -79 dB; from 48 kHz the two are 120 dB apart."""
    soxr = pytest.importorskip("soxr")
    n = 2 * rate
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(n))
    spectrum[np.fft.rfftfreq(n, 1 / rate) > 0.85 * min(rate, 16000) / 2] = 0
    samples = (np.fft.irfft(spectrum, n) * 0.1).astype(np.float32)
    ours, theirs = resample(samples, rate), soxr.resample(samples, rate, 16000, quality="VHQ")
    length = min(len(ours), len(theirs))
    middle = slice(2000, length - 2000)
    assert abs(len(ours) - len(theirs)) <= 1
    assert db(rms(ours[middle] - theirs[middle]) / rms(theirs[middle])) < -75


def test_channels_share_their_weights():
    """41 MB each at odd rates, otherwise."""
    assert Resampler(47999)._weights is Resampler(47999)._weights


@pytest.mark.parametrize(("rate", "n_groups"), [(47_999, 250), (999_999, 1)])
def test_kept_weights_stay_small(rate, n_groups):
    """By design: 40 MB of float32; up to 48 kHz those of a whole period, 16,000 outputs or 250 groups of 64."""
    weights = Resampler(rate)._weights
    n_kept = weights.cache_info().maxsize
    assert n_kept >= n_groups
    assert n_kept * weights(0, 64)[1].nbytes <= 40_000_000
