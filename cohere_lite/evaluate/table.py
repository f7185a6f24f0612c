"""Figures -> Markdown tables."""

from collections.abc import Iterable, Sequence

from .anchors import anchor
from .figures import ALL, Difference, Figures, Rate
from .intervals import LEVEL, Interval
from .texts import WAYS


def markdown(figures: Figures) -> str:
    """All tables: rates, differences, speed and size, data; and how they were made."""
    parts = [_rates(figures), _differences(figures), _models(figures), _data(figures), _notes(figures)]
    return "\n".join(filter(None, parts))


def _rates(figures: Figures) -> str:
    rates = {(r.data, r.condition, r.model, r.way): r for r in figures.rates}
    anchors = {about["name"]: anchor(f"{about['name']} {about['spec']}") for about in figures.data}
    published = any(number is not None for found in anchors.values() for number in found)
    heads = ["data", "noise", "model", "WER, card's rule", "WER, leaderboard's rule", "CER, leaderboard's rule"]
    heads += ["words", "wrong / missing / added"] + (["published: card", "published: leaderboard"] if published else [])
    rows = []
    for data, condition, model in dict.fromkeys(key[:3] for key in rates):
        card, leaderboard = (rates.get((data, condition, model, way)) for way in WAYS)
        row = [data, condition, model, _rate(card), _rate(leaderboard)]
        row += ["" if leaderboard is None else _share(leaderboard.cer, leaderboard.cer_interval)]
        row += _errors(leaderboard or card)
        if published:
            row += [_percent(number) for number in anchors.get(data, (None, None))]
        rows.append(row)
    return _table("Words and characters wrong, in percent", heads, rows)


def _errors(rate: Rate | None) -> list[str]:
    if rate is None:
        return ["", ""]
    return [str(rate.words), f"{rate.substitutions} / {rate.deletions} / {rate.insertions}"]


def _differences(figures: Figures) -> str:
    found = {(d.data, d.condition, d.model, d.way): d for d in figures.differences}
    rows = []
    for data, condition, model in dict.fromkeys(key[:3] for key in found):
        row = [data, condition, f"{model} less {figures.models[0]['name']}"]
        for way in WAYS:
            row += _difference(found.get((data, condition, model, way)))
        rows.append(row)
    heads = ["data", "noise", "models", "card's rule", "p", "leaderboard's rule", "p"]
    return _table("Differences, in points of percent", heads, rows)


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["", ""]
    p = "" if found.p is None else "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return [_share(found.wer, found.wer_interval, sign="+"), p]


def _models(figures: Figures) -> str:
    speeds = {speed.model: speed for speed in figures.speeds if speed.data == ALL or len(figures.data) == 1}
    references = bool(figures.agreements)
    rows = []
    for about in figures.models:
        speed = speeds.get(about["name"])
        row = [about["name"], about["precision"], _number(about["mb_on_disk"], 0)]
        row += [_number(about["load_s"], 2), _number(about["peak_mb"], 0)]
        if speed is None:
            row += [""] * 3
        else:
            row += [f"{speed.real_time_factor:.3f}", f"{speed.latency_median_s:.3f} / {speed.latency_95_s:.3f}"]
            parts = (speed.silent, speed.looped, speed.truncated)
            row += [" / ".join(f"{100 * n / max(1, speed.segments):.1f}" for n in parts)]
        if references:
            alike = [a for a in figures.agreements if a.model == about["name"]]
            equal, of = sum(a.equal for a in alike), sum(a.utterances for a in alike)
            row.append(f"{equal} of {of}" if alike else "")
        rows.append(row)
    heads = ["model", "precision", "on disk, MB", "load, s", "peak memory, MB", "work per second of sound, s"]
    heads += ["utterance, s: median / 95 %", "segments silent / looped / truncated, %"]
    return _table("Speed and size", heads + (["tokens equal to the reference's"] if references else []), rows)


def _data(figures: Figures) -> str:
    rows = []
    for about in figures.data:
        minutes = f"{about['audio_s'] / 60:.1f}"
        row = [about["name"], f"{about['utterances']} of {about['total']}", _number(about["speakers"], 0), minutes]
        row += [str(about["failed"]), str(about["cut_short"])]
        row += [" / ".join(str(about["not_counted"][way]) for way in WAYS), f"by {about['intervals_by']}"]
        rows.append(row)
    heads = ["data", "utterances", "speakers", "minutes", "failed", "damaged", "not counted, card / leaderboard", "intervals"]
    return _table("Data", heads, rows)


def _notes(figures: Figures) -> str:
    machine, settings = figures.machine, figures.settings
    said = [f"{way.capitalize()}'s rule: {rule}." for way, rule in WAYS.items()]
    said.append(f"In parentheses: {LEVEL:.0%} bootstrap intervals; differences on the same draws (paired), with p.")
    if any(rate.data == ALL for rate in figures.rates):
        said.append(f'"{ALL}": the mean of the rates of the data sets.')
    said.append(f"Drawn with seed {settings['seed']}; {'with' if settings['punctuation'] else 'without'} punctuation.")
    said += [
        f"{about['name']}: {number} rows left out ({reason})."
        for about in figures.data
        for reason, number in about["left_out"].items()
    ]
    said += [f"{f['data']}, {f['condition']}, {f['id']}: failed ({f['error']})." for f in figures.failures]
    versions = f"cohere_lite {machine['cohere_lite']}, onnxruntime {machine['onnxruntime']}, Python {machine['python']}"
    said.append(f"{versions}, {machine['system']}, {machine['cores']} cores.")
    return "\n".join(f"- {sentence}" for sentence in said) + "\n"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns that are empty in all rows are left out; nothing where there are no rows."""
    rows = [*rows]
    if not rows:
        return ""
    kept = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    lines = [[heads[i] for i in kept], ["---"] * len(kept), *([row[i].replace("|", "\\|") for i in kept] for row in rows)]
    return f"**{title}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rate(rate: Rate | None) -> str:
    return "" if rate is None else _share(rate.wer, rate.wer_interval)


def _share(share: float, interval: Interval, sign: str = "") -> str:
    """ "12.16 (8.01 to 16.98)"."""
    ends = "" if interval.low is None or interval.high is None else f" ({100 * interval.low:{sign}.2f} to {100 * interval.high:{sign}.2f})"
    return f"{100 * share:{sign}.2f}{ends}"


def _percent(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _number(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"
