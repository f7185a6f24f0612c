"""Long audio -> pieces that the model can take, cut at quiet points; the pieces' texts -> one text.

The rules are those of transformers' CohereAsrFeatureExtractor and CohereAsrProcessor (read at 5.23).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

# Defaults of CohereAsrFeatureExtractor, with the names they have there.
SAMPLE_RATE = 16_000  # Hz; sampling_rate
MAX_CHUNK_S = 35.0  # max_audio_clip_s: longer audio is cut
SEARCH_S = 5.0  # overlap_chunk_second: not an overlap; the cut is looked for in the last SEARCH_S of a full chunk
QUIET_WINDOW = 1600  # samples, 100 ms; min_energy_window_samples

_UNSPACED = ("ja", "zh")  # written without spaces between words: _NO_SPACE_LANGS


def split(samples: NDArray[np.float32], max_chunk_s: float = MAX_CHUNK_S) -> list[tuple[int, int]]:
    """Where to cut: (start, end) in samples, in order, without gaps or overlaps.

    samples: float32 (n,), 16 kHz, finite. Up to max_chunk_s they stay whole, (0, n), also when n is 0. Of longer audio,
    every chunk but the last has max_chunk_s - 5 .. max_chunk_s - 0.2 seconds, and the last more than 0.2 seconds.

    Raises OptionError for less than 10 s: the search would leave chunks of next to nothing.
    """
    if not 2 * SEARCH_S <= max_chunk_s < float("inf"):
        raise OptionError(f"max_chunk_s is {max_chunk_s}; it must be {2 * SEARCH_S} or more")
    chunk = round(max_chunk_s * SAMPLE_RATE)
    search = round(SEARCH_S * SAMPLE_RATE)
    pieces = []
    start = 0
    while start + chunk < len(samples):
        end = start + chunk - search + _quietest(samples[start + chunk - search : start + chunk])
        pieces.append((start, end))
        start = end
    return [*pieces, (start, len(samples))]


def _quietest(samples: NDArray[np.float32]) -> int:
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
