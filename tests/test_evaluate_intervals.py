"""Bootstrap intervals and p values: against closed forms, and scipy's."""

import numpy as np
import pytest

from cohere_lite.evaluate import intervals
from cohere_lite.evaluate.intervals import DRAWS, Counts, Interval, drawn_rates, grouped, interval, p_value

pytestmark = pytest.mark.folder


def counts(errors: list, words: list | None = None) -> Counts:
    """Of one model; ten words each, if not told."""
    column = np.array(errors, np.int64)[:, None]
    return Counts(column, np.full_like(column, 10) if words is None else np.array(words, np.int64)[:, None])


def test_interval_of_a_share() -> None:
    """By formula: 400 utterances of ten words, half of them with two errors: 0.1 ± 1.96 x 0.1 / sqrt(400)."""
    low, high = interval(drawn_rates([counts([0, 2] * 200)]))
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.005, 0.1 + 1.96 * 0.005), abs=4e-4)


@pytest.mark.reference
def test_interval_as_scipy_has_it() -> None:
    """By reference: the percentile bootstrap of a ratio of sums, paired; words and errors differ."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    words = rng.integers(1, 40, 60)
    errors = rng.binomial(words, 0.15)
    ours = interval(drawn_rates([counts(errors, words)]))
    theirs = stats.bootstrap(
        (errors, words),
        lambda e, w, axis: e.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=DRAWS,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert ours.low < errors.sum() / words.sum() < ours.high


def test_what_one_speaker_says_goes_together() -> None:
    """By formula: ten speakers who say the same 20 times are ten utterances, not 200."""
    speakers = [f"s{i}" for i in range(10) for _ in range(20)]
    of_each = np.arange(10) % 4
    errors = np.repeat(of_each, 20)[:, None]
    by_speaker, unit = grouped(errors, np.full_like(errors, 10), speakers, [None] * 200)
    assert unit == "speaker"
    assert sorted(by_speaker.errors[:, 0]) == sorted(20 * of_each)
    alone = interval(drawn_rates([counts(of_each.tolist())]))
    assert interval(drawn_rates([by_speaker])) == pytest.approx(alone)
    wide, narrow = np.subtract(*alone[::-1]), np.subtract(*interval(drawn_rates([counts(errors[:, 0].tolist())]))[::-1])
    assert wide == pytest.approx(narrow * np.sqrt(20), rel=0.1)


@pytest.mark.parametrize(
    ("speakers", "recordings", "unit", "n"),
    [
        ([*"abcdefghij"], [*"aaaaaaaaaa"], "speaker", 10),
        ([*"abcdefghii"], [*"aaaaaaaaaa"], "speaker", 9),
        ([*"abcdefgggg"], [*"abcdefghij"], "recording", 10),  # seven speakers are too few
        ([*"abcdefghi", None], [*"abcdefghhh"], "recording", 8),
        ([None] * 10, [*"abcdefgggg"], "utterance", 10),
        ([None] * 10, [None] * 10, "utterance", 10),
    ],
)
def test_what_is_drawn(speakers: list, recordings: list, unit: str, n: int) -> None:
    errors = np.ones((10, 2), np.int64)
    found, by = grouped(errors, 10 * errors, speakers, recordings)
    assert (by, found.errors.shape, found.errors.sum(), found.words.sum()) == (unit, (n, 2), 20, 200)


def test_difference_on_the_same_draws() -> None:
    """By formula: of 20 utterances one has an error of the second model only. Draws lack it with probability
    (19/20)^20 = 0.358; no draw has a difference of another sign. So p = 2 x 0.358."""
    errors = np.array([[3, 3]] * 19 + [[3, 4]])
    drawn = drawn_rates([Counts(errors, np.full_like(errors, 10))])
    assert drawn is not None
    differences = drawn[:, 1] - drawn[:, 0]
    assert p_value(differences) == pytest.approx(2 * 0.95**20, abs=0.02)
    assert interval(differences).low == 0
    # binomial(20, 1/20) is above 3 in 1.6 % of draws: the upper end is 3 errors in 200 words
    assert interval(differences).high == pytest.approx(3 / 200)


def test_models_that_are_alike() -> None:
    errors = np.array([[1, 1], [0, 0], [2, 2]])
    drawn = drawn_rates([Counts(errors, np.full_like(errors, 10))])
    assert drawn is not None
    assert (interval(drawn[:, 1] - drawn[:, 0]), p_value(drawn[:, 1] - drawn[:, 0])) == (Interval(0, 0), 1)


def test_p_agrees_with_the_interval() -> None:
    """By construction: below 0.05 where the interval leaves out 0, and only there."""
    rng = np.random.default_rng(0)
    told = set()
    for shift in np.linspace(-0.4, 0.4, 41):
        differences = rng.normal(shift, 0.15, DRAWS)
        low, high = interval(differences)
        p = p_value(differences)
        assert low is not None
        assert high is not None
        assert p is not None
        assert (p < 0.05) == (low > 0 or high < 0), shift
        told.add(p < 0.05)
    assert told == {True, False}


def test_p_of_a_sure_difference() -> None:
    """By formula: none of 10,000 draws, which is not 0."""
    assert p_value(np.full(DRAWS, 0.1)) == 2 / (DRAWS + 1)


def test_the_mean_of_data_sets() -> None:
    """By formula: each counts alike, whatever its size: (0.2 + 0.4) / 2, ± 1.96 x the root of the sum of the variances
    (0.04 / 100, 0.04 / 400) / 2."""
    sets = [counts([0, 4] * 50), counts([2, 6] * 200)]
    low, high = interval(drawn_rates(sets))
    apart = 1.96 * np.sqrt(0.04 / 100 + 0.04 / 400) / 2
    assert (low, high) == pytest.approx((0.3 - apart, 0.3 + apart), abs=1.5e-3)


def test_one_utterance_has_no_interval() -> None:
    assert drawn_rates([counts([1])]) is None
    assert drawn_rates([counts([1, 2]), counts([1])]) is None
    assert interval(None) == Interval(None, None)
    assert p_value(None) is None


def test_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a large data set is that of a part of the draws."""
    whole = drawn_rates([counts([0, 1, 2, 3])])
    monkeypatch.setattr(intervals, "_AT_ONCE", 4 * 37)
    parts = drawn_rates([counts([0, 1, 2, 3])])
    assert whole is not None
    assert np.array_equal(whole, parts)
