"""How far a rate may be from what another draw of recordings would give: bootstrap intervals, of differences too.

Sets of recordings are drawn with replacement (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
performance evaluation", ICASSP 2004), by speaker or recording where the data set names them: mistakes come together in
what one person says. Models are compared on the same draws, so that what is hard for all of them cancels out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
LEVEL = 0.95
MIN_GROUPS = 8  # of 5 speakers, only 126 different sets can be drawn; of 8, 6,435
_AT_ONCE = 1 << 16  # drawn numbers, which fit into a processor's cache: 2^20 of them take four times as long


class Interval(NamedTuple):
    """Its ends; both None where there is only one group."""

    low: float | None
    high: float | None


class Counts(NamedTuple):
    """Of the groups of a data set: errors and words, int (groups, models)."""

    errors: NDArray[np.int64]
    words: NDArray[np.int64]


def grouped(
    errors: NDArray[np.int64],
    words: NDArray[np.int64],
    speakers: Sequence[str | None],
    recordings: Sequence[str | None],
) -> tuple[Counts, str]:
    """Counts of utterances, (utterances, models), summed over what is drawn as one: "speaker", "recording" or
    "utterance", the first that all utterances have and that there are enough of."""
    for unit, names in (("speaker", speakers), ("recording", recordings)):
        if None not in names and len({*names}) >= MIN_GROUPS:
            _, places = np.unique([str(name) for name in names], return_inverse=True)
            sums = [np.zeros((places.max() + 1, errors.shape[1]), np.int64) for _ in range(2)]
            for total, counts in zip(sums, (errors, words), strict=True):
                np.add.at(total, places, counts)
            return Counts(*sums), unit
    return Counts(errors, words), "utterance"


def drawn_rates(sets: Sequence[Counts], seed: int = 0) -> NDArray[np.float64] | None:
    """Error rates (DRAWS, models) of sets of groups that are drawn with replacement; of several data sets the mean of
    their rates, each drawn from by itself. None where one has a single group, which leaves nothing to draw."""
    if any(len(counts.errors) < 2 for counts in sets):
        return None
    rng = np.random.default_rng(seed)
    return np.mean([_rates_of_draws(counts, rng) for counts in sets], axis=0)


def _rates_of_draws(counts: Counts, rng: np.random.Generator) -> NDArray[np.float64]:
    n_groups, n_models = counts.errors.shape
    both = np.hstack(counts).astype(float)
    step = max(1, _AT_ONCE // n_groups)
    sums = []
    for first in range(0, DRAWS, step):
        n = min(step, DRAWS - first)
        drawn = rng.integers(n_groups, size=(n, n_groups)) + n_groups * np.arange(n)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * n_groups).reshape(n, n_groups)  # that a draw has a group
        sums.append(times @ both)
    errors, words = np.split(np.concatenate(sums), [n_models], axis=1)
    return errors / np.maximum(1, words)


def interval(drawn: NDArray[np.float64] | None) -> Interval:
    """The middle LEVEL of drawn rates or differences (DRAWS,)."""
    if drawn is None:
        return Interval(None, None)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def p_value(differences: NDArray[np.float64] | None) -> float | None:
    """Two-sided, of drawn differences (DRAWS,): how often the sign would be another one, or there would be none. Below
    1 - LEVEL where the interval leaves out 0."""
    if differences is None:
        return None
    one_sided = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (one_sided + 1) / (len(differences) + 1))  # of so few draws, none is certain
