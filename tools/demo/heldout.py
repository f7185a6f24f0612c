"""Recordings for tests and evaluation: held-out sentences spoken by held-out voices.

    python -m tools.demo.heldout FOLDER [--sentences 100]      FOLDER/LANGUAGE/ID.wav, and ID.txt beside it

Needs the program espeak-ng and NumPy only, so that the package's own tests can use it.
"""

import argparse
import wave
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np

from .acoustics import SAMPLE_RATE, Samples, add_noise, at_peak, noise, silence
from .sentences import LANGUAGES, Grammar
from .synthesisers import espeak
from .voices import random_voice

UTTERANCES = 100  # a language
PEAK = 0.5
MARGIN = 0.1  # seconds of silence before and after


def heldout(
    language: str, count: int = UTTERANCES, snr_db: float | None = None, kind: str = "white"
) -> Iterator[tuple[Samples, str, str]]:
    """Yields (samples float32 (n,) at 16 kHz, text with punctuation, id), the same ones every time.

    snr_db: add noise of this `kind` ("white", "pink" or "babble"); None leaves the recording clean.
    """
    rng = Random(f"held out {language}")
    texts = [text.spoken for text in Grammar(language).held_out_texts(count, rng)]
    babble = make_babble(language) if kind == "babble" else silence(0)
    for i, text in enumerate(texts):
        samples = espeak(text, **random_voice("espeak", language, rng, held_out=True))
        samples = np.concatenate([silence(MARGIN), samples, silence(MARGIN)])
        if snr_db is not None:
            samples = add_noise(samples, noise(kind, len(samples), np.random.default_rng(i), babble), snr_db)
        yield at_peak(samples, PEAK), text, f"{language}-{i:03}"


def make_babble(language: str, voices: int = 4, sentences: int = 15) -> Samples:
    """Several training voices talking at once for about half a minute: float32 (n,), 16 kHz."""
    rng = Random(f"babble {language}")
    grammar = Grammar(language)
    talks = []
    for _ in range(voices):
        voice = random_voice("espeak", language, rng)
        talks.append(np.concatenate([espeak(text.spoken, **voice) for text in grammar.training(sentences, rng)]))
    n = min(map(len, talks))
    return np.sum([at_peak(talk[:n], 0.5) for talk in talks], axis=0, dtype=np.float32)


def write_recordings(recordings: Iterator[tuple[Samples, str, str]], folder: Path) -> None:
    """ID.wav (16 bits) and ID.txt for each (samples, text, id): data for `python -m cohere_lite.evaluate`."""
    folder.mkdir(parents=True, exist_ok=True)
    for samples, text, name in recordings:
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.demo.heldout", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=int, default=UTTERANCES, help="of each language (default: 100)")
    args = parser.parse_args()
    for language in LANGUAGES:
        write_recordings(heldout(language, args.sentences), args.folder / language)
