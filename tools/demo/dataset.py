"""The training set: log-mel features of synthesised speech, float16 in one file, and the texts.

features.f16       raw float16 (all frames, 128), one utterance after the other
utterances.jsonl   one a line: language, text with punctuation, first frame, number of frames, whether it is clean
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from cohere_lite.mel import log_mel

from .heldout import make_babble
from .sentences import LANGUAGES, Grammar
from .sentences import joined as joined_texts
from .synthesise import SAMPLE_RATE, Samples, at_peak, augment, noise, random_voice, silence, speak

UTTERANCES = 12_000  # a language: nearly 10 hours
EMPTY = 0.012  # share of recordings without speech and with an empty text: the model must not invent words
JOINED = 0.04  # share of long recordings, several sentences with pauses, because real ones are up to 35 s
JOINED_SECONDS = (6, 30)
CLEAN = 0.5  # share of the others without noise, reverberation and telephone
PEAK_DB = (-30, -1)  # full scale is 0
MARGIN_SECONDS = (0, 0.5)  # silence before and after
PAUSE_SECONDS = (0.1, 0.8)
SPEECH_LEVEL = 0.15  # of the range of the level: what `trimmed` takes for speech
TRIM_CONTEXT = 3  # frames left before and after it


@dataclass(frozen=True)
class Utterance:
    language: str
    text: str  # with punctuation
    start: int  # first frame in features.f16
    frames: int
    clean: bool


def build(folder: Path, per_language: int = UTTERANCES) -> list[Utterance]:
    """Synthesise the training set into `folder`, on all processors; the same files every time."""
    jobs = [(language, seed) for seed in range(per_language) for language in LANGUAGES]
    utterances: list[Utterance] = []
    start = 0
    with ProcessPoolExecutor() as pool, (folder / "features.f16").open("wb") as file:
        for (language, _), (text, features, clean) in zip(jobs, pool.map(_make, jobs, chunksize=64), strict=True):
            file.write(features.tobytes())
            utterances.append(Utterance(language, text, start, len(features), clean))
            start += len(features)
    lines = (json.dumps(asdict(utterance), ensure_ascii=False) for utterance in utterances)
    (folder / "utterances.jsonl").write_text("\n".join(lines), "utf-8")
    return utterances


def load(folder: Path) -> tuple[list[Utterance], NDArray[np.float16]]:
    """What `build` wrote: the utterances, and the features float16 (all frames, 128), about 4 GB."""
    lines = (folder / "utterances.jsonl").read_text("utf-8").splitlines()
    utterances = [Utterance(**json.loads(line)) for line in lines]
    return utterances, np.fromfile(folder / "features.f16", np.float16).reshape(-1, 128)


def trimmed(utterance: Utterance, features: NDArray[np.float16]) -> Utterance:
    """The utterance without the silence at both ends, found by its level: only for clean ones."""
    level = features[utterance.start : utterance.start + utterance.frames].mean(axis=1, dtype=np.float32)
    speech = np.flatnonzero(level > level.min() + SPEECH_LEVEL * np.ptp(level))
    first, end = max(0, speech[0] - TRIM_CONTEXT), min(utterance.frames, speech[-1] + 1 + TRIM_CONTEXT)
    return replace(utterance, start=int(utterance.start + first), frames=int(end - first))


def _make(job: tuple[str, int]) -> tuple[str, NDArray[np.float16], bool]:
    """One training recording: its text, its features (frames, 128) and whether it is clean."""
    language, seed = job
    rng = Random(f"{language} {seed}")
    numpy_rng = np.random.default_rng([seed, *language.encode()])
    kind, clean = rng.random(), False
    if kind < EMPTY:
        text, samples = "", _no_speech(language, rng, numpy_rng)
    else:
        text, samples = _speech(language, rng, kind < EMPTY + JOINED)
        clean = bool(numpy_rng.random() >= 1 - CLEAN)
        if not clean:
            samples = augment(samples, numpy_rng, _babble(language))
        samples = at_peak(samples, 10 ** (numpy_rng.uniform(*PEAK_DB) / 20))
    return text, np.ascontiguousarray(log_mel(samples).T, np.float16), clean


def _speech(language: str, rng: Random, joined: bool) -> tuple[str, Samples]:
    """One sentence, or as many as fill a random time; one speaker, or another one for every sentence."""
    grammar = Grammar(language)
    voice = random_voice(language, rng)
    one_speaker = rng.random() < 0.7
    wanted = rng.uniform(*JOINED_SECONDS) if joined else 0
    texts, parts = grammar.training(1, rng), [silence(rng.uniform(*MARGIN_SECONDS))]
    while True:
        parts.append(at_peak(speak(texts[-1].spoken, **voice), 0.5))
        if sum(map(len, parts)) / SAMPLE_RATE >= wanted:
            break
        parts.append(silence(rng.uniform(*PAUSE_SECONDS)))
        texts += grammar.training(1, rng)
        voice = voice if one_speaker else random_voice(language, rng)
    parts.append(silence(rng.uniform(*MARGIN_SECONDS)))
    return joined_texts(texts).spoken, np.concatenate(parts)


def _no_speech(language: str, rng: Random, numpy_rng: np.random.Generator) -> Samples:
    """Silence, or noise without speech."""
    n = round(rng.uniform(0.3, 6) * SAMPLE_RATE)
    kind = rng.choice(["silence", "white", "pink"])
    if kind == "silence":
        return np.zeros(n, np.float32)
    return at_peak(noise(kind, n, numpy_rng, _babble(language)), 10 ** (rng.uniform(-70, -6) / 20))


@cache
def _babble(language: str) -> Samples:
    return make_babble(language)
