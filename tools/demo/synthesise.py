"""Speech from espeak-ng, and what rooms, telephones and neighbours do to it.

Needs the program espeak-ng (1.51 used) and NumPy.  Everything random comes from generators the caller seeds.
"""

import io
import subprocess
import wave
from random import Random

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz
ESPEAK_RATE = 22_050  # Hz, what espeak-ng writes
_BLOCK_IN, _BLOCK_OUT = 441, 320  # ESPEAK_RATE : SAMPLE_RATE in lowest terms

ACCENTS = {
    "en": ["en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland"],
    "de": ["de"],
    "fr": ["fr-fr", "fr-be", "fr-ch"],
    "es": ["es", "es-419"],
}

# `espeak-ng --voices=variant` without whispers, croaks, robots and effects, under their file names: espeak-ng answers
# an unknown variant, or one in the wrong case, with the plain voice.  The held-out ones are never trained on.
HELD_OUT_VOICES = ["f3", "Alicia", "linda", "steph2", "m4", "Michael", "paul", "Denis"]  # four female, four male
_TRAINING_VOICES = """
    f1 f2 f4 f5 Andrea anika aunty belinda grandma steph steph3 adam Alex Andy antonio benjamin boris david
    Diogo ed edward edward2 Gene Gene2 grandpa gustave Henrique Hugo iven iven2 iven3 iven4 Jacky john kaukovalta klatt
    klatt2 klatt3 klatt4 Lee marcelo Marco Mario max m1 m2 m3 m5 m6 m7 m8 michel miguel Nguyen norbert pablo pedro
    quincy RicishayMax rob robert sandro shelby travis victor zac
"""
TRAINING_VOICES = _TRAINING_VOICES.split()
TRAINING_RATES = (125, 225)  # words a minute
TRAINING_PITCHES = (20, 80)  # espeak's scale, 0-99
HELD_OUT_RATES = (145, 200)
HELD_OUT_PITCHES = (35, 65)

_TIMEOUT = 30  # seconds; a sentence takes about 10 ms


def speak(text: str, accent: str, voice: str, rate: int, pitch: int) -> Samples:
    """`text` spoken by espeak-ng: float32 (n,), 16 kHz, -1..1."""
    command = ["espeak-ng", "-v", f"{accent}+{voice}", "-s", str(rate), "-p", str(pitch), "--stdout", "--stdin"]
    data = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=_TIMEOUT).stdout
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, ESPEAK_RATE)
        # espeak-ng cannot know the length when it writes the header to a pipe, so ask for more than there can be
        pcm = np.frombuffer(file.readframes(ESPEAK_RATE * 120), "<i2")
    return to_16_khz(pcm.astype(np.float32) / np.float32(32768))


def to_16_khz(samples: Samples) -> Samples:
    """22,050 Hz to 16,000 Hz by cutting the spectrum at 8 kHz; espeak-ng's speech has next to nothing there."""
    blocks = -(-len(samples) // _BLOCK_IN)
    n_out = blocks * _BLOCK_OUT
    spectrum = np.fft.rfft(samples, blocks * _BLOCK_IN)[: n_out // 2 + 1]
    return (np.fft.irfft(spectrum, n_out) * (_BLOCK_OUT / _BLOCK_IN)).astype(np.float32)


def random_voice(language: str, rng: Random, held_out: bool = False) -> dict:
    """Random arguments for `speak`, apart from the text."""
    return {
        "accent": rng.choice(ACCENTS[language]),
        "voice": rng.choice(HELD_OUT_VOICES if held_out else TRAINING_VOICES),
        "rate": rng.randint(*(HELD_OUT_RATES if held_out else TRAINING_RATES)),
        "pitch": rng.randint(*(HELD_OUT_PITCHES if held_out else TRAINING_PITCHES)),
    }


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def noise(kind: str, n: int, rng: np.random.Generator, babble: Samples) -> Samples:
    """n samples of "white" or "pink" noise, or of "babble": a random part of the recording given."""
    if kind == "babble":
        start = rng.integers(len(babble))
        return np.resize(np.roll(babble, -start), n)
    if kind == "white":
        return rng.standard_normal(n).astype(np.float32)
    spectrum = np.fft.rfft(rng.standard_normal(n))  # pink: power falls with 1 / frequency
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), n).astype(np.float32)


def add_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Speech plus noise, the power of the whole recording `snr_db` above that of the noise."""
    power = np.mean(samples**2) / max(float(np.mean(noise**2)), 1e-12)
    return samples + noise * np.float32(np.sqrt(power / 10 ** (snr_db / 10)))


def reverberate(samples: Samples, rt60: float, rng: np.random.Generator) -> Samples:
    """A room: the direct sound, then noise that falls by 60 dB in `rt60` seconds."""
    time = np.arange(round(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    response *= rng.uniform(0.3, 1.0) / np.sqrt(np.sum(response**2))
    response[0] = 1
    n = 1 << (len(samples) + len(response)).bit_length()  # a power of two: a long prime length would be slow
    return np.fft.irfft(np.fft.rfft(samples, n) * np.fft.rfft(response, n), n)[: len(samples)].astype(np.float32)


def telephone(samples: Samples) -> Samples:
    """Only 300-3400 Hz."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def augment(samples: Samples, rng: np.random.Generator, babble: Samples) -> Samples:
    """One random recording condition other than perfect."""
    if rng.random() < 0.4:
        samples = reverberate(samples, rng.uniform(0.1, 0.6), rng)
    if rng.random() < 0.75:
        kind = rng.choice(["white", "pink", "babble"])
        samples = add_noise(samples, noise(kind, len(samples), rng, babble), rng.uniform(0, 30))
    if rng.random() < 0.15:
        samples = telephone(samples)
    return samples


def at_peak(samples: Samples, peak: float) -> Samples:
    return samples * np.float32(peak / max(float(np.abs(samples).max()), 1e-9))
