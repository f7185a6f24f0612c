"""The training set, ``DIR/features``: acoustic variants of the recordings as log-mel features, and their texts.

features.f16       raw float16 (all frames, 128), one utterance after the other
utterances.jsonl   one a line: language, sentences with their first and last frames, first frame, number of frames,
                   whether it is clean

Needs NumPy and soundfile.  About 150 hours of features, 14 GB; it goes on where it was interrupted.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohere_lite.mel import HOP_LENGTH, log_mel

from . import recordings
from .acoustics import SAMPLE_RATE, Samples, another_speaker, at_peak, recorded, silence, warp
from .nospeech import no_speech
from .recordings import HOURS, Recording
from .stages import parallel

# Of each recording, on average: espeak-ng has many voices, Pico few; Kokoro is the most natural and the slowest
VARIANTS = {"espeak": 1.2, "pico": 2.0, "flite": 2.0, "hibari": 2.0, "kokoro": 5.0}
JOINED = 0.3  # share of recordings of several sentences
JOINED_SENTENCES = (2, 9)  # fewer are likelier
JOINED_SECONDS = 34.5  # the longest piece is 35 s
EMPTY = 0.02  # share of recordings without speech, with an empty text
CLEAN = 0.5
MARGIN_SECONDS = (0, 0.6)  # before and after
PAUSE_SECONDS = (0.1, 5)  # between sentences; short ones are likelier
BABBLE_SECONDS, BABBLE_VOICES = 20, (2, 5)
TRIM_CONTEXT = 3  # frames left before and after it


class Sentence(NamedTuple):
    """What is said in an utterance from frame `start` to frame `end` of it."""

    spoken: str  # with punctuation, as written
    written: str
    start: int
    end: int


@dataclass(frozen=True)
class Utterance:
    language: str
    sentences: list[Sentence]
    start: int  # first frame in features.f16
    frames: int
    clean: bool


def build(folder: Path, recorded_in: Path, hours: dict[str, dict[str, float]] = HOURS, round_number: int = 1) -> None:
    """Features of all parts of the recordings, on all processors; the same files every time.

    A part that is finished has its own list of utterances; utterances.jsonl comes when all are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "utterances.jsonl").unlink(missing_ok=True)
    parts = recordings.parts(hours, round_number)
    lists = [folder / f"{part.name}.jsonl" for part in parts]
    finished = next((i for i, path in enumerate(lists) if not path.exists()), len(lists))
    frames = sum(utterance.frames for path in lists[:finished] for utterance in _read(path))
    jobs = [(part.synthesiser, part.name, recorded_in) for part in parts[finished:]]
    with (folder / "features.f16").open("ab") as file:
        file.truncate(frames * 128 * 2)  # a part that was interrupted
        for path, (utterances, features) in zip(
            lists[finished:], parallel(make, jobs, "features", [job[1] for job in jobs]), strict=True
        ):
            file.write(features.tobytes())
            file.flush()
            _write(path, (replace(utterance, start=utterance.start + frames) for utterance in utterances))
            frames += len(features)
    _write(folder / "utterances.jsonl", (utterance for path in lists for utterance in _read(path)))


def load(folder: Path) -> tuple[list[Utterance], NDArray[np.float16]]:
    """What `build` wrote: the utterances, and the features float16 (all frames, 128), read as they are needed."""
    return list(_read(folder / "utterances.jsonl")), np.memmap(folder / "features.f16", np.float16, "r").reshape(
        -1, 128
    )


def trimmed(utterance: Utterance) -> Utterance:
    """The utterance without the silence at both ends."""
    first = max(0, utterance.sentences[0].start - TRIM_CONTEXT)
    end = min(utterance.frames, utterance.sentences[-1].end + TRIM_CONTEXT)
    sentences = [s._replace(start=s.start - first, end=min(end, s.end) - first) for s in utterance.sentences]
    return replace(utterance, sentences=sentences, start=utterance.start + first, frames=end - first)


def make(synthesiser: str, name: str, recorded_in: Path) -> tuple[list[Utterance], NDArray[np.float16]]:
    """The utterances of a part, beginning at frame 0, and their features (frames, 128)."""
    rng = np.random.default_rng(list(name.encode()))
    spoken, pcm = recordings.load(recorded_in, name)
    speech = [pcm[r.start : r.start + r.n].astype(np.float32) / np.float32(32767) for r in spoken]
    babble = _babble(speech, rng)
    utterances: list[Utterance] = []
    features: list[NDArray[np.float16]] = []
    start = 0
    for sentences, samples in _utterances(spoken, speech, VARIANTS[synthesiser], rng):
        clean = bool(sentences and rng.random() < CLEAN)
        if sentences:
            samples = recorded(samples, rng, babble, clean)
        features.append(np.ascontiguousarray(log_mel(samples).T, np.float16))
        utterances.append(Utterance(spoken[0].language, sentences, start, len(features[-1]), clean))
        start += len(features[-1])
    return utterances, np.concatenate(features)


def _utterances(
    spoken: list[Recording], speech: list[Samples], variants: float, rng: np.random.Generator
) -> Iterator[tuple[list[Sentence], Samples]]:
    """Every recording in its variants, and among them some joined to longer ones, and some without speech."""
    for first in range(len(spoken)):
        for _ in range(int(variants + rng.random())):
            yield _talk(spoken, speech, first, 1, rng)
            if rng.random() < JOINED:
                counts = np.arange(JOINED_SENTENCES[0], JOINED_SENTENCES[1] + 1)
                yield _talk(spoken, speech, first, int(rng.choice(counts, p=1 / counts / np.sum(1 / counts))), rng)
            if rng.random() < EMPTY:
                yield [], no_speech(rng)


def _talk(
    spoken: list[Recording], speech: list[Samples], first: int, count: int, rng: np.random.Generator
) -> tuple[list[Sentence], Samples]:
    """`count` recordings with pauses, as far as they fit: the first one and those after it, mostly by one voice.

    A voice is changed in the same way in all of them.
    """
    sentences: list[Sentence] = []
    pieces = [silence(rng.uniform(*MARGIN_SECONDS))]
    seed = int(rng.integers(2**32))
    for i in range(first, min(first + count, len(spoken))):
        own = [seed, *spoken[i].voice.encode()]
        piece = at_peak(another_speaker(speech[i], np.random.default_rng(own)), 0.5)
        if sentences:
            pause = silence(math.exp(rng.uniform(*np.log(PAUSE_SECONDS))))
            if sum(map(len, [*pieces, pause, piece])) / SAMPLE_RATE > JOINED_SECONDS - MARGIN_SECONDS[1]:
                break
            pieces.append(pause)
        start = sum(map(len, pieces))
        end = start + len(piece)
        pieces.append(piece)
        sentences.append(Sentence(spoken[i].spoken, spoken[i].written, start // HOP_LENGTH, -(-end // HOP_LENGTH)))
    pieces.append(silence(rng.uniform(*MARGIN_SECONDS)))
    return sentences, np.concatenate(pieces)


def _babble(speech: list[Samples], rng: np.random.Generator) -> Samples:
    """Several voices talking at once."""
    talks = []
    for _ in range(rng.integers(*BABBLE_VOICES, endpoint=True)):
        order = rng.permutation(len(speech))
        talk = np.concatenate([at_peak(warp(speech[i], rng.uniform(0.8, 1.25)), 0.5) for i in order[:30]])
        talks.append(np.resize(talk, BABBLE_SECONDS * SAMPLE_RATE))
    return np.sum(talks, axis=0, dtype=np.float32)


def _read(path: Path) -> Iterator[Utterance]:
    for line in path.read_text("utf-8").splitlines():
        fields = json.loads(line)
        yield Utterance(**fields | {"sentences": [Sentence(*sentence) for sentence in fields["sentences"]]})


def _write(path: Path, utterances: Iterator[Utterance]) -> None:
    text = "".join(json.dumps(asdict(utterance), ensure_ascii=False) + "\n" for utterance in utterances)
    path.with_suffix(".tmp").write_text(text, "utf-8")
    path.with_suffix(".tmp").replace(path)
