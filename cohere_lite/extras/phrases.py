"""Speech as it is spoken -> phrases: cut where the speaker pauses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from ..cut import MAX_CHUNK_S, QUIET_WINDOW, SEARCH_S, Held, quietest
from ..errors import OptionError, number
from ..mel import SAMPLE_RATE
from .loudness import FRAME, THRESHOLD_DB, Loudness, is_speech

_STALLED_S = 1.0  # less than that without samples may be a network that is late


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
        for name, value in vars(self).copy().items():
            object.__setattr__(self, name, number(name, value, "a number"))
        if not 0 < self.threshold_db < 100:
            raise OptionError(f"threshold_db is {self.threshold_db}; it must be more than 0 and less than 100")
        if not 1 <= self.max_phrase_s <= MAX_CHUNK_S:
            raise OptionError(f"max_phrase_s is {self.max_phrase_s}; it must be 1 to {MAX_CHUNK_S:g}")
        if not 0.1 <= self.min_pause_s <= self.max_phrase_s:
            raise OptionError(f"min_pause_s is {self.min_pause_s}; it must be 0.1 to max_phrase_s")

    def cutter(self, max_chunk_s: float) -> Phrases:
        """What cuts a recording like this, for a model that takes pieces of up to max_chunk_s seconds."""
        return Phrases(replace(self, max_phrase_s=min(self.max_phrase_s, max_chunk_s)))


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

    def idle(self, seconds: float) -> list[NDArray[np.float32]]:
        """The phrase so far, if nothing has come for so long that it is over: some sources send nothing in silence.
        seconds: infinite for the silence so far, too: that of a channel in which nothing was said meanwhile."""
        is_silence = self._quiet >= self._n_frames
        if not self._n_frames or seconds < (inf if is_silence else max(self._pause * FRAME / SAMPLE_RATE, _STALLED_S)):
            return []
        end, self._n_frames, self._quiet = self._n_frames, 0, 0
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
