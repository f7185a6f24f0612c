"""What keeps a recording from being clean: noise, neighbours, rooms, the telephone. The rules are those by which the
demonstration model's training data were made (tools/demo/acoustics.py).

Everything random is seeded by the utterance and the condition: the same noise for every model, at every run; babble
in runs of the same draw, which it is made of.
"""

import hashlib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from ..mel import SAMPLE_RATE
from .errors import EvaluateError
from .layouts.layout import Utterance
from .sound import mono, read_sound

Samples = NDArray[np.float32]

_NOISES = ("white", "pink", "babble")
_KNOWN = (
    "white:DB, pink:DB, babble:DB (decibels of speech above noise; -100 to 100), room:SECONDS (until an echo is gone; "
    "up to 60), telephone"
)
_MOST_DB = 100  # 16 bits hold 96; thousands are powers that no number holds
_TELEPHONE_HZ = (300, 3400)  # the public network's band: ITU-T G.712
_LONGEST_ROOM_S = 60  # longer than any; a million would not fit into memory
_ECHO = 0.65  # of a room: the echo's amplitude (root of its energy) beside the direct sound's 1
_VOICES = 4  # that speak at once in babble
_POOL, _POOL_S = 12, 15.0  # recordings that babble is made of, and how much of each: 12 MB


class Condition(NamedTuple):
    """name: as it was asked for;  kind: "clean", "room", "telephone" or one of _NOISES;  level: decibels, of a room
    seconds."""

    name: str
    kind: str
    level: float


CLEAN = Condition("clean", "clean", 0.0)


def parse_conditions(text: str) -> list[Condition]:
    """ "white:10,room:0.5" -> clean, and these. Raises EvaluateError."""
    found = [CLEAN]
    for name in filter(None, (part.strip().lower() for part in text.split(","))):
        kind, _, number = name.partition(":")
        try:
            level = float(number or 0)
        except ValueError:
            level = np.nan
        takes_level = (kind in _NOISES and number and abs(level) <= _MOST_DB) or (
            kind == "room" and 0 < level <= _LONGEST_ROOM_S
        )
        if not (takes_level or name in ("telephone", "clean")) or not np.isfinite(level):
            raise EvaluateError(f"--noise {name!r} is not known; known are {_KNOWN}")
        found.append(Condition(f"{kind}:{level:g}" if takes_level else name, kind, level))
    return [*dict.fromkeys(found)]


class Babble:
    """Other utterances of a data set, talking at once."""

    def __init__(self, utterances: Iterable[Utterance]) -> None:
        self._utterances = utterances
        self._pool: list[tuple[Utterance, Samples]] = []

    def around(self, utterance: Utterance, n: int, rng: np.random.Generator) -> Samples:
        """n samples, in which neither the utterance is heard nor, where the data set says who speaks, its speaker.
        Raises AudioError if that leaves nothing to be heard."""
        if not self._pool:
            self._pool = [*islice(_readable(self._utterances), _POOL)]
        others = [samples for other, samples in self._pool if other.id != utterance.id]
        strangers = [samples for other, samples in self._pool if other.speaker != utterance.speaker]
        if not (voices := strangers or others):
            raise AudioError("there is no other recording to make babble of")
        chosen = rng.choice(len(voices), min(_VOICES, len(voices)), replace=False)
        talks = [np.resize(np.roll(voices[i], -rng.integers(len(voices[i]))), n) for i in chosen]
        return np.sum([talk / max(float(np.abs(talk).max()), 1e-9) for talk in talks], axis=0, dtype=np.float32)


def _readable(utterances: Iterable[Utterance]) -> Iterable[tuple[Utterance, Samples]]:
    for utterance in utterances:
        try:
            samples = mono(read_sound(utterance, _POOL_S))
        except (AudioError, OSError):
            continue  # reported when its turn comes
        if np.isfinite(samples).all() and samples.any():
            yield utterance, samples


def hear(condition: Condition, samples: Samples, utterance: Utterance, babble: Babble) -> Samples:
    """float32 (n,) at 16 kHz, as heard under this condition. Raises AudioError."""
    digest = hashlib.blake2b(f"{condition.name} {utterance.id}".encode(errors="surrogatepass"), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    if condition.kind == "telephone":
        return telephone(samples)
    if condition.kind == "room":
        return room(samples, condition.level, rng)
    makers: dict[str, Callable[[], Samples]] = {
        "white": lambda: rng.standard_normal(len(samples)).astype(np.float32),
        "pink": lambda: pink(len(samples), rng),
        "babble": lambda: babble.around(utterance, len(samples), rng),
    }
    return add_noise(samples, makers[condition.kind](), condition.level)


def add_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """The power of the whole recording, its pauses included, is snr_db above that of the noise."""
    power, of_noise = (float(np.mean(np.square(sound, dtype=float))) for sound in (samples, noise))
    return samples + noise * np.float32(np.sqrt(power / max(of_noise, 1e-12) / 10 ** (snr_db / 10)))


def pink(n: int, rng: np.random.Generator) -> Samples:
    """Noise whose power falls with 1 / frequency."""
    size = _fft_size(n)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), size)[:n].astype(np.float32)


def room(samples: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    """The direct sound, then an echo of noise that falls by 60 dB in so many seconds."""
    time = np.arange(max(1, round(seconds * SAMPLE_RATE))) / SAMPLE_RATE
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response *= _ECHO / np.sqrt(np.sum(response**2))
    response[0] = 1
    size = _fft_size(len(samples) + len(response))
    heard = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return heard[: len(samples)].astype(np.float32)


def telephone(samples: Samples) -> Samples:
    """The telephone's band alone."""
    size = _fft_size(len(samples))
    spectrum = np.fft.rfft(samples, size)
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum[(frequency < _TELEPHONE_HZ[0]) | (frequency > _TELEPHONE_HZ[1])] = 0
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def _fft_size(n: int) -> int:
    """A power of two: a long prime length takes seconds."""
    return 1 << max(1, n - 1).bit_length()
