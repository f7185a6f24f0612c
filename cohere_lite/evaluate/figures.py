"""Counts -> figures: rates and their intervals, differences, speed, size."""

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..extras.cores import available_cores
from ..session import ort
from .intervals import Interval, drawn_rates, grouped, interval, p_value
from .noise import CLEAN
from .run import Plan, State
from .tally import COUNTS, SEGMENTS, Tally
from .texts import WAYS
from .utterances import Data

ALL = "all data sets"  # in place of one: the mean of their rates
LENGTHS_S = (0, 2, 5, 10, 20, 35, math.inf)
_N_WORST = 5  # of each data set


@dataclass(frozen=True)
class Rate:
    """wer, cer: shares of words and characters that are wrong, from 0, of all utterances that count;  the intervals
    hold 95 %;  the other numbers are counts."""

    data: str
    condition: str
    model: str
    way: str
    utterances: int
    words: int
    wer: float
    wer_interval: Interval
    substitutions: int
    deletions: int
    insertions: int
    characters: int
    cer: float
    cer_interval: Interval


@dataclass(frozen=True)
class Difference:
    """The word error rate of a model less that of the baseline, which is the first one, on the same utterances."""

    data: str
    condition: str
    model: str
    baseline: str
    way: str
    wer: float
    wer_interval: Interval
    p: float | None


@dataclass(frozen=True)
class Speed:
    """Over all conditions.

    real_time_factor: seconds of work for a second of sound;  latency: seconds of work for an utterance
    silent, looped, truncated: of the segments
    """

    data: str
    model: str
    utterances: int
    audio_s: float
    work_s: float
    real_time_factor: float
    latency_median_s: float
    latency_95_s: float
    segments: int
    silent: int
    looped: int
    truncated: int


@dataclass(frozen=True)
class Agreement:
    """equal: utterances in which a model has the reference's tokens, all of them."""

    data: str
    condition: str
    model: str
    equal: int
    utterances: int


@dataclass(frozen=True)
class WordStarts:
    """How far off the starts of words are, in utterances with word times that all models have a result of.

    words: those that are compared, for the model recognised them;  of_words: all that have a time
    median_ms, within_95_ms: of the errors, early or late; None without words
    """

    data: str
    condition: str
    model: str
    words: int
    of_words: int
    median_ms: float | None
    within_95_ms: float | None


@dataclass(frozen=True)
class Length:
    """wer: of utterances of from_s to to_s seconds, without noise, of all data sets together."""

    from_s: float
    to_s: float | None
    model: str
    way: str
    utterances: int
    wer: float


@dataclass(frozen=True)
class Figures:
    """All figures of a run.

    settings: what was asked for;  machine: what it ran on
    data, models: what is to be said of each
    failures: recordings that could not be read, or not be recognised by some model: in no rate
    worst:    of each data set the utterances with the most errors, the worst first
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    data: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    word_starts: list[WordStarts] = field(default_factory=list)
    lengths: list[Length] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    worst: dict[str, list[str]] = field(default_factory=dict)

    def as_json(self) -> str:
        """An object; the classes of this file say what is in it."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def make_figures(
    plan: Plan,
    state: State,
    tallies: dict[tuple[str, str], Tally],
    peaks_mb: dict[str, float | None],
    settings: dict[str, Any],
) -> Figures:
    """All of them, of a run that is complete."""
    figures = Figures(settings, _machine())
    for way in WAYS:
        for condition in plan.conditions:
            _add_rates(figures, plan, condition.name, way, tallies)
        _add_lengths(figures, plan, way, [tallies[data.spec, CLEAN.name] for data in plan.data])
    for data in plan.data:
        _add_speeds(figures, plan, data.name, [tallies[data.spec, c.name] for c in plan.conditions])
        for condition in plan.conditions:
            tally = tallies[data.spec, condition.name]
            _add_agreements(figures, plan, data.name, condition.name, tally)
            _add_word_starts(figures, plan, data, condition.name, tally)
            where = {"data": data.name, "condition": condition.name}
            figures.failures.extend(where | {"id": name, "error": _why(tally, plan, name)} for name in tally.failures)
    if len(plan.data) > 1:
        _add_speeds(figures, plan, ALL, [*tallies.values()])
    _add_data(figures, plan, tallies)
    for model in plan.models:
        about: dict[str, Any] = {"name": model.name, "spec": model.spec} | model.facts
        about |= {"mb_on_disk": model.n_bytes / 1e6, "peak_mb": peaks_mb.get(model.spec)}
        about["without_words"] = any(model.spec in tally.without_words for tally in tallies.values())
        figures.models.append(about | {"load_s": min(state.loads_s.get(model.spec, []), default=None)})
    return figures


def _why(tally: Tally, plan: Plan, name: str) -> str:
    """What was wrong with an utterance, and for which models, if not for all."""
    errors = tally.failures[name]
    if len(errors) == len(plan.models) and len({*errors.values()}) == 1:
        return next(iter(errors.values()))
    return "; ".join(f"{model.name}: {errors[model.spec]}" for model in plan.models if model.spec in errors)


def _machine() -> dict[str, Any]:
    return {
        "cohere_lite": __version__,
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "cores": available_cores(),
    }


def _add_rates(figures: Figures, plan: Plan, condition: str, way: str, tallies: dict[tuple[str, str], Tally]) -> None:
    """Rates and differences, of each data set, and of the mean of them all."""
    found = {}
    for data in plan.data:
        tally = tallies[data.spec, condition]
        if (used := tally.used(way)).any():
            found[data.name] = _Counted(data, used, {name: counts[used] for name, counts in tally.counts[way].items()})
    together = [(ALL, [*found.values()])] if len(found) > 1 else []
    for name, parts in [*((name, [part]) for name, part in found.items()), *together]:
        rates, drawn = _wrong(parts)
        for i, model in enumerate(plan.models):
            totals = {key: sum(int(part.counts[key][:, i].sum()) for part in parts) for key in COUNTS}
            rate = Rate(
                *(name, condition, model.name, way),
                utterances=sum(int(part.used.sum()) for part in parts),
                words=totals["words"],
                wer=float(rates[i]),
                wer_interval=interval(_column(drawn, i)),
                substitutions=totals["substitutions"],
                deletions=totals["deletions"],
                insertions=totals["insertions"],
                characters=totals["characters"],
                cer=float(rates[len(plan.models) + i]),
                cer_interval=interval(_column(drawn, len(plan.models) + i)),
            )
            figures.rates.append(rate)
            if i:
                apart = None if drawn is None else drawn[:, i] - drawn[:, 0]
                of = name, condition, model.name, plan.models[0].name, way
                figures.differences.append(Difference(*of, float(rates[i] - rates[0]), interval(apart), p_value(apart)))


class _Counted(NamedTuple):
    """used: which utterances (n,) count;  counts: by the names in COUNTS, of those alone (utterances, models)."""

    data: Data
    used: NDArray[np.bool_]
    counts: dict[str, NDArray[np.int64]]


def _wrong(parts: Sequence[_Counted]) -> tuple[NDArray, NDArray | None]:
    """Rates of words, then of characters (2 x models,), the mean of the data sets' rates; and those of drawn sets."""
    rates, sets = [], []
    for part in parts:
        utterances = [u for u, is_used in zip(part.data.utterances, part.used, strict=True) if is_used]
        who, where = [u.speaker for u in utterances], [u.recording for u in utterances]
        errors = np.hstack([part.counts["errors"], part.counts["character_errors"]])
        total = np.hstack([part.counts["words"], part.counts["characters"]])
        rates.append(errors.sum(axis=0) / np.maximum(1, total.sum(axis=0)))
        sets.append(grouped(errors, total, who, where)[0])
    return np.mean(rates, axis=0), drawn_rates(sets)


def _column(drawn: NDArray | None, i: int) -> NDArray | None:
    return None if drawn is None else drawn[:, i]


def _add_lengths(figures: Figures, plan: Plan, way: str, tallies: Sequence[Tally]) -> None:
    for low, high in pairwise(LENGTHS_S):
        errors, words, n = np.zeros(len(plan.models)), np.zeros(len(plan.models)), 0
        for tally in tallies:
            seconds = tally.seconds.max(axis=1)
            used = tally.used(way) & (low <= seconds) & (seconds < high)
            errors += tally.counts[way]["errors"][used].sum(axis=0)
            words += tally.counts[way]["words"][used].sum(axis=0)
            n += int(used.sum())
        for i, model in enumerate(plan.models):
            if n:
                to_s = None if math.isinf(high) else high
                figures.lengths.append(Length(low, to_s, model.name, way, n, float(errors[i] / max(1, words[i]))))


def _add_speeds(figures: Figures, plan: Plan, name: str, tallies: Sequence[Tally]) -> None:
    done, seconds, time_s = (
        np.concatenate([getattr(tally, of) for tally in tallies]) for of in ("done", "seconds", "time_s")
    )
    segments = [np.sum([tally.segments[of].sum(axis=0) for tally in tallies], axis=0) for of in SEGMENTS]
    for i, model in enumerate(plan.models):
        sound, work = seconds[done[:, i], i], time_s[done[:, i], i]
        if len(work):
            of = name, model.name, len(work), float(sound.sum()), float(work.sum()), float(work.sum() / sound.sum())
            median, slow = (float(latency) for latency in np.quantile(work, [0.5, 0.95]))
            figures.speeds.append(Speed(*of, median, slow, *(int(counts[i]) for counts in segments)))


def _add_agreements(figures: Figures, plan: Plan, name: str, condition: str, tally: Tally) -> None:
    for reference in (i for i, model in enumerate(plan.models) if model.is_reference):
        for i, model in enumerate(plan.models):
            both = tally.done[:, i] & tally.done[:, reference]
            if i != reference:
                equal = (tally.tokens[:, i] == tally.tokens[:, reference]) & both
                figures.agreements.append(Agreement(name, condition, model.name, int(equal.sum()), int(both.sum())))


def _add_word_starts(figures: Figures, plan: Plan, data: Data, condition: str, tally: Tally) -> None:
    for i, model in enumerate(plan.models):
        used = [row for row in np.flatnonzero(tally.done.all(axis=1)).tolist() if (row, i) in tally.starts_ms]
        if used:
            errors_ms = np.abs(np.concatenate([tally.starts_ms[row, i] for row in used]))
            n_words = sum(len(data.utterances[row].word_times or ()) for row in used)
            median, most = map(float, np.percentile(errors_ms, (50, 95))) if len(errors_ms) else (None, None)
            of = data.name, condition, model.name, len(errors_ms), n_words
            figures.word_starts.append(WordStarts(*of, median, most))


def _add_data(figures: Figures, plan: Plan, tallies: dict[tuple[str, str], Tally]) -> None:
    """What there is to say of the data sets: of all conditions, for what does not depend on them."""
    for data in plan.data:
        clean = tallies[data.spec, CLEAN.name]
        errors = clean.counts["leaderboard"]["errors"].max(axis=1) * clean.used("leaderboard")
        worst = [int(i) for i in np.argsort(-errors, kind="stable")[:_N_WORST] if errors[i]]
        figures.worst[data.name] = [data.utterances[i].id for i in worst]
        who, where = ([getattr(u, key) for u in data.utterances] for key in ("speaker", "recording"))
        zeros = np.zeros((len(data.utterances), 1), np.int64)
        figures.data.append(
            {
                "name": data.name,
                "spec": data.spec,
                "utterances": len(data.utterances),
                "total": data.total,
                "languages": sorted({utterance.language for utterance in data.utterances}),
                "speakers": data.speakers,
                "recordings": None if None in where else len({*where}),
                "audio_s": float(clean.seconds.max(axis=1).sum()),
                "failed": len({failure["id"] for failure in figures.failures if failure["data"] == data.name}),
                "cut_short": clean.n_cut_short,
                "not_counted": {way: int((clean.done.all(axis=1) & ~clean.used(way)).sum()) for way in WAYS},
                "left_out": data.left_out,
                "word_times": sum(utterance.word_times is not None for utterance in data.utterances),
                "too_short": len(clean.too_short),
                "intervals_by": grouped(zeros, zeros, who, where)[1],
            }
        )
