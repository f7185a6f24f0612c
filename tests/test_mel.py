"""Log-mel features: recorded and live numbers of the reference, and formulas.

Bugs these catch: periodic instead of symmetric Hann, reflected padding, HTK mel scale, no area norm, a mean over the
masked frame, N instead of N - 1, dither left out, unseeded or from other bits, its last 16 values not redrawn.
"""

from pathlib import Path

import numpy as np
import pytest

from cohere_lite.mel import _normal, log_mel, mel_filterbank

GOLDEN = np.load(Path(__file__).parent / "golden" / "mel.npz")  # made by tools/golden.py; see manifest.json beside it

# Largest and mean difference allowed from the reference, over all bins and frames. A feature is
# (log - mean) / (std + 1e-5), so rounding in the log, one unit being 1.9e-6 at log(2**-24) = -16.6, grows with 1 / std.
# - Signals: std is 1 to 4. Measured on 25 clips of 30 s of white noise: at most 4.1e-4. From a float64 calculation ours
#   is at most 0.9e-4 away, the reference 3.6e-4; the worst are bins that hold almost nothing in one frame.
# - Faint: the low bins are near the guard 2**-24 and have std 1e-3. Measured: at most 6e-3, mean 6e-5.
# - Silence: only dither, and in the low bins that is 1e-5 of the guard: std 8e-6, so one unit of rounding is 0.1.
#   Measured: at most 0.32, mean 5e-3. With other dither the mean difference is 1.
SIGNAL, FAINT, SILENCE = (5e-4, 1e-5), (1e-2, 2e-4), (0.6, 1e-2)


def check(features, expected, tolerance):
    assert features.shape == expected.shape
    assert features.dtype == expected.dtype == np.float32
    difference = np.abs(features - expected)
    assert difference.max() <= tolerance[0]
    assert difference.mean() <= tolerance[1]


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("speech", SIGNAL),
        ("music", SIGNAL),
        ("noise", SIGNAL),
        ("short", SIGNAL),
        ("faint", FAINT),
        ("silence", SILENCE),
    ],
)
def test_golden(case, tolerance):
    samples = GOLDEN[f"{case}.samples"].astype(np.float32) / 32768
    check(log_mel(samples), GOLDEN[f"{case}.features"], tolerance)


def test_golden_thirty_seconds():
    """Every 37th frame; the rule for the input is in manifest.json."""
    samples = np.resize(GOLDEN["speech.samples"], 480_000).astype(np.float32) / 32768
    check(log_mel(samples)[:, ::37], GOLDEN["thirty_seconds.features"], SIGNAL)


@pytest.mark.parametrize("n", [160, 161, 175, 176_015])
def test_dither_is_torch_randn(n):
    """Recorded from torch: the first and last 48 values. 1e-6: two units in the last place of the largest, about 5."""
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


@pytest.mark.parametrize("n", [320, 479, 480, 16_000, 16_159, 480_000])
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
    np.testing.assert_allclose(features.std(axis=1, ddof=1, dtype=np.float64), 1, atol=2e-3)


def test_a_tone_is_in_the_bin_around_its_frequency():
    """By formula: 1 kHz, on for the middle frames only, stands out most in the triangle with its peak nearest 1 kHz."""
    n = np.arange(16_000)
    tone = np.where((n >= 4_000) & (n < 12_000), 0.1 * np.sin(2 * np.pi * 1_000 / 16_000 * n), 0).astype(np.float32)
    noise = 1e-3 * np.random.RandomState(0).standard_normal(16_000).astype(np.float32)
    difference = log_mel(tone + noise)[:, 50] - log_mel(noise)[:, 50]
    nearest = int(np.argmin(np.abs(slaney_corners()[1:-1] - 1_000)))
    assert abs(int(np.argmax(difference)) - nearest) <= 1


def slaney_corners():
    """130 points in Hz, even on Slaney's scale from 0 to 8000 Hz: 15 mels up to 1 kHz, 27 for each factor of 6.4 after."""
    last = 15 + 27 * np.log(8) / np.log(6.4)
    return np.array([200 / 3 * m if m < 15 else 1000 * 6.4 ** ((m - 15) / 27) for m in np.arange(130) * last / 129])


def test_filterbank_triangles():
    """By formula: bin k is 31.25 k Hz; row i rises from corner i to 2 / width at corner i + 1, and falls to corner i + 2."""
    filterbank, corners = mel_filterbank(), slaney_corners()
    assert filterbank.shape == (128, 257)
    assert filterbank.dtype == np.float32
    for row, low, centre, high in zip(filterbank, corners[:-2], corners[1:-1], corners[2:], strict=True):
        expected = np.interp(np.arange(257) * 31.25, [low, centre, high], [0, 2 / (high - low), 0])
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-8)


def test_filterbank_area():
    """By formula: a triangle of height 2 / width has area 1. Sampled every 31.25 Hz, wide ones keep it within 1 %."""
    np.testing.assert_allclose(mel_filterbank()[100:].sum(axis=1) * 31.25, 1, atol=1e-2)


def test_filterbank_is_made_once_and_read_only():
    assert mel_filterbank() is mel_filterbank()
    with pytest.raises(ValueError, match="read-only"):
        mel_filterbank()[0, 0] = 1


@pytest.fixture(scope="module")
def extractor():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers").CohereAsrFeatureExtractor()


def reference(extractor, samples):
    features = extractor(samples, sampling_rate=16_000, return_tensors="np")
    return features["input_features"][0][features["attention_mask"][0] == 1].T


@pytest.mark.reference
def test_filterbank_is_the_reference_to_the_last_bit(extractor):
    np.testing.assert_array_equal(mel_filterbank(), extractor.mel_filters.numpy())


# 2 to 5 frames, the ends of a window, n % 16 = 0, 1, 15, the ends of a block of 128 frames, 30 s, and 12 at random.
LENGTHS = [320, 321, 335, 399, 400, 401, 479, 480, 799, 800, 20_479, 20_480, 20_481, 20_640, 479_999, 480_000]
LENGTHS += np.random.RandomState(0).randint(320, 480_000, 12).tolist()


@pytest.mark.reference
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(
    ("signal", "tolerance"),
    [("speech", SIGNAL), ("music", SIGNAL), ("noise", SIGNAL), ("faint", FAINT), ("silence", SILENCE)],
)
def test_live_reference(extractor, signal, tolerance, n):
    random = np.random.RandomState(n)
    if signal == "noise":
        samples = 0.1 * random.standard_normal(n).astype(np.float32)
    elif signal == "faint":
        samples = 1e-4 * random.standard_normal(n).astype(np.float32)
    else:
        samples = np.resize(GOLDEN[f"{signal}.samples"], n).astype(np.float32) / 32768
    check(log_mel(samples), reference(extractor, samples), tolerance)
