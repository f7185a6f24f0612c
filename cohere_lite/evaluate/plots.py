"""Figures -> plots, as SVG that takes the colour of the text around it: for light pages, dark ones, and telephones."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import ALL, LENGTHS_S, Figures, Rate, Speed
from .intervals import Interval
from .noise import CLEAN
from .texts import WAYS

_WIDTH = 5.2  # inches: on a telephone nearly as large as it is drawn
_LABEL = 24  # characters of a name
_TEXT = "#010203"  # becomes the colour of the page's text
# Okabe and Ito's, told apart by the colour-blind, too
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MARKS = "osD^vPX"
_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none"),
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold two dollar signs
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def plots(figures: Figures) -> Iterator[tuple[str, str]]:
    """(title, SVG) of each plot that there is something for."""
    models = [about["name"] for about in figures.models]
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # its own font need not have them: the page's draws the text
        for way in WAYS:
            if rates := [rate for rate in figures.rates if rate.way == way and rate.condition == CLEAN.name]:
                yield f"Words wrong, {way}'s rule", _bars(rates, models)
        way = [*WAYS][-1]
        overall = ALL if len(figures.data) > 1 else figures.data[0]["name"]
        rates = [rate for rate in figures.rates if (rate.way, rate.data) == (way, overall)]
        if any(rate.condition == CLEAN.name for rate in rates):
            speeds = {speed.model: speed for speed in figures.speeds if speed.data == overall}
            yield f"Words wrong and speed, {way}'s rule", _against_speed(speeds, rates, models)
        if any(length.way == way for length in figures.lengths):
            yield f"Words wrong by length, {way}'s rule", _by_length(figures, models, way)
        if len({rate.condition for rate in rates}) > 1:
            yield f"Words wrong in noise, {way}'s rule", _by_noise(rates, models)


def _bars(rates: Sequence[Rate], models: Sequence[str]) -> str:
    data = [*dict.fromkeys(rate.data for rate in rates)]
    figure, axes = _figure(0.9 + 0.28 * len(data) * (len(models) + 0.6))
    height = 0.8 / len(models)
    for i, model in enumerate(models):
        of = {rate.data: rate for rate in rates if rate.model == model}
        places = np.array([k for k, name in enumerate(data) if name in of])
        found = [of[data[k]] for k in places]
        widths = [100 * rate.wer for rate in found]
        where = places + (i + 0.5) * height - 0.4
        axes.barh(where, widths, height * 0.9, color=_COLOURS[i % len(_COLOURS)], label=_label(model))
        ends = _around(widths, [rate.wer_interval for rate in found])
        axes.errorbar(widths, where, xerr=ends, fmt="none", ecolor=_TEXT, elinewidth=1, capsize=2)
    axes.set_yticks(range(len(data)), [*map(_label, data)])
    axes.invert_yaxis()
    axes.set_xlabel("WER, %")
    _from_zero(axes, "x")
    return _svg(figure, axes)


def _against_speed(speeds: Mapping[str, Speed], rates: Sequence[Rate], models: Sequence[str]) -> str:
    of = {rate.model: rate for rate in rates if rate.condition == CLEAN.name}
    figure, axes = _figure(3.4)
    for i, model in enumerate(models):
        if model in of and model in speeds:
            wer = [100 * of[model].wer]
            ends = _around(wer, [of[model].wer_interval])
            axes.errorbar(
                [speeds[model].real_time_factor],
                wer,
                yerr=ends,
                capsize=2,
                linestyle="",
                label=_label(model),
                **_look(i),
            )
    axes.set_xlabel("work for a second of sound, s (further left is faster)")
    axes.set_ylabel("WER, %")
    _from_zero(axes, "x")
    _from_zero(axes, "y")
    return _svg(figure, axes)


def _by_length(figures: Figures, models: Sequence[str], way: str) -> str:
    figure, axes = _figure(3.2)
    names = [f"{low:g}–{high:g}" for low, high in pairwise(LENGTHS_S[:-1])]
    names.append(f"over {LENGTHS_S[-2]:g}")
    shown = [low for low in LENGTHS_S if any(length.from_s == low for length in figures.lengths)]
    for i, model in enumerate(models):
        of = {length.from_s: length for length in figures.lengths if (length.model, length.way) == (model, way)}
        lows = [low for low in shown if low in of]
        axes.plot(
            [shown.index(low) for low in lows], [100 * of[low].wer for low in lows], label=_label(model), **_look(i)
        )
    count = {length.from_s: length.utterances for length in figures.lengths if length.way == way}
    axes.set_xticks(range(len(shown)), [f"{names[LENGTHS_S.index(low)]} s\n({count.get(low, 0)})" for low in shown])
    axes.set_xlabel("length (utterances)")
    axes.set_ylabel("WER, %")
    _from_zero(axes, "y")
    return _svg(figure, axes)


def _by_noise(rates: Sequence[Rate], models: Sequence[str]) -> str:
    conditions = [*dict.fromkeys(rate.condition for rate in rates)]
    figure, axes = _figure(3.2)
    for i, model in enumerate(models):
        of = {rate.condition: rate for rate in rates if rate.model == model}
        places = np.array([k for k, name in enumerate(conditions) if name in of])
        found = [of[conditions[k]] for k in places]
        wers = [100 * rate.wer for rate in found]
        aside = (i - (len(models) - 1) / 2) * 0.12  # for the intervals not to lie on each other
        ends = _around(wers, [rate.wer_interval for rate in found])
        axes.errorbar(places + aside, wers, yerr=ends, capsize=2, linestyle="", label=_label(model), **_look(i))
    axes.set_xticks(range(len(conditions)), [condition.replace(":", "\n") for condition in conditions])
    axes.set_ylabel("WER, %")
    _from_zero(axes, "y")
    return _svg(figure, axes)


def _around(values: Sequence[float], intervals: Sequence[Interval]) -> np.ndarray:
    """(2, n): how far the ends of the intervals, in percent, are from the values, which they may leave out."""
    ends = [
        (v if i.low is None else 100 * i.low, v if i.high is None else 100 * i.high)
        for v, i in zip(values, intervals, strict=True)
    ]
    return np.array([[max(0, v - low), max(0, high - v)] for v, (low, high) in zip(values, ends, strict=True)]).T


def _label(name: str) -> str:
    """Of a long name the end: there is no room for more."""
    text = name.encode(errors="backslashreplace").decode()  # of a folder's name that is not UTF-8
    text = text if len(text) <= _LABEL else f"…{text[1 - _LABEL :]}"
    return f"\u200b{text}" if text.startswith("_") else text  # which would keep it out of the legend


def _look(i: int) -> Any:
    """Of the i-th model."""
    return {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKS[i % len(_MARKS)]}


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _from_zero(axes: Axes, axis: str) -> None:
    """With room for the marks at the other end."""
    end = axes.dataLim.xmax if axis == "x" else axes.dataLim.ymax
    axes.set(**{f"{axis}lim": (0, 1.1 * end or 1)})


def _svg(figure: Figure, axes: Axes) -> str:
    """The element alone, as wide as its place."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    svg = re.sub(r'width="[^"]+" height="[^"]+" (?=viewBox)', "", file.getvalue()[file.getvalue().index("<svg") :])
    return svg.replace(_TEXT, "currentColor")
