"""Long audio -> pieces that the model can take, cut at quiet points as the reference cuts; the pieces' texts -> one.

The rules are those of transformers' CohereAsrFeatureExtractor and CohereAsrProcessor (read at 5.23). phrases.py has
another rule, for speech as it is spoken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .loudness import FRAME, THRESHOLD_DB, Loudness, is_speech
from .mel import SAMPLE_RATE

# Defaults of CohereAsrFeatureExtractor, with the names they have there.
MAX_CHUNK_S = 35.0  # max_audio_clip_s: longer audio is cut
SEARCH_S = 5.0  # overlap_chunk_second: not an overlap; the cut is looked for in the last SEARCH_S of a full chunk
QUIET_WINDOW = 1600  # samples, 100 ms; min_energy_window_samples

_UNSPACED = ("ja", "zh")  # written without spaces between words: _NO_SPACE_LANGS


class Chunks:
    """A recording, as it comes, cut into chunks without gaps or overlaps.

    Up to max_chunk_s it stays whole. Of longer audio, every chunk but the last has max_chunk_s - 5 .. max_chunk_s - 0.2
    seconds, and the last more than 0.2 seconds.
    """

    def __init__(self, max_chunk_s: float = MAX_CHUNK_S) -> None:
        """Raises OptionError for less than 10 s: the search would leave chunks of next to nothing."""
        if not 2 * SEARCH_S <= max_chunk_s < float("inf"):
            raise OptionError(f"max_chunk_s is {max_chunk_s}; it must be {2 * SEARCH_S} or more")
        self._chunk = round(max_chunk_s * SAMPLE_RATE)
        self._held = Held()

    def push(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The next samples, float32 (n,), 16 kHz, finite -> the chunks that they complete."""
        self._held.push(samples)
        search = round(SEARCH_S * SAMPLE_RATE)
        chunks = []
        while len(self._held) > self._chunk:
            start = self._chunk - search
            chunks.append(self._held.take(start + quietest(self._held.peek(start, self._chunk))))
        return chunks

    def finish(self) -> list[NDArray[np.float32]]:
        """The last chunk, empty if there was no sample at all."""
        return [self._held.take(len(self._held))]


class Held:
    """Samples that wait for the end of their piece."""

    def __init__(self) -> None:
        # Bytes grow in place. An array copied for each block made 10 minutes in blocks of 10 ms take 3.8 s.
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // 4

    def push(self, samples: NDArray[np.float32]) -> None:
        """Hold a copy of them."""
        self._bytes += samples.astype(np.float32, copy=False).tobytes()

    def peek(self, start: int, end: int) -> NDArray[np.float32]:
        """A copy of a stretch."""
        return np.frombuffer(self._bytes[4 * start : 4 * end], np.float32)

    def take(self, n: int) -> NDArray[np.float32]:
        """The first n, which are then held no more."""
        samples = self.peek(0, n)
        del self._bytes[: 4 * n]
        return samples


def quietest(samples: NDArray[np.float32]) -> int:
    """The first sample of the quietest window; of equally quiet ones, the first.

    The reference cuts where the window starts, not in its middle, and never looks at the last one.
    Measured on noise, speech-like and 16-bit signals: always the same window as the reference. float32 as there, with
    the root, so that what ties there ties here. Its sums depend on the CPU in the last bit (8 lanes on x86, 4 on ARM),
    which can decide between windows as equal as those of a steady tone: 1 such tone in 60 is cut elsewhere.
    """
    windows = samples[:-QUIET_WINDOW].reshape(-1, QUIET_WINDOW)
    return QUIET_WINDOW * int(np.argmin(np.sqrt(np.mean(windows * windows, axis=1))))


def join(texts: Sequence[str], language: str) -> str:
    """The texts of consecutive chunks as one: stripped, blank ones left out, with a space between (none in ja and zh).

    As in the reference, leading whitespace of the whole stays. Two differences: the reference fails when every text is
    blank (here: ""), and leaves the text of a clip of up to 30 s as it is (here: without its trailing whitespace, too).
    """
    spoken = [text for text in texts if text.strip()]
    if not spoken:
        return ""
    separator = "" if language in _UNSPACED else " "
    return separator.join([spoken[0].rstrip(), *(text.strip() for text in spoken[1:])])


@dataclass(frozen=True)
class Pauses:
    """Where a phrase ends.

    min_pause_s: so long nothing is louder than the noise floor (the quietest 0.1 s of the last 10 s) by more than
    threshold_db. Within sentences people pause for up to half a second, between them longer.
    max_phrase_s: whoever does not pause for so long is cut where it is quietest: in the last 5 s, or half of it.
    """

    threshold_db: float = THRESHOLD_DB
    min_pause_s: float = 0.6
    max_phrase_s: float = 30.0

    def __post_init__(self) -> None:
        """Raises OptionError."""
        if not 0 < self.threshold_db < 100:
            raise OptionError(f"threshold_db is {self.threshold_db}; it must be more than 0 and less than 100")
        if not 1 <= self.max_phrase_s <= MAX_CHUNK_S:
            raise OptionError(f"max_phrase_s is {self.max_phrase_s}; it must be 1 to {MAX_CHUNK_S:g}")
        if not 0.1 <= self.min_pause_s <= self.max_phrase_s:
            raise OptionError(f"min_pause_s is {self.min_pause_s}; it must be 0.1 to max_phrase_s")


class Phrases:
    """A recording, as it comes, cut into phrases and silences without gaps or overlaps.

    A pause belongs half to the phrase before it and half to what comes after it. A silence of two such halves or more
    is a piece of its own, up to half a pause before the next phrase. A phrase is complete min_pause_s and 0.1 s after
    its last sound; in noise not before a recording's first 2 s are over, for so long the noise is not known.
    """

    def __init__(self, pauses: Pauses) -> None:
        self._threshold_db = pauses.threshold_db
        self._pause = round(pauses.min_pause_s * SAMPLE_RATE) // FRAME  # in frames, like all that follows
        self._max = round(pauses.max_phrase_s * SAMPLE_RATE) // QUIET_WINDOW * (QUIET_WINDOW // FRAME)
        self._search = min(round(SEARCH_S * SAMPLE_RATE), self._max * FRAME // 2) // QUIET_WINDOW * QUIET_WINDOW
        self._loudness = Loudness()
        self._held = Held()  # from the start of the piece
        self._n_frames = 0  # of the piece so far
        self._quiet = 0  # since the last speech; in a silence as many as the piece has, or more

    def push(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The next samples, float32 (n,), 16 kHz, finite -> the pieces that they complete."""
        self._held.push(samples)
        pieces = []
        for speech in is_speech(self._loudness.push(samples), self._threshold_db).tolist():
            spoken = self._quiet < self._n_frames
            self._n_frames += 1
            self._quiet = 0 if speech else self._quiet + 1
            if end := self._spoken_end() if spoken else self._silence_end(speech):
                pieces.append(self._held.take(end * FRAME))
                self._n_frames -= end
        return pieces

    def silence(self) -> list[NDArray[np.float32]]:
        """The silence so far as a piece of its own, none in a phrase: to know that nothing was said until now."""
        if self._quiet < self._n_frames or not (end := self._silence_end(speech=True)):
            return []
        self._n_frames -= end
        return [self._held.take(end * FRAME)]

    def finish(self) -> list[NDArray[np.float32]]:
        """The last piece, empty if there was no sample since the one before it."""
        return [self._held.take(len(self._held))]

    def _spoken_end(self) -> int:
        """The frame at which a phrase ends; 0 while it goes on."""
        if self._quiet >= self._pause:
            return self._n_frames - self._pause // 2
        if self._n_frames >= self._max:
            end = self._max * FRAME
            return (end - self._search + quietest(self._held.peek(end - self._search, end))) // FRAME
        return 0

    def _silence_end(self, speech: bool) -> int:
        """The frame at which a silence ends; 0 while it goes on, or if what comes after it may have it."""
        end = self._n_frames - self._pause // 2
        return end if end >= self._pause // 2 and (speech or self._n_frames >= self._max) else 0
