"""What speakers, microphones, rooms, lines and neighbours do to speech.  NumPy; soundfile for GSM alone.

Samples are float32 (n,) at 16 kHz; everything random comes from generators the caller seeds.
"""

import io

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz
NOISES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # the amplitude falls with frequency to this power

WARP, WARPED = (0.82, 1.22), 0.75  # how much faster it is played; the share of the recordings
TEMPO, STRETCHED = (0.85, 1.18), 0.3
MICROPHONES = 0.7
NARROW = 0.25  # share of the recordings that lose their treble
ROOMS = 0.4  # of those that are not clean, as the following
NOISY = 0.75
TELEPHONES = 0.15
CODECS = 0.15
CLIPPED = 0.03
SNR_DB = (0, 30)
RT60_SECONDS = (0.1, 0.7)
FLOOR_DB = (-100, -60)  # the noise that the best microphone has
PEAK_DB = (-30, -1)  # full scale is 0


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def at_peak(samples: Samples, peak: float) -> Samples:
    return samples * np.float32(peak / max(float(np.abs(samples).max()), 1e-9))


def resample(samples: Samples, rate_in: int, rate_out: int = SAMPLE_RATE) -> Samples:
    """By cutting or extending the spectrum; speech has next to nothing at the edge.  The end may get a few zeros."""
    divisor = int(np.gcd(rate_in, rate_out))
    block_in, block_out = rate_in // divisor, rate_out // divisor
    blocks = -(-len(samples) // block_in)
    n_out = blocks * block_out
    spectrum = np.fft.rfft(samples, blocks * block_in)[: n_out // 2 + 1]
    return (np.fft.irfft(spectrum, n_out) * (block_out / block_in)).astype(np.float32)


# The speaker


def warp(samples: Samples, ratio: float) -> Samples:
    """Played `ratio` times as fast: pitch, formants and tempo go up by it, as from a man to a woman to a child."""
    n = round(len(samples) / ratio)
    if ratio > 1:  # what would be above 8 kHz
        samples = _filtered(samples, lambda hertz: hertz < SAMPLE_RATE / 2 / ratio)
    return np.interp(np.arange(n) * ratio, np.arange(len(samples)), samples).astype(np.float32)


def stretch(samples: Samples, tempo: float) -> Samples:
    """`tempo` times as fast at the same pitch: overlapping pieces, each where it fits the one before (WSOLA)."""
    width, step, search = 512, 256, 128  # 32, 16 and 8 ms: a period of the lowest voice fits into the search
    n = round(len(samples) / tempo)
    pieces = -(-n // step)
    padded = np.concatenate([np.zeros(search, np.float32), samples, np.zeros(width + 2 * step + search, np.float32)])
    window = np.hanning(width + 1)[:-1].astype(np.float32)  # with its own half a width later it adds up to 1
    out = np.zeros((pieces + 1) * step, np.float32)
    expected = padded[search : search + width]
    for i in range(pieces):
        start = round(i * step * tempo)  # without the search; with it the piece begins at start + search
        around = padded[start : start + 2 * search + width]
        if len(around) < 2 * search + width:
            break
        shift = int(np.argmax(np.correlate(around, expected)))
        out[i * step : i * step + width] += around[shift : shift + width] * window
        expected = padded[start + shift + step : start + shift + step + width]
        if len(expected) < width:
            break
    return out[:n]


# The microphone and the line


def microphone(samples: Samples, rng: np.random.Generator) -> Samples:
    """A smooth random frequency response within about 10 dB, with less bass."""
    gains = rng.normal(0, 4, len(_KNOTS))
    gains[0] -= 10
    return _filtered(samples, lambda hertz: 10 ** (np.interp(hertz, _KNOTS, gains) / 20))


_KNOTS = np.array([0, 100, 250, 600, 1500, 3500, 6000, 8000])  # Hz


def narrow(samples: Samples, hertz: float) -> Samples:
    """Nothing above this frequency."""
    return _filtered(samples, lambda frequency: frequency < hertz)


def telephone(samples: Samples) -> Samples:
    """Only 300-3400 Hz."""
    return _filtered(samples, lambda hertz: (hertz >= 300) & (hertz <= 3400))


def mu_law(samples: Samples) -> Samples:
    """8 kHz, and 8 bits on G.711's curve."""
    low = np.clip(resample(samples, SAMPLE_RATE, 8000), -1, 1)
    bits = np.rint(127 * np.sign(low) * np.log1p(255 * np.abs(low)) / np.log(256)) / 127
    heard = np.sign(bits) * np.expm1(np.abs(bits) * np.log(256)) / 255
    return resample(heard.astype(np.float32), 8000)[: len(samples)]


def gsm(samples: Samples) -> Samples:
    """8 kHz, through GSM 06.10 (13 kbit/s)."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(resample(samples, SAMPLE_RATE, 8000), -1, 1), 8000, "GSM610", format="WAV")
    file.seek(0)
    heard, _ = soundfile.read(file, dtype="float32")
    heard = np.pad(heard, (0, max(0, len(samples) // 2 + 1 - len(heard))))
    return resample(heard, 8000)[: len(samples)]


def clipped(samples: Samples, gain: float) -> Samples:
    """Too loud by `gain` for what records it."""
    return np.clip(at_peak(samples, gain), -1, 1)


# The room and who else is in it


def reverberate(samples: Samples, rt60: float, rng: np.random.Generator) -> Samples:
    """A room: the direct sound, then noise that falls by 60 dB in `rt60` seconds."""
    time = np.arange(round(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    response *= rng.uniform(0.3, 1.0) / np.sqrt(np.sum(response**2))
    response[0] = 1
    n = _fft_length(len(samples) + len(response))
    response = response.astype(np.float32)
    return np.fft.irfft(np.fft.rfft(samples, n) * np.fft.rfft(response, n), n)[: len(samples)].astype(np.float32)


def noise(kind: str, n: int, rng: np.random.Generator, babble: Samples) -> Samples:
    """n samples of "white", "pink", "brown" noise, of mains "hum", or of "babble": a random part of the one given."""
    if kind == "babble":
        start = rng.integers(len(babble))
        return np.resize(np.roll(babble, -start), n)
    if kind == "hum":
        return _hum(n, rng)
    samples = rng.standard_normal(n, np.float32)
    if kind == "white":
        return samples
    spectrum = np.fft.rfft(samples)
    return np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** NOISES[kind], n).astype(np.float32)


def _hum(n: int, rng: np.random.Generator) -> Samples:
    """50 or 60 Hz and its harmonics: a tenth of a second repeats itself."""
    harmonics = np.arange(1, 12)
    mains = rng.choice([50, 60]) * harmonics[:, None]  # Hz
    phase = 2 * np.pi * mains * np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE + rng.uniform(0, 2 * np.pi, (11, 1))
    return np.resize(rng.exponential(1 / harmonics) @ np.sin(phase), n).astype(np.float32)


def add_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Speech plus noise, the power of the whole recording `snr_db` above that of the noise."""
    power = np.mean(samples**2) / max(float(np.mean(noise**2)), 1e-12)
    return samples + noise * np.float32(np.sqrt(power / 10 ** (snr_db / 10)))


# All together


def another_speaker(samples: Samples, rng: np.random.Generator) -> Samples:
    """Another size of the same speaker, in another hurry."""
    if rng.random() < WARPED:
        samples = warp(samples, float(np.exp(rng.uniform(*np.log(WARP)))))
    if rng.random() < STRETCHED:
        samples = stretch(samples, rng.uniform(*TEMPO))
    return samples


def recorded(samples: Samples, rng: np.random.Generator, babble: Samples, clean: bool) -> Samples:
    """As a random microphone in a random place records it; clean: a quiet place, and no telephone."""
    if not clean and rng.random() < ROOMS:
        samples = reverberate(samples, rng.uniform(*RT60_SECONDS), rng)
    if not clean and rng.random() < NOISY:
        kind = str(rng.choice([*NOISES, "hum", "babble", "babble"]))
        samples = add_noise(samples, noise(kind, len(samples), rng, babble), rng.uniform(*SNR_DB))
    if rng.random() < MICROPHONES:
        samples = microphone(samples, rng)
    floor = 10 ** (rng.uniform(*FLOOR_DB) / 20)
    samples = at_peak(samples, 0.7) + rng.standard_normal(len(samples), np.float32) * np.float32(floor)
    if rng.random() < NARROW:
        samples = narrow(samples, rng.uniform(3300, 7000))
    if not clean and rng.random() < TELEPHONES:
        samples = telephone(samples)
    if not clean and rng.random() < CODECS:
        samples = gsm(samples) if rng.random() < 0.5 else mu_law(samples)
    if not clean and rng.random() < CLIPPED:
        samples = clipped(samples, rng.uniform(1.2, 4))
    return at_peak(samples, 10 ** (rng.uniform(*PEAK_DB) / 20))


def _filtered(samples: Samples, response) -> Samples:
    """response: frequencies in Hz to gains."""
    n = _fft_length(len(samples))
    gains = np.asarray(response(np.fft.rfftfreq(n, 1 / SAMPLE_RATE)), np.float32)
    return np.fft.irfft(np.fft.rfft(samples, n) * gains, n)[: len(samples)].astype(np.float32)


def _fft_length(n: int) -> int:
    """At least n, and 2**k or 3 * 2**k: a long prime length would be slow."""
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= n else power
