"""Recordings without speech, which the model must answer with nothing: silence, noises, music, beeps, clicks."""

from collections.abc import Callable

import numpy as np

from .acoustics import NOISES, SAMPLE_RATE, Samples, at_peak, noise

PEAK_DB = (-70, -3)
SECONDS = (0.3, 8)


def no_speech(rng: np.random.Generator) -> Samples:
    """One random recording, float32 (n,), 16 kHz."""
    n = round(rng.uniform(*SECONDS) * SAMPLE_RATE)
    kinds: list[Callable[[int, np.random.Generator], Samples]] = [_silence, _noise, _noise, _music, _music]
    kind = rng.choice(np.array([*kinds, _beeps, _beeps, _clicks]))
    samples = at_peak(kind(n, rng), 10 ** (rng.uniform(*PEAK_DB) / 20))
    if rng.random() < 0.5:  # nowhere is it quite still
        samples = samples + rng.standard_normal(n, np.float32) * np.float32(10 ** rng.uniform(-5, -3))
    return samples


def _silence(n: int, rng: np.random.Generator) -> Samples:
    return np.zeros(n, np.float32)


def _noise(n: int, rng: np.random.Generator) -> Samples:
    kind = str(rng.choice([*NOISES, "hum"]))
    swell = 1 + rng.uniform(0, 0.9) * np.sin(_phase(n, rng.uniform(0.1, 3)))  # wind, waves, traffic
    return (noise(kind, n, rng, np.zeros(1, np.float32)) * swell).astype(np.float32)


def _music(n: int, rng: np.random.Generator) -> Samples:
    """Chords or arpeggios of a random instrument, half of the time with drums."""
    beat = round(rng.uniform(0.15, 0.8) * SAMPLE_RATE)
    root, scale = rng.uniform(80, 400), np.array([0, 2, 4, 5, 7, 9, 11, 12])  # Hz; semitones
    harmonics = rng.exponential(1 / np.arange(1, 7))
    together = rng.choice([1, 3])  # notes
    samples = np.zeros(n, np.float32)
    for start in range(0, n, beat):
        time = np.arange(min(n - start, beat)) / SAMPLE_RATE
        fade = np.exp(-time * rng.uniform(1, 8)) * np.minimum(1, time / 0.01)
        for semitone in rng.choice(scale, together, replace=False):
            hertz = root * 2 ** (semitone / 12) * np.arange(1, 7)[:, None]
            samples[start : start + len(time)] += harmonics @ np.sin(2 * np.pi * hertz * time) * fade
    if rng.random() < 0.5:
        samples = at_peak(samples, 0.5) + at_peak(_bursts(n, beat, rng), rng.uniform(0.1, 0.7))
    return samples


def _bursts(n: int, every: int, rng: np.random.Generator) -> Samples:
    """Drums: short noise at every beat."""
    time = np.arange(n) % every / SAMPLE_RATE
    return (rng.standard_normal(n) * np.exp(-time * rng.uniform(20, 100))).astype(np.float32)


def _beeps(n: int, rng: np.random.Generator) -> Samples:
    """A tone that goes on and off, or between two pitches."""
    low, high = rng.uniform(200, 3000, 2)
    on = np.sin(_phase(n, rng.uniform(0.5, 5))) > rng.uniform(-0.7, 0.7)
    tone = np.sin(_phase(n, low))
    other = np.sin(_phase(n, high)) if rng.random() < 0.3 else 0
    return np.where(on, tone, other).astype(np.float32)


def _clicks(n: int, rng: np.random.Generator) -> Samples:
    """Keys, doors: some short bursts."""
    samples = np.zeros(n, np.float32)
    for start in rng.integers(0, n, rng.integers(1, 15)):
        length = min(n - start, int(rng.integers(10, 1500)))
        samples[start : start + length] += rng.standard_normal(length) * np.exp(-np.arange(length) / length * 5)
    return samples


def _phase(n: int, hertz: float) -> np.ndarray:
    return 2 * np.pi * hertz * np.arange(n) / SAMPLE_RATE
