"""Figures -> tables, and these as Markdown."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..extras.formats import one_line
from .anchors import FULL_SIZE, anchor_of
from .figures import ALL, Difference, Figures, Rate
from .intervals import LEVEL, Interval
from .texts import BY_CHARACTERS, WAYS

_P_TOLD = 0.001  # smaller ones are told to be smaller


class Table(NamedTuple):
    """Of texts; a row has a cell for each head."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def markdown(figures: Figures) -> str:
    """All tables, and the notes below them."""
    parts = [_markdown(table) for table in tables(figures)]
    return "\n".join([*parts, "".join(f"- {_plain(note)}\n" for note in notes(figures))])


def _markdown(table: Table) -> str:
    lines = [table.heads, ["---"] * len(table.heads), *table.rows]
    cells = [[_plain(cell) for cell in line] for line in lines]
    return f"**{table.title}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _plain(text: str) -> str:
    """In one line, and nothing in it for Markdown to obey: ids and names may hold anything, a tag or a link, too."""
    return re.sub(r"[|`]|<(?=[A-Za-z/!?])|\](?=[(\[:])|\\(?=[!-/:-@\[-`{-~])", r"\\\g<0>", one_line(text))


def tables(figures: Figures) -> list[Table]:
    """Rates, differences, speed and size, data: those that have rows."""
    found = [_rates(figures), _differences(figures), _word_starts(figures), _models(figures), _data(figures)]
    return [table for table in found if table.rows]


def _rates(figures: Figures) -> Table:
    rates = {(rate.data, rate.condition, rate.model, rate.way): rate for rate in figures.rates}
    anchors = {about["name"]: anchor_of(about) for about in figures.data}
    rows = []
    for data, condition, model in dict.fromkeys(key[:3] for key in rates):
        row = [data, condition, model]
        for way, published in zip(WAYS, anchors.get(data, (None, None)), strict=True):
            rate = rates.get((data, condition, model, way))
            row += ["" if rate is None else _share(rate.wer, rate.wer_interval), _number(published, 2)]
        row += _counts(rate)
        rows.append(row)
    heads = ["data", "noise", "model"]
    for way in WAYS:
        heads += [f"WER, {way}'s rule", f"published, {way}"]
    return _table("Words wrong, in percent", [*heads, "CER", "words", "wrong / missing / added"], rows)


def _counts(rate: Rate | None) -> list[str]:
    if rate is None:
        return [""] * 3
    counts = f"{rate.substitutions} / {rate.deletions} / {rate.insertions}"
    return [_share(rate.cer, rate.cer_interval), str(rate.words), counts]


def _differences(figures: Figures) -> Table:
    found = {(d.data, d.condition, d.model, d.way): d for d in figures.differences}
    rows = []
    for data, condition, model in dict.fromkeys(key[:3] for key in found):
        row = [data, condition, f"{model} less {figures.models[0]['name']}"]
        for way in WAYS:
            row += _difference(found.get((data, condition, model, way)))
        rows.append(row)
    heads = ["data", "noise", "models", "WER, card's rule", "p", "WER, leaderboard's rule", "p"]
    return _table("Differences, in points", heads, rows)


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["", ""]
    told = "" if found.p is None else f"< {_P_TOLD}" if found.p < _P_TOLD else f"{found.p:.3f}"
    return [_share(found.wer, found.wer_interval, sign="+"), told]


def _word_starts(figures: Figures) -> Table:
    rows = []
    for found in figures.word_starts:
        row = [found.data, found.condition, found.model, f"{found.words} of {found.of_words}"]
        rows.append([*row, _number(found.median_ms, 0), _number(found.within_95_ms, 0)])
    return _table("Starts of words", ["data", "noise", "model", "words compared", "off by, ms: median", "95 %"], rows)


def _models(figures: Figures) -> Table:
    speeds = {speed.model: speed for speed in figures.speeds if speed.data == ALL or len(figures.data) == 1}
    rows = []
    for about in figures.models:
        row = [about["name"], about["precision"], _number(about["mb_on_disk"], 0)]
        row += [_number(about["load_s"], 2), _number(about["peak_mb"], 0)]
        if speed := speeds.get(about["name"]):
            row += [f"{speed.real_time_factor:.3f}", f"{speed.latency_median_s:.3f} / {speed.latency_95_s:.3f}"]
            parts = (speed.silent, speed.looped, speed.truncated)
            row += [" / ".join(f"{100 * n / max(1, speed.segments):.1f}" for n in parts)]
        else:
            row += [""] * 3
        alike = [agreement for agreement in figures.agreements if agreement.model == about["name"]]
        equal, of = sum(agreement.equal for agreement in alike), sum(agreement.utterances for agreement in alike)
        rows.append([*row, f"{equal} of {of}" if alike else ""])
    heads = ["model", "precision", "on disk, MB", "load, s", "peak memory, MB", "work for a second of sound, s"]
    heads += ["utterance, s: median / 95 %", "segments silent / looped / truncated, %", "the reference's tokens"]
    return _table("Speed and size", heads, rows)


def _data(figures: Figures) -> Table:
    rows = []
    for about in figures.data:
        row = [about["name"], f"{about['utterances']} of {about['total']}", _number(about["speakers"], 0)]
        row += [f"{about['audio_s'] / 60:.1f}", str(about["failed"]), str(about["cut_short"])]
        row += [" / ".join(str(about["not_counted"][way]) for way in WAYS), f"by {about['intervals_by']}"]
        rows.append(row)
    heads = ["data", "utterances", "speakers", "minutes", "failed", "damaged", f"not counted, {' / '.join(WAYS)}"]
    return _table("Data", [*heads, "intervals"], rows)


def notes(figures: Figures) -> list[str]:
    """How the tables were made, and what they leave out: a sentence each."""
    machine, settings = figures.machine, figures.settings
    said = [
        f"{way.capitalize()}'s rule: {rule}; errors of all utterances by words of all." for way, rule in WAYS.items()
    ]
    said.append(f"CER: in the {[*WAYS][-1]}'s texts. Of {', '.join(BY_CHARACTERS)}, WER counts characters, too.")
    said.append(f"In parentheses: {LEVEL:.0%} bootstrap intervals; of differences on the same draws (paired), with p.")
    rates = {(rate.data, rate.condition, rate.way) for rate in figures.rates}
    if of_all := [key[1:] for key in rates if key[0] == ALL]:
        names = [about["name"] for about in figures.data]
        lacking = [name for name in names if any((name, *key) not in rates for key in of_all)]
        without = f"; where they have none, without {', '.join(lacking)}" if lacking else ""
        said.append(f'"{ALL}": the mean of the rates of the data sets{without}.')
    said.append(f"Drawn with seed {settings['seed']}; {'with' if settings['punctuation'] else 'without'} punctuation.")
    if any(published is not None for about in figures.data for published in anchor_of(about)):
        said.append(f"Published: of {FULL_SIZE}; by the card of 30 recordings each, by the leaderboard of all.")
    said.append(
        "Load: of files that have been read before. Work: from samples in memory to text, without reading files."
    )
    said.append("Peak memory: resident, of a process with this model alone, weights that are mapped included.")
    said += [
        f"{about['name']}: {number} left out: {reason}."
        for about in figures.data
        for reason, number in about["left_out"].items()
    ]
    if figures.word_starts:
        said.append(
            "Starts of words: of those with a time that the model recognised, whatever their capitals and marks."
        )
    if silent := [about["name"] for about in figures.models if about["without_words"]]:
        said.append(f"Without word times: {', '.join(silent)}; conversion adds them (python -m cohere_lite.export).")
    said += [
        f"{about['name']}: word times of {about['too_short']} utterances left out: their sound ends before their words."
        for about in figures.data
        if about["too_short"]
    ]
    said += [f"{f['data']}, {f['condition']}, {f['id']}: failed: {f['error']}." for f in figures.failures]
    versions = f"cohere_lite {machine['cohere_lite']}, onnxruntime {machine['onnxruntime']}, Python {machine['python']}"
    return [*said, f"{versions}, {machine['system']}, {machine['cores']} cores."]


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Without the columns that are empty in all rows."""
    rows = [*rows]
    kept = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    return Table(title, [heads[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _share(share: float, interval: Interval, sign: str = "") -> str:
    """ "12.16 (8.01 to 16.98)"."""
    if interval.low is None or interval.high is None:
        return f"{100 * share:{sign}.2f}"
    return f"{100 * share:{sign}.2f} ({100 * interval.low:{sign}.2f} to {100 * interval.high:{sign}.2f})"


def _number(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"
