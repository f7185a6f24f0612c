"""Side by side at real size: speed, loading and memory of every runtime that is installed, and the floors under them.

    python -m tools.bench MODELS_FOLDER [--quick] [--rounds 3] [--gguf FILE ...] [--only TEXT ...]

Makes     what is missing in MODELS_FOLDER (random weights; see models.py for what that takes)
Measures  every runtime in a process of its own, one after the other, and all of them again in the next round, so that
          a slow spell of the machine hits all alike; medians over the rounds
          --quick: 2 of the 48 encoder layers, 10 s of audio, QUICK_ROWS, one round; a minute once the models are made
Writes    a Markdown table to stdout, all numbers to --out (default: tools/bench/results.json, or quick.json)
Needs     pip install '.[export]' --group reference; transcribe-cpp if you like
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from .models import Models, make
from .runtimes import THREADS, rows
from .worker import LONG

PACKAGES = ("onnxruntime", "numpy", "torch", "transformers", "sherpa-onnx", "transcribe-cpp")
# what --quick compares, one of each kind
QUICK_ROWS = (
    "card's script, card's files",
    "cohere_lite, card's files converted",
    "transcribe-rs's loop, audio int8",
    "cohere_lite, audio int8",
    "transformers.js's loop, merged q4",
    "cohere_lite, merged q4",
    "onnx-asr, mems int8",
    "cohere_lite, mems int8",
    "cohere_lite, int8",
    "cohere_lite, int4 decoder",
    "transformers, bfloat16",
    "sherpa-onnx, our static files",
)
# key in the results, heading, factor, digits
COLUMNS = [
    ("first_start_s", "first start s", 1, 1),
    ("cold_load_s", "load, cold s", 1, 1),
    ("load_s", "load, warm s", 1, 1),
    ("encoder_5_s", "encoder 5 s, ms", 1e3, 0),
    ("encoder_10_s", "10 s", 1e3, 0),
    ("encoder_30_s", "30 s", 1e3, 0),
    ("token_10_s", "token at 10 s, ms", 1e3, 1),
    ("token_30_s", "at 30 s", 1e3, 1),
    ("language_10_s", "language of 10 s, of 14, ms", 1e3, 0),
    ("clip_10_s", "10 s clip, 35 tokens, s", 1, 2),
    ("clip_30_s", "30 s clip, 100 tokens, s", 1, 2),
    ("words_10_s", "word times of 10 s, ms", 1e3, 0),
    ("words_30_s", "of 30 s", 1e3, 0),
    ("tokens_per_s", "tokens/s, 30 s pieces", 1, 0),
    ("tokens_per_s_batch", "8 at once", 1, 0),
    ("ten_minutes_s", "10 minutes, s", 1, 0),
    ("peak_mb", "peak MB", 1, 0),
    ("private_mb", "private MB", 1, 0),
]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", type=Path, help="folder for checkpoint and exports, made on first use")
    parser.add_argument("--quick", action="store_true", help="2 of the 48 encoder layers, 10 s of audio, one round")
    parser.add_argument("--rounds", type=int, help="(default: 3)")
    parser.add_argument("--gguf", type=Path, nargs="*", default=[], help="files for transcribe.cpp")
    parser.add_argument("--only", nargs="*", metavar="TEXT", help="rows whose names hold one of these")
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    args = parser.parse_args(argv)
    models = make(args.models, args.quick, args.gguf)
    names = [name for name in rows(models) if not args.quick or args.only or name in QUICK_ROWS]
    names = [name for name in names if any(text in name for text in args.only or [""])]
    rounds = args.rounds or (1 if args.quick else 3)
    results = run(models, names, rounds, args.quick)
    report = {"date": str(date.today()), "machine": machine(), "threads": THREADS, "rounds": rounds} | results
    out = args.out or Path(__file__).parent / ("quick.json" if args.quick else "results.json")
    out.write_text(json.dumps(report, indent=1) + "\n")
    print_report(report)
    return 0


def run(models: Models, names: list[str], rounds: int, quick: bool) -> dict:
    shutil.rmtree(models.cache, ignore_errors=True)
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    skipped: dict[str, str] = {}
    floors: dict[str, list[float]] = {}
    front: dict[str, list[float]] = {}

    def add(into: dict[str, list[float]], found: dict[str, float]) -> None:
        for key, value in found.items():
            into.setdefault(key, []).append(value)

    for turn in range(rounds):
        add(floors, child("floors", str(models.root)))
        add(front, child("front"))
        for name in names:
            if name in skipped:
                continue
            print(f"round {turn + 1}: {name}", file=sys.stderr)
            arguments = [name, str(models.root), *map(str, models.gguf)]
            found: dict[str, Any] = {}
            if not quick:
                if turn == 0 and name.startswith("cohere_lite") and "no cache" not in name:
                    first = child("worker", "cold", *arguments)  # prepares its copies
                    if "skipped" not in first:
                        add(measured[name], {"first_start_s": first["cold_load_s"]})
                found = child("worker", "cold", *arguments)
            if "skipped" not in found:
                found |= child("worker", "quick" if quick else "all", *arguments)
            if "skipped" in found:
                skipped[name] = str(found["skipped"])
            else:
                add(measured[name], found)
    rows_ = {name: {key: summary(values) for key, values in found.items()} for name, found in measured.items() if found}
    return {
        "encoder_layers": models.shape.encoder_layers,
        "rows": {name: row for name, row in rows_.items() if name not in skipped},
        "skipped": skipped,
        "floors": {key: summary(values) for key, values in floors.items()},
        "front": {key: summary(values) for key, values in front.items()},
    }


def child(module: str, *arguments: str) -> dict:
    """What a module of this package prints, run as a process of its own. A runtime that fails is skipped."""
    command = [sys.executable, "-m", f"tools.bench.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if module != "worker":
            raise RuntimeError(f"tools.bench.{module}: {why}")
        return {"skipped": f"failed: {why}"}
    return json.loads(done.stdout.splitlines()[-1])


def summary(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


def machine() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    telling = [flag for flag in ("avx2", "avx512_vnni", "amx_int8", "asimddp", "i8mm") if flag in flags]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": " ".join([fields.get("model name", platform.processor()), *telling]),
        "system": platform.platform(),
        "python": platform.python_version(),
    } | versions


def print_report(report: dict) -> None:
    columns = [c for c in COLUMNS if any(c[0] in row for row in report["rows"].values())]
    print(f"| {report['encoder_layers']} encoder layers | {' | '.join(heading for _, heading, _, _ in columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in report["rows"].items():
        cells = [cell(row, key, factor, digits) for key, _, factor, digits in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    print()
    for name, why in report["skipped"].items():
        print(f"skipped: {name}: {why}")
    floors = {key: value["median"] for key, value in report["floors"].items()}
    print(
        f"floors: INT8 products of the encoder {floors['encoder_10_s'] * 1e3:.0f} ms at 10 s and "
        f"{floors['encoder_30_s'] * 1e3:.0f} ms at 30 s; of a token {floors['token_int8'] * 1e3:.1f} ms "
        f"(INT4 {floors['token_int4'] * 1e3:.1f}); reading the decoder's weights at {floors['bytes_per_s'] / 1e9:.0f} "
        f"GB/s {floors['token_bytes'] * 1e3:.1f} ms"
    )
    front = {key: value["median"] for key, value in report["front"].items()}
    reference = f" (reference {front['reference_mel_11_s'] * 1e3:.1f})" if "reference_mel_11_s" in front else ""
    print(
        f"front end: 11 s of features {front['mel_11_s'] * 1e3:.1f} ms{reference}; a minute of 44.1 kHz resampled "
        f"{front['resample_minute'] * 1e3:.0f} ms; the command with the embedded model {front['command']:.2f} s"
    )
    for line in ratios(report["rows"], floors, front):
        print(line)


def cell(row: dict, key: str, factor: float, digits: int) -> str:
    """A median; "~" before ten minutes that were not run: without batches they are clips one after the other."""
    if key in row:
        return f"{row[key]['median'] * factor:.{digits}f}"
    pieces, seconds, _ = LONG
    if key == "ten_minutes_s" and f"clip_{seconds}_s" in row:
        return f"~{pieces * row[f'clip_{seconds}_s']['median']:.0f}"
    return ""


def ratios(rows: dict, floors: dict, front: dict) -> list[str]:
    """What the numbers are for: this runtime against the others and against its floors."""
    ours, card = rows.get("cohere_lite, int8"), rows.get("card's script, card's files")
    if not ours:
        return []

    def of(row: dict, key: str) -> float:
        return row[key]["median"]

    lines = []
    if card:
        for key in [key for key in card if key.startswith(("token", "encoder", "clip"))]:
            lines.append(f"card's script / cohere_lite, {key}: {of(card, key) / of(ours, key):.2f}")
    lines.append(f"cohere_lite / floor, token at 10 s: {of(ours, 'token_10_s') / floors['token_int8']:.2f}")
    for key in [key for key in floors if key.startswith("encoder") and key in ours]:
        lines.append(f"cohere_lite / floor, {key}: {of(ours, key) / floors[key]:.2f}")
    for name, row in rows.items():
        if not name.startswith(("cohere_lite", "card")):
            lines.append(f"{name} / cohere_lite, clip_10_s: {of(row, 'clip_10_s') / of(ours, 'clip_10_s'):.2f}")
    if "tokens_per_s_batch" in ours:
        lines.append(
            f"8 pieces at once / one by one, tokens/s: {of(ours, 'tokens_per_s_batch') / of(ours, 'tokens_per_s'):.2f}"
        )
    if "reference_mel_11_s" in front:
        lines.append(f"reference / cohere_lite, features: {front['reference_mel_11_s'] / front['mel_11_s']:.1f}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
