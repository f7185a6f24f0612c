"""Figures -> one HTML page that needs nothing else: tables, plots, the worst utterances to read and to listen to."""

import base64
import io
import wave
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CohereLiteError
from ..mel import SAMPLE_RATE
from .figures import Figures
from .noise import CLEAN
from .plots import plots
from .run import Plan, read_state
from .sound import mono, read_sound
from .table import Table, notes, tables
from .texts import WAYS

_LISTEN_S = 30.0  # of each of the worst; in the page that is 1.3 MB
_CSS = """
:root { color-scheme: light dark; --line: #8886; --missing: #b00020; --added: #00694f; --wrong: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --missing: #ff8a93; --added: #5fd3b0; --wrong: #f0b95a; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 76rem; margin: auto; padding: 0 1rem 3rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem } h3 { font-size: 1rem; margin-bottom: .3rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap;
  font-variant-numeric: tabular-nums }
.plots { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)) }
figure { margin: 0 } figcaption { font-weight: 600 } svg { width: 100%; height: auto }
article { border-top: 1px solid var(--line); padding: .5rem 0 }
audio { width: 100%; max-width: 30rem; display: block; margin: .4rem 0 }
p { margin: .3rem 0; overflow-wrap: anywhere } .who { opacity: .75; font-size: .85rem }
del, ins { text-decoration: none; border-radius: .2rem; padding: 0 .15rem }
del { color: var(--missing); text-decoration: line-through } ins { color: var(--added); text-decoration: underline }
.wrong del, .wrong ins { color: var(--wrong) }
"""


def write_report(path: Path, plan: Plan, figures: Figures, scored: Path) -> None:
    """scored: the file with the alignments. Raises OSError."""
    models, data = (", ".join(about["name"] for about in listed) for listed in (figures.models, figures.data))
    title = f"{models} on {data}"
    parts = [
        f"<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{escape(title)}</title>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<style>{_CSS}</style>\n<h1>{escape(title)}</h1>",
        *(_table(table) for table in tables(figures)),
        f"<ul>{''.join(f'<li>{escape(note)}' for note in notes(figures))}</ul>",
        "<h2>Plots</h2><div class=plots>",
        *(f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>" for name, svg in plots(figures)),
        "</div>",
        *_worst(plan, figures, scored),
    ]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8", errors="backslashreplace", newline="\n")


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}" for cell in table.heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}\n" for row in table.rows)
    return f"<h2>{escape(table.title)}</h2><div class=wide><table><tr>{head}\n{body}</table></div>"


def _worst(plan: Plan, figures: Figures, scored: Path) -> Iterator[str]:
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}  # by data and utterance
    wanted = {(data.spec, name) for data in plan.data for name in figures.worst[data.name]}
    for line in read_state(scored):
        if line["condition"] == CLEAN.name and (line["data"], line["id"]) in wanted:
            lines.setdefault((line["data"], line["id"]), []).append(line)
    if not lines:
        return
    yield "<h2>The worst utterances</h2><p>Words that are <del>missing</del> and <ins>added</ins>, and "
    yield "<span class=wrong><del>one word</del> <ins>for another</ins></span>.</p>"
    names = {model.spec: model.name for model in plan.models}
    order = [*names]
    for data in plan.data:
        utterances = {utterance.id: utterance for utterance in data.utterances}
        if figures.worst[data.name]:
            yield f"<h3>{escape(data.name)}</h3>"
        for name in figures.worst[data.name]:
            found = sorted(lines[data.spec, name], key=lambda line: order.index(line["model"]))
            try:
                player = _player(mono(read_sound(utterances[name], _LISTEN_S)))
            except (CohereLiteError, OSError) as error:
                player = f"<p class=who>{escape(str(error))}</p>"
            yield _utterance(found, player, names)


def _utterance(lines: Sequence[dict[str, Any]], player: str, names: dict[str, str]) -> str:
    first = lines[0]
    who = [first["id"], f"{first['seconds']:.1f} s", *filter(None, (first["speaker"], first["recording"]))]
    parts = [f"<article><p class=who>{escape(', '.join(who))}</p>{player}"]
    parts.append(f"<p dir=auto>{escape(first['reference'])}</p>")
    for line in lines:
        compared = next(filter(None, (line[way] for way in reversed(WAYS))), None)
        if compared:
            joint = "" if " " not in compared["reference"] + compared["hypothesis"] else " "
            text = joint.join(_pair(said, heard) for said, heard in compared["pairs"])
            parts.append(f"<p dir=auto><bdi class=who>{escape(names[line['model']])}:</bdi> {text}</p>")
    return "".join([*parts, "</article>"])


def _pair(said: str, heard: str) -> str:
    if said.replace(" ", "") == heard.replace(" ", ""):
        return escape(said)
    missing, added = said and f"<del>{escape(said)}</del>", heard and f"<ins>{escape(heard)}</ins>"
    return f"<span class=wrong>{missing} {added}</span>" if missing and added else missing or added


def _player(samples: NDArray[np.float32]) -> str:
    pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(pcm.tobytes())
    data = base64.b64encode(file.getvalue()).decode()
    return f'<audio controls preload=none src="data:audio/wav;base64,{data}"></audio>'
