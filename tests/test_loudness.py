"""What is skipped as silent: nothing that espeak says, all noise that is steady; loudness by formula."""

import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohere_lite.cut import Chunks
from cohere_lite.extras.loudness import Loudness, holds_speech
from cohere_lite.extras.phrases import Pauses, Phrases

SECOND = 16_000
FRAME = 320  # samples, 20 ms
LANGUAGES = ("de", "en", "es", "fr")
NOISES = {"white": 0.0, "pink": -0.5, "brown": -1.0}  # slope of the amplitude over frequency

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")


def levels(*pieces):
    """(loudness, floor) of the last piece's frames."""
    loudness = Loudness()
    return [loudness.push(np.asarray(piece, np.float32)) for piece in pieces][-1]


def sine(seconds, hz, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * hz / SECOND * np.arange(round(seconds * SECOND)))


def noise(seconds, kind="white", rms=0.01, seed=0):
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(round(seconds * SECOND)))
    hz = np.linspace(0, SECOND / 2, len(spectrum))
    samples = np.fft.irfft(spectrum * np.maximum(20, hz) ** NOISES[kind])
    return samples * rms / np.sqrt(np.mean(samples**2))


# Loudness and floor


@pytest.mark.parametrize("hz", [400, 1000, 1234.5, 3300])
def test_a_sine_in_the_band(hz):
    """By formula: the mean square of a full-scale sine is 1/2, -3.01 dB; in the first 4 frames it is not known."""
    loudness = levels(sine(1, hz))[:, 0]
    assert np.isnan(loudness[:4]).all()
    assert loudness[4:] == pytest.approx(10 * np.log10(0.5), abs=0.05)


@pytest.mark.parametrize(("hz", "at_most"), [(50, -120), (60, -60), (100, -120), (5000, -80), (0, -120)])
def test_a_sine_out_of_the_band(hz, at_most):
    """By formula: a Hann window over whole periods lets nothing through at other multiples of 25 Hz but the rounding of
    float32; at 60 Hz, 9.6 bins from the band, sin(9.6 pi) / (9.6 pi (9.6^2 - 1)) of the amplitude: -70 dB."""
    samples = sine(1, hz) if hz else np.ones(SECOND)
    assert levels(samples)[4:, 0].max() < at_most


def test_white_noise():
    """By formula: of 0..8000 Hz, the band has 125 bins of 25 Hz."""
    assert levels(noise(60))[4:, 0].mean() == pytest.approx(-40 + 10 * np.log10(125 * 25 / 8000), abs=0.05)


def test_silence():
    """By formula: 1e-20 is added before the logarithm."""
    assert levels(np.zeros(SECOND))[4:, 0] == pytest.approx(-200)


def test_a_click_is_heard_for_five_frames():
    """By hand: in frame 50, so in the windows of two frames that end in 50 and 51, each in 4 means."""
    samples = np.zeros(2 * SECOND)
    samples[50 * FRAME + 100] = 0.5
    assert np.flatnonzero(levels(samples)[:, 0] > -90).tolist() == [50, 51, 52, 53, 54]


def test_floor():
    """By hand: unknown for 100 frames, then the quietest of the last 500. The loud tone begins in frame 150; the last
    loudness without it is 149's, the first with nothing else is 154's."""
    quiet, loud = 10 * np.log10(0.5) - 40, 10 * np.log10(0.5) - 20
    floor = levels(np.concatenate([sine(3, 1000, 0.01), sine(15, 1000, 0.1)]))[:, 1]
    assert np.isneginf(floor[:100]).all()
    assert floor[100:649] == pytest.approx(quiet, abs=0.05)
    assert floor[654:] == pytest.approx(loud, abs=0.05)


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 3) | st.integers(1, 4 * SECOND), max_size=40))
def test_levels_do_not_depend_on_how_samples_are_pushed(sizes):
    """By construction, to the last bit."""
    samples = (noise(15) * np.repeat([1, 1e-3, 30, 0, 1], 3 * SECOND)).astype(np.float32)
    loudness = Loudness()
    pushed = [loudness.push(block) for block in np.split(samples, np.cumsum(sizes))]
    assert np.array_equal(np.concatenate(pushed), levels(samples), equal_nan=True)
    assert len(levels(samples)) == 15 * 50


# Speech


def holds(*pieces):
    """Of each piece of a recording, whether it holds speech."""
    loudness = Loudness()
    return [holds_speech(loudness.push(np.asarray(piece, np.float32))) for piece in pieces]


def trimmed(samples):
    audible = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[audible[0] : audible[-1] + 1]


@pytest.mark.slow
@needs_espeak
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_recording_is_skipped(language):
    """By construction, all 400 held-out recordings: at the level they have and 40 dB lower in 16 bits, with and without
    their silent margins, whole and in halves."""
    from tools.demo.heldout import heldout

    for samples, text, _ in heldout(language):
        for level in (samples, np.round(samples * 327.68) / 32768):
            for part in (level, trimmed(level)):
                assert holds(part) == [True], text
                assert holds(*np.array_split(part, 2)) == [True, True], text


@pytest.mark.slow
@needs_espeak
@pytest.mark.parametrize("kind", ["white", "pink", "babble"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_recording_in_noise_is_skipped(language, kind):
    """By construction, of every language's first 25 recordings (all 100 have been tried): with noise 20, 10 and 5 dB
    below the speech, by themselves and after 3 s of that noise, by when it is known; trimmed, and in halves."""
    from tools.demo.heldout import heldout, make_babble

    babble = make_babble(language) if kind == "babble" else None
    for i, (samples, text, _) in enumerate(heldout(language, 25)):
        speech = trimmed(samples)
        background = babble[i * FRAME :] if kind == "babble" else noise(10, kind, seed=i)
        background = background[: 3 * SECOND + len(speech)] * np.sqrt(np.mean(speech**2) / np.mean(background**2))
        for snr_db in (20, 10, 5):
            before, during = np.split(background * 10 ** (-snr_db / 20), [3 * SECOND])
            halves = np.array_split(speech + during, 2)
            assert holds(speech + during) == [True], text
            assert holds(*halves) == [True, True], text
            assert holds(before, *halves)[1:] == [True, True], text


@pytest.mark.slow
@needs_espeak
def test_short_words_and_whispers():
    """By construction: single words of espeak's voices, two whispering ones among them, trimmed, after 3 s of noise
    10 dB below them; and 60 dB lower by themselves."""
    from tools.demo.synthesisers import espeak

    for voice in ("m4", "f3", "paul", "linda", "whisper", "whisperf", "croak"):
        for word in ("no", "five", "six", "stop", "eight", "a"):
            speech = trimmed(espeak(word, accent="en-us", voice=voice, rate=175, pitch=50))
            assert holds(speech * 1e-3) == [True]
            background = noise(5, rms=np.sqrt(np.mean(speech**2) / 10))
            assert holds(background[: 3 * SECOND], speech + background[-len(speech) :])[1], (voice, word)


# Noise


def pieces(samples):
    """As transcribe makes them: chunks of 30 s, chunks of 10 s, phrases."""
    for cutter in (Chunks(30), Chunks(10), Phrases(Pauses())):
        yield cutter.push(samples.astype(np.float32)) + cutter.finish()


def hum(seconds):
    """50 Hz and its harmonics, which reach into the band."""
    return sum(sine(seconds, 50 * k, 0.01 / k) for k in range(1, 30)) + noise(seconds, rms=1e-4)


STEADY = {
    "zeros": lambda seed: np.zeros(95 * SECOND),
    "offset": lambda seed: np.full(95 * SECOND, 0.1),
    "dither": lambda seed: np.round(np.random.default_rng(seed).triangular(-1, 0, 1, 95 * SECOND)) / 32768,
    "dither-after-zeros": lambda seed: np.concatenate([np.zeros(9 * SECOND), STEADY["dither"](seed)]),
    "rounding": lambda seed: np.round(sine(95, 50, 0.3) * 32768) / 32768,
    "8-bit": lambda seed: np.round(noise(95, rms=0.004, seed=seed) * 128) / 128,
    "hum": lambda seed: hum(95),
    "white": lambda seed: noise(95, "white", seed=seed),
    "pink": lambda seed: noise(95, "pink", seed=seed),
    "brown": lambda seed: noise(95, "brown", seed=seed),
}


@pytest.mark.parametrize("kind", STEADY)
def test_steady_noise_is_skipped(kind):
    """By construction, all pieces of 95 s. By record also all of an hour of each noise; but not 2 % of the pieces of
    brown noise that swells by 0.8 dB at 7 Hz, as a fan's does."""
    for cut in pieces(STEADY[kind](seed=1)):
        assert len(cut) >= 3
        assert holds(*cut) == [False] * len(cut)


def test_short_recordings_of_noise_are_not_skipped():
    """By hand: for 2 s nobody knows whether it is noise. Digital silence is skipped, and less than 5 frames."""
    assert holds(noise(1.9)) == [True]
    assert holds(noise(2.1)) == [False]
    assert holds(np.zeros(1000)) == [False]
    assert holds(np.zeros(0)) == [False]
    assert holds(sine(0.0999, 1000)) == [False]
    assert holds(sine(0.1, 1000)) == [True]


def test_a_long_piece_takes_little_memory() -> None:
    """35 s: its windows all at once would take 18 MB as float64 and as complex128, and each of a
    service's files that are read at once so much."""
    samples = np.zeros(35 * 16000, np.float32)
    loudness = Loudness()
    tracemalloc.start()
    try:
        loudness.push(samples)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
