"""Long audio -> pieces that the model can take, cut at quiet points by the rules of transformers'
CohereAsrFeatureExtractor (read at 5.23). extras/phrases.py has another rule, for speech as it is spoken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .mel import SAMPLE_RATE

# Defaults of CohereAsrFeatureExtractor, with the names they have there.
MAX_CHUNK_S = 35.0  # max_audio_clip_s: longer audio is cut
SEARCH_S = 5.0  # overlap_chunk_second: not an overlap; the cut is looked for in the last SEARCH_S of a full chunk
MIN_CHUNK_S = 2 * SEARCH_S  # with less, the search would leave chunks of next to nothing
QUIET_WINDOW = 1600  # samples, 100 ms; min_energy_window_samples


class Chunks:
    """A recording, as it comes, cut into chunks without gaps or overlaps. Up to max_chunk_s it stays whole. Of longer
    audio, every chunk but the last has max_chunk_s - 5 .. max_chunk_s - 0.2 seconds, and the last more than 0.2."""

    def __init__(self, max_chunk_s: float = MAX_CHUNK_S) -> None:
        """max_chunk_s: MIN_CHUNK_S or more."""
        self._chunk = round(max_chunk_s * SAMPLE_RATE)
        self._held = Held()

    def push(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The next samples, float32 (n,), 16 kHz, finite -> the chunks that they complete."""
        self._held.push(samples)
        start = self._chunk - round(SEARCH_S * SAMPLE_RATE)
        chunks = []
        while len(self._held) > self._chunk:
            chunks.append(self._held.take(start + quietest(self._held.peek(start, self._chunk))))
        return chunks

    def silence(self) -> list[NDArray[np.float32]]:
        """None: chunks are cut by their length, whatever is in them."""
        return []

    def idle(self, seconds: float) -> list[NDArray[np.float32]]:
        """None, however long nothing has come."""
        return []

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

    The reference cuts where the window starts, not in its middle, and never looks at the last one. Measured on noise,
    speech-like and 16-bit signals: always the same window as the reference. float32 as there, with the root, so that
    what ties there ties here. Its sums depend on the CPU in the last bit (8 lanes on x86, 4 on ARM), which can decide
    between windows as equal as those of a steady tone: 1 such tone in 60 is cut elsewhere.
    """
    windows = samples[:-QUIET_WINDOW].reshape(-1, QUIET_WINDOW)
    return QUIET_WINDOW * int(np.argmin(np.sqrt(np.mean(windows * windows, axis=1))))
