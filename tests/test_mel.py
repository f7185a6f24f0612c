"""Log-mel features: recorded and live numbers of the reference, a float64 calculation, and formulas.

Bugs these catch: periodic instead of symmetric Hann, reflected padding, HTK mel scale, no area norm, a mean over the
masked frame, N instead of N - 1, dither left out, unseeded or from other bits, its last 16 values not redrawn.
"""

from pathlib import Path

import numpy as np
import pytest

from cohere_lite.mel import _normal, log_mel, mel_filterbank

GOLDEN = np.load(Path(__file__).parent / "golden" / "mel.npz")  # made by tools/golden.py; see manifest.json beside it


def golden_samples(case, n=None):
    """The stored signal, cut or repeated to n samples."""
    stored = GOLDEN[f"{case}.samples"]
    return np.resize(stored, len(stored) if n is None else n).astype(np.float32) / np.float32(32768)


def exact_log(samples):
    """The logarithms before normalisation in float64, from the definitions: (128, n // 160)."""
    dithered = samples + 1e-5 * _normal(len(samples)).astype(np.float64)
    emphasised = dithered - 0.97 * np.append(0, dithered[:-1])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    padded = np.pad(emphasised, 200)
    frames = np.stack([padded[start : start + 400] for start in range(0, len(samples) - 159, 160)])
    power = np.abs(np.fft.rfft(window * frames, 512)) ** 2
    return np.log(mel_filterbank().astype(np.float64) @ power.T + 2.0**-24)


def check(features, expected, samples, frames=slice(None)):
    """Everywhere within 5e-4 + 1e-5 / (std + 1e-5), where std is that of the bin's logarithm over the clip.

    The first term is for bins that hold almost nothing in a single frame, next to loud ones. Measured on 25 clips of
    30 s of white noise: at most 4.1e-4; from a float64 calculation we are 0.9e-4 away and the reference 3.6e-4.

    The second is rounding of the logarithm, one unit being 1.9e-6 near log(2**-24) = -16.6, made larger by the division
    by the std. That is 1 and more in speech, 1e-3 in the low bins of noise at 1e-4 of full scale. In digital silence
    there is only dither, in the low bins 1e-5 of the guard 2**-24, and the std is 8e-6: one unit becomes 0.1. Measured:
    at most 3 units, 0.32 for silence. (With no dither or other dither, silence is off by up to 8.)
    """
    std = exact_log(samples).std(axis=1, ddof=1, keepdims=True)
    assert features.shape == (128, len(samples) // 160)
    assert features.dtype == expected.dtype == np.float32
    assert features[:, frames].shape == expected.shape
    excess = np.abs(features[:, frames] - expected) - (5e-4 + 1e-5 / (std + 1e-5))
    assert excess.max() <= 0


@pytest.mark.parametrize("case", ["speech", "music", "noise", "short", "faint", "silence"])
def test_golden(case):
    samples = golden_samples(case)
    check(log_mel(samples), GOLDEN[f"{case}.features"], samples)


def test_golden_thirty_seconds():
    """Every 37th frame is stored; the samples are the speech, repeated."""
    samples = golden_samples("speech", 480_000)
    check(log_mel(samples), GOLDEN["thirty_seconds.features"], samples, frames=slice(None, None, 37))


@pytest.mark.parametrize("case", ["speech", "music", "noise", "faint", "silence"])
def test_float64(case):
    """By formula: the same steps in float64."""
    samples = golden_samples(case)
    exact = exact_log(samples)
    expected = (exact - exact.mean(axis=1, keepdims=True)) / (exact.std(axis=1, ddof=1, keepdims=True) + 1e-5)
    check(log_mel(samples), expected.astype(np.float32), samples)


@pytest.mark.parametrize("n", [160, 161, 175, 176_015])
def test_dither_is_torch_randn(n):
    """By record: the first and last 48 values. 1e-6 is two units in the last place of the largest, about 5."""
    normal = _normal(n)
    assert normal.shape == (n,)
    np.testing.assert_allclose(np.concatenate([normal[:48], normal[-48:]]), GOLDEN[f"dither.{n}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 159])
def test_under_one_hop_there_are_no_frames(n):
    assert log_mel(np.ones(n, np.float32)).shape == (128, 0)


@pytest.mark.parametrize("n", [160, 161, 319])
def test_one_frame_is_zeros(n):
    """By rule: one frame is its own mean. (The reference divides by n_frames - 1 = 0 there and gives NaN.)"""
    np.testing.assert_array_equal(log_mel(np.linspace(-1, 1, n, dtype=np.float32)), np.zeros((128, 1), np.float32))


@pytest.mark.parametrize("n", [1600, 1759, 1760, 480_000])
def test_frames_and_normalisation(n):
    """By formula: n // 160 frames; each bin has mean 0 and, with n_frames - 1, standard deviation 1."""
    noise = np.random.RandomState(n).standard_normal(n).astype(np.float32)
    before = noise.copy()
    features = log_mel(noise)
    np.testing.assert_array_equal(noise, before)
    assert features.shape == (128, n // 160)
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    np.testing.assert_allclose(features.mean(axis=1, dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=1, ddof=1, dtype=np.float64), 1, atol=1e-3)


def test_two_frames():
    """By formula: two values are 1 / sqrt(2) standard deviations from their mean; where they are alike the guard of
    1e-5 takes something off (measured: 0.4 %)."""
    features = log_mel(np.random.RandomState(0).standard_normal(320).astype(np.float32))
    np.testing.assert_allclose(np.abs(features), np.sqrt(0.5), rtol=1e-2)


def slaney_corners():
    """130 points in Hz, even on Slaney's scale from 0 to 8000 Hz: 15 mels to 1 kHz, then 27 for each factor of 6.4."""
    last = 15 + 27 * np.log(8) / np.log(6.4)
    return np.array([200 / 3 * m if m < 15 else 1000 * 6.4 ** ((m - 15) / 27) for m in np.arange(130) * last / 129])


def test_filterbank_triangles():
    """By formula: FFT bin k is 31.25 k Hz; row i is 0 at corners i and i + 2 and 2 / their distance at i + 1."""
    filterbank, corners = mel_filterbank(), slaney_corners()
    assert filterbank.shape == (128, 257)
    assert filterbank.dtype == np.float32
    for row, low, centre, high in zip(filterbank, corners[:-2], corners[1:-1], corners[2:], strict=True):
        expected = np.interp(np.arange(257) * 31.25, [low, centre, high], [0, 2 / (high - low), 0])
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-8)


def test_filterbank_area():
    """By formula: a triangle of height 2 / width has area 1, kept within 2 % by a sum over the wide ones' FFT bins."""
    np.testing.assert_allclose(mel_filterbank()[100:].sum(axis=1) * 31.25, 1, atol=2e-2)


def test_filterbank_is_made_once_and_read_only():
    assert mel_filterbank() is mel_filterbank()
    with pytest.raises(ValueError, match="read-only"):
        mel_filterbank()[0, 0] = 1


@pytest.fixture(scope="module")
def extractor():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers").CohereAsrFeatureExtractor()


@pytest.mark.reference
def test_filterbank_is_the_reference_to_the_last_bit(extractor):
    np.testing.assert_array_equal(mel_filterbank(), extractor.mel_filters.numpy())


# 2 to 5 frames, the ends of a window, n % 16 = 0, 1, 15, the ends of a block of 128 frames, 30 s, and 6 at random.
LENGTHS = [320, 321, 335, 399, 400, 401, 479, 480, 799, 800, 20_479, 20_480, 20_481, 20_640, 479_999, 480_000]
LENGTHS += np.random.RandomState(0).randint(320, 480_000, 6).tolist()


@pytest.mark.reference
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("signal", ["speech", "music", "noise", "faint", "silence"])
def test_live_reference(extractor, signal, n):
    if signal in ("noise", "faint"):
        noise = np.random.RandomState(n).standard_normal(n).astype(np.float32)
        samples = noise * np.float32(0.1 if signal == "noise" else 1e-4)
    else:
        samples = golden_samples(signal, n)
    reference = extractor(samples, sampling_rate=16_000, return_tensors="np")
    check(log_mel(samples), reference["input_features"][0][reference["attention_mask"][0] == 1].T, samples)
