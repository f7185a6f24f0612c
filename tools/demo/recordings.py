"""The speech that is trained on, clean: ``DIR/recordings``, in parts of a few minutes of one synthesiser and language.

PART.npy      int16 (samples of the whole part,), 16 kHz, peak 0.7, without the silence around each recording
PART.jsonl    one a line: language, spoken, written, voice, first sample, number of samples

Needs what the synthesisers need.  About 30 minutes on two cores; what is finished is not made again.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .acoustics import SAMPLE_RATE, Samples, at_peak
from .numerals import in_words
from .sentences import LANGUAGES, Grammar, Text
from .stages import parallel
from .synthesisers import PICO_ENVIRONMENT
from .voices import random_voice, speak

HOURS = {
    "espeak": dict.fromkeys(LANGUAGES, 3.0),
    "pico": dict.fromkeys(LANGUAGES, 1.6),
    "flite": {"en": 1.5},
    "hibari": {"en": 1.2},
    "kokoro": {"en": 0.4, "de": 0.5, "fr": 0.5, "es": 0.5},  # more where there are few other voices
}
QUICK_HOURS = {"espeak": dict.fromkeys(LANGUAGES, 0.01)}
PART_SECONDS = 360
GROUP = 6  # recordings by one voice, one after the other: longer recordings are made of them
SHORT = 0.5  # share of the groups with single words, digits, lone times
PAUSED = 0.5  # share of the digits in a row with pauses between them
PEAK = 0.7
# Of the peak, where speech begins and ends, and what is left before and after it: an f begins quietly, and Pico's noise
# at the end is not to count
BEGIN, BEGIN_SECONDS = 0.003, 0.03
END, END_SECONDS = 0.01, 0.06
FULL_SCALE = 0.9999  # of a burst of noise in Pico
PLAUSIBLE = (2.5, 40)  # letters a second; outside a synthesiser has failed


@dataclass(frozen=True)
class Recording:
    language: str
    spoken: str
    written: str
    voice: str
    start: int  # first sample in the part
    n: int  # samples


class Part(NamedTuple):
    synthesiser: str
    language: str
    number: int
    seconds: float
    round_number: int = 1

    @property
    def name(self) -> str:
        return f"{self.synthesiser}-{self.language}-{self.round_number}-{self.number:02}"


def parts(hours: dict[str, dict[str, float]] = HOURS, round_number: int = 1) -> list[Part]:
    """All parts, other ones in each round of training; slow and fast synthesisers take turns, so that the time left can
    be told from those finished."""
    order = []
    for synthesiser, languages in hours.items():
        for language, wanted in languages.items():
            count = max(1, round(wanted * 3600 / PART_SECONDS))
            order += [
                ((i + 0.5) / count, Part(synthesiser, language, i, wanted * 3600 / count, round_number))
                for i in range(count)
            ]
    return [part for _, part in sorted(order)]


def build(folder: Path, kokoro: Path, hours: dict[str, dict[str, float]] = HOURS, round_number: int = 1) -> None:
    """Every part that is not yet in `folder`, on all processors; the same ones every time."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(PICO_ENVIRONMENT)
    missing = [part for part in parts(hours, round_number) if not (folder / f"{part.name}.jsonl").exists()]
    for _ in parallel(
        make, [(part, folder, kokoro) for part in missing], "recordings", [part.name for part in missing]
    ):
        pass


def make(part: Part, folder: Path, kokoro: Path) -> None:
    """Synthesise one part into `folder`."""
    recordings: list[Recording] = []
    pieces: list[NDArray[np.int16]] = []
    n = 0
    for text, voice, samples in _spoken(part, kokoro):
        pieces.append(np.rint(at_peak(samples, PEAK) * 32767).astype(np.int16))
        recordings.append(Recording(part.language, text.spoken, text.written, voice, n, len(samples)))
        n += len(samples)
        if n >= part.seconds * SAMPLE_RATE:
            break
    np.save(folder / f"{part.name}.tmp.npy", np.concatenate(pieces))
    (folder / f"{part.name}.tmp.npy").replace(folder / f"{part.name}.npy")
    lines = "".join(json.dumps(asdict(recording), ensure_ascii=False) + "\n" for recording in recordings)
    (folder / f"{part.name}.tmp").write_text(lines, "utf-8")
    (folder / f"{part.name}.tmp").replace(folder / f"{part.name}.jsonl")  # last: the part is complete


def load(folder: Path, name: str) -> tuple[list[Recording], NDArray[np.int16]]:
    """A part: its recordings, and the samples of all of them."""
    lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [Recording(**json.loads(line)) for line in lines], np.load(folder / f"{name}.npy")


def paused(spoken: str, language: str, rng: Random) -> str:
    """The text with commas between three or more digits in a row, half of the time: people stop between them."""
    digit = "|".join(in_words(i, language) for i in range(10))
    row = re.compile(rf"\b(?:{digit})(?: (?:{digit})\b){{2,}}", re.IGNORECASE)
    return row.sub(lambda found: found[0].replace(" ", ", "), spoken) if rng.random() < PAUSED else spoken


def _spoken(part: Part, kokoro: Path) -> Iterator[tuple[Text, str, Samples]]:
    """Texts without end, the voice, and the samples."""
    rng, grammar = Random(part.name), Grammar(part.language)
    while True:
        short = rng.random() < SHORT
        voice = random_voice(part.synthesiser, part.language, rng, slow=short)
        for text in (grammar.short if short else grammar.training)(GROUP, rng):
            samples = speak(part.synthesiser, paused(text.spoken, part.language, rng), voice, kokoro)
            peak = np.abs(samples).max(initial=0)
            if not peak:
                raise ValueError(f"{part.synthesiser} {voice} says nothing to {text.spoken!r}")
            samples = audible(samples)
            rate = len(text.spoken) * SAMPLE_RATE / len(samples)
            if (part.synthesiser == "pico" and peak > FULL_SCALE) or not PLAUSIBLE[0] <= rate <= PLAUSIBLE[1]:
                said = f"{text.spoken!r}, peak {peak:.2f}, {rate:.1f} letters a second"
                print(f"left out: {part.name}, {said}", file=sys.stderr, flush=True)
                continue
            yield text, " ".join(str(value) for value in voice.values()), samples


def audible(samples: Samples) -> Samples:
    """Without the silence at both ends, which every synthesiser has another length of."""
    level = np.abs(samples) / np.abs(samples).max()
    first = np.flatnonzero(level > BEGIN)[0] - round(BEGIN_SECONDS * SAMPLE_RATE)
    last = np.flatnonzero(level > END)[-1] + round(END_SECONDS * SAMPLE_RATE)
    return samples[max(0, first) : last + 1]
