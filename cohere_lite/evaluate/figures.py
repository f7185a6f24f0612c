"""Counts -> figures: rates and their intervals, differences, speed, size."""

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .. import __version__
from ..extras.cores import available_cores
from ..session import ort
from .intervals import Counts, Interval, drawn_rates, grouped, interval, p_value
from .noise import CLEAN
from .run import Plan, State
from .tally import Tally
from .texts import WAYS

ALL = "all"  # in place of a data set: the mean of their rates
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
            where = {"data": data.name, "condition": condition.name}
            figures.failures.extend(where | {"id": name, "error": why} for name, why in tally.failures.items())
    if len(plan.data) > 1:
        _add_speeds(figures, plan, ALL, [*tallies.values()])
    _add_data(figures, plan, tallies)
    for model in plan.models:
        about: dict[str, Any] = {"name": model.name, "spec": model.spec} | model.facts
        about |= {"mb_on_disk": model.n_bytes / 1e6, "peak_mb": peaks_mb.get(model.spec)}
        figures.models.append(about | {"load_s": min(state.loads_s.get(model.spec, []), default=None)})
    return figures


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
    of_words: dict[str, Counts] = {}
    of_characters: dict[str, Counts] = {}
    totals: dict[str, dict[str, np.ndarray]] = {}  # (models,)
    for data in plan.data:
        tally = tallies[data.spec, condition]
        used = tally.used(way)
        if used.any():
            who, where = zip(*((u.speaker, u.recording) for u, use in zip(data.utterances, used, strict=True) if use), strict=True)
            counts = {name: numbers[used] for name, numbers in tally.counts[way].items()}
            of_words[data.name], _ = grouped(counts["errors"], counts["words"], who, where)
            of_characters[data.name], _ = grouped(counts["character_errors"], counts["characters"], who, where)
            totals[data.name] = {name: numbers.sum(axis=0) for name, numbers in counts.items()} | {"utterances": used.sum()}
    names = {name: [name] for name in of_words} | ({ALL: [*of_words]} if len(of_words) > 1 else {})
    for name, parts in names.items():
        words, chars = (drawn_rates([counts[part] for part in parts]) for counts in (of_words, of_characters))
        total = {key: np.sum([totals[part][key] for part in parts], axis=0) for key in totals[parts[0]]}
        wers, cers = (
            np.mean([totals[part][errors] / np.maximum(1, totals[part][of]) for part in parts], axis=0)
            for errors, of in (("errors", "words"), ("character_errors", "characters"))
        )
        for i, model in enumerate(plan.models):
            counted = {key: int(total[key][i]) for key in ("words", "substitutions", "deletions", "insertions", "characters")}
            figures.rates.append(
                Rate(
                    *(name, condition, model.name, way, int(total["utterances"])),
                    wer=float(wers[i]),
                    wer_interval=interval(None if words is None else words[:, i]),
                    cer=float(cers[i]),
                    cer_interval=interval(None if chars is None else chars[:, i]),
                    **counted,
                )
            )
            if i:
                drawn = None if words is None else words[:, i] - words[:, 0]
                of = name, condition, model.name, plan.models[0].name, way
                figures.differences.append(Difference(*of, float(wers[i] - wers[0]), interval(drawn), p_value(drawn)))


def _add_lengths(figures: Figures, plan: Plan, way: str, tallies: Sequence[Tally]) -> None:
    for low, high in zip(LENGTHS_S, LENGTHS_S[1:], strict=False):
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
                figures.lengths.append(Length(low, to_s, model.name, way, n, float(errors[i] / words[i])))


def _add_speeds(figures: Figures, plan: Plan, name: str, tallies: Sequence[Tally]) -> None:
    for i, model in enumerate(plan.models):
        done = [tally.done[:, i] for tally in tallies]
        seconds, work = (
            np.concatenate([array[use, i] for array, use in zip(arrays, done, strict=True)])
            for arrays in ([tally.seconds for tally in tallies], [tally.time_s for tally in tallies])
        )
        if len(work):
            segments = {key: int(sum(tally.segments[key][:, i].sum() for tally in tallies)) for key in tallies[0].segments}
            latency = np.quantile(work, [0.5, 0.95])
            sums = float(seconds.sum()), float(work.sum())
            of = name, model.name, len(work)
            figures.speeds.append(Speed(*of, *sums, sums[1] / sums[0], *map(float, latency), **segments))


def _add_agreements(figures: Figures, plan: Plan, name: str, condition: str, tally: Tally) -> None:
    for reference in (i for i, model in enumerate(plan.models) if model.is_reference):
        for i, model in enumerate(plan.models):
            both = tally.done[:, i] & tally.done[:, reference]
            if i != reference:
                equal = (tally.tokens[:, i] == tally.tokens[:, reference]) & both
                figures.agreements.append(Agreement(name, condition, model.name, int(equal.sum()), int(both.sum())))


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
                "speakers": data.speakers,
                "recordings": None if None in where else len({*where}),
                "audio_s": float(clean.seconds.max(axis=1).sum()),
                "failed": len({failure["id"] for failure in figures.failures if failure["data"] == data.name}),
                "cut_short": clean.n_cut_short,
                "not_counted": {way: int((clean.done.all(axis=1) & ~clean.used(way)).sum()) for way in WAYS},
                "left_out": data.left_out,
                "intervals_by": grouped(zeros, zeros, who, where)[1],
            }
        )
