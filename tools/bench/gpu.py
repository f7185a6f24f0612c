"""What a model takes on a GPU, whether it says there what it says on the CPU, and whether its caches stay there.

    tools/bench/gpu.sh [--provider cuda] [--precision fp16 q8f16 q4f16 bf16] [--work FOLDER] [--out FILE] [--quick]

Random weights of the real size; against transformers in bfloat16 on the same card, and against the floor: reading a
token's weights at the bandwidth of a copy. What matters most comes first, every result is in the file at once, and what
does not fit into MINUTES is left out. --quick: a tiny model, so that all of this runs without a GPU. Exit code 1 if a
check failed, or anything did not run.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# The package, NumPy and onnxruntime are imported inside functions: `missing` names what is not there.

MINUTES = 9
DISK = 24e9  # bytes: two checkpoints, and exports of them
NEEDED = ("numpy", "onnxruntime", "onnx", "safetensors", "ml_dtypes")
COMPARED = ("torch", "transformers")
DEMO = Path(__file__).parents[1] / "demo" / "checkpoint"
LAYERS, FEW_LAYERS = 48, 2  # of the encoder; few where only the decoder matters
TINY = {"encoder-layers": 2, "encoder-width": 64, "encoder-ffn": 128, "subsampling-channels": 16, "decoder-layers": 2}
TINY |= {"decoder-width": 128, "decoder-ffn": 96, "max-positions": 128, "vocab-size": 300}
EXPORTS = {
    "fp32": ["--precision", "fp32"],
    "fp16": ["--precision", "fp16"],
    "q8f16": ["--precision", "fp16", "--weights", "8"],
    "q4f16": ["--precision", "fp16", "--weights", "4"],
    "bf16": ["--precision", "bf16"],
    "q8bf16": ["--precision", "bf16", "--weights", "8"],
    "q4bf16": ["--precision", "bf16", "--weights", "4"],
}
THEIRS = "bfloat16"
FLOOR, AHEAD = 1.5, 2.0  # targets: a token over the floor at most, transformers' token over ours at least

Step = tuple[str, list[str]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/bench/gpu.sh", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--provider", default="cuda", help="as for cohere_lite (default: cuda)")
    parser.add_argument("--precision", nargs="+", choices=EXPORTS, default=["fp16", "q8f16", "q4f16", "bf16"])
    parser.add_argument("--work", type=Path, help="folder for models (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file for all numbers (default: gpu.json)")
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    args = parser.parse_args(argv)
    deadline = time.monotonic() + MINUTES * 60
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        if lacking := missing(args.provider, work, args.quick):
            print(f"error: {lacking}", file=sys.stderr)
            return 1
        report: dict[str, Any] = {"date": str(date.today()), "machine": about(args.provider)}
        report |= {"provider": args.provider, "size": "quick" if args.quick else "full", "steps": {}}
        for name, command in plan(args.provider, args.precision, work, args.quick):
            began = time.monotonic()
            found = run(command, deadline - began)
            found["took_s"] = round(time.monotonic() - began, 1)
            report["steps"][name] = found
            print(f"{found['took_s']:6.1f} s  {name}: {outcome(found)}", file=sys.stderr, flush=True)
            args.out.write_text(json.dumps(report, indent=1) + "\n")
    print_report(report)
    return int(any(outcome(found) != "done" for found in report["steps"].values()))


def missing(provider: str, work: Path, quick: bool) -> str | None:
    """What to bring along, in one line."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        return f"this Python ({sys.executable}) has no {', '.join(lacking)}: pip install {' '.join(lacking)}"
    from cohere_lite.errors import CohereLiteError
    from cohere_lite.session import find_opener

    try:
        find_opener([provider])
    except CohereLiteError as error:
        return str(error)
    found = run([sys.executable, "-m", "tools.bench.device", "bandwidth", provider, str(work), "fp32", "quick"], 60)
    if "failed" in found:
        return f"{provider} does not run here: {found['failed']}"
    free = shutil.disk_usage(work).free
    if not quick and free < DISK:
        return f"{work} has {free / 1e9:.0f} GB free, models take {DISK / 1e9:.0f}: name another folder with --work"
    for name in COMPARED:
        if importlib.util.find_spec(name) is None:
            print(f"without {name} there is nothing to compare with", file=sys.stderr)
    return None


def about(provider: str) -> dict[str, str]:
    """The machine, the versions, and of an NVIDIA GPU what nvidia-smi tells."""
    from cohere_lite.session import ort

    from .__main__ import machine

    found = machine() | {"onnxruntime": ort.__version__}  # not the one of its packages that pip lists
    if provider != "cuda" or shutil.which("nvidia-smi") is None:
        return found
    fields = ("name", "driver_version", "memory.total", "clocks.mem", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return found | {"gpu": "; ".join(done.stdout.splitlines())}


def plan(provider: str, precisions: list[str], work: Path, quick: bool) -> list[Step]:
    """Names and commands, what matters most first: the decoder in the first precision, for which an encoder of few
    layers will do; then texts, whole clips, and the decoder in the other precisions."""
    python = [sys.executable, "-m"]

    def make(kind: str, precision: str) -> Step:
        source = DEMO if kind == "demo" else work / kind / "checkpoint"
        arguments = [str(source), str(work / kind / precision), *EXPORTS[precision]]
        return f"export {kind} {precision}", [*python, "cohere_lite.export", *arguments]

    def checkpoint(kind: str, encoder_layers: int) -> Step:
        shape = TINY if quick else {"encoder-layers": encoder_layers}
        arguments = [str(work / kind / "checkpoint"), *(f"--{key}={value}" for key, value in shape.items())]
        return f"weights {kind}", [*python, "tools.random_checkpoint", *arguments]

    def measure(step: str, precision: str) -> Step:
        size = "quick" if quick else "full"
        return f"{step} {precision}", [*python, "tools.bench.device", step, provider, str(work), precision, size]

    made: set[str] = set()

    def make_decoders(precision: str) -> list[Step]:
        """And the one that the CPU runs beside it."""
        new = {precision, in_float16(precision)} - made
        made.update(new)
        return [make("decoder", one) for one in sorted(new)]

    first, *others = precisions
    compared = all(importlib.util.find_spec(name) for name in COMPARED)
    steps = [measure("bandwidth", "fp32")]
    steps += [checkpoint("decoder", FEW_LAYERS), *make_decoders(first)]
    steps += [measure(step, first) for step in ("tokens", "copies", "same")]
    steps += [measure("tokens", THEIRS)] * compared
    for precision in precisions:
        steps += [make("demo", precision), measure("text", precision)]
    steps += [checkpoint("full", LAYERS), make("full", first), measure("clips", first)]
    steps += [measure("clips", THEIRS)] * compared
    for precision in others:
        steps += [*make_decoders(precision), measure("tokens", precision), measure("same", precision)]
    return steps


def in_float16(precision: str) -> str:
    """The precision with the same weights that the CPU runs: bf16 -> fp16, q8bf16 -> q8f16."""
    return precision.replace("bf16", "f16" if precision.startswith("q") else "fp16")


def run(command: list[str], seconds: float) -> dict[str, Any]:
    """The JSON object that a command prints, {} where it prints none; or why it failed, in a line."""
    if seconds <= 0:
        return {"failed": "no time was left"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"no time was left after {seconds:.0f} s"}
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        errors = [line for line in told if re.match(r"[\w.]*(Error|Exception|error)\b", line)]  # a message may go on
        return {"failed": (errors or told)[-1], "stderr": told[-30:]}
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}


def outcome(found: dict[str, Any]) -> str:
    return found.get("failed") or ("done" if found.get("ok", True) else f"WRONG: {found}")


def print_report(report: dict[str, Any]) -> None:
    steps: dict[str, dict[str, Any]] = report["steps"]
    on = report["machine"]
    print(f"{on.get('gpu') or on['cpu']}; {report['provider']}, onnxruntime {on['onnxruntime']}; {report['size']} size")
    for name, found in steps.items():
        if outcome(found) != "done":
            print(f"{name}: {outcome(found)}")
    print("\n".join(token_lines(steps) + clip_lines(steps)))


def token_lines(steps: dict[str, dict[str, Any]]) -> list[str]:
    """A table, and what it says of the targets."""
    found = {name.split()[1]: step for name, step in steps.items() if name.startswith("tokens ") and "load_s" in step}
    bytes_per_s = steps.get("bandwidth fp32", {}).get("bytes_per_s")
    theirs = found.get(THEIRS)
    lines, targets = [], []
    for precision, step in found.items():
        token = step["token_1_ms"]
        others = ("token_8_ms", "run_ms", "unrecorded_ms")
        cells = [f"{token:.3f}", *(f"{step[key]:.3f}" if key in step else "" for key in others)]
        floor = step["weight_bytes"] / bytes_per_s * 1e3 if bytes_per_s and "weight_bytes" in step else None
        cells.append(f"{floor:.3f}" if floor else "")
        lines.append(f"| {'transformers ' * (precision == THEIRS)}{precision} | {' | '.join(cells)} |")
        if floor:
            targets.append(f"{precision}: a token takes {token / floor:.2f} times its floor (target: {FLOOR:g})")
        if theirs and step is not theirs:
            ahead = [f"{theirs[key] / step[key]:.2f}" for key in ("token_1_ms", "token_8_ms") if key in step]
            targets.append(
                f"{precision}: transformers takes {' and '.join(ahead)} times as long for a token of one"
                f"{' and of 8 clips' if len(ahead) > 1 else ' clip'} (target: {AHEAD:g})"
            )
    head = "| decoder | ms a token | of 8 clips | the graph alone | kernel by kernel | floor |"
    bandwidth = [f"copy: {bytes_per_s / 1e9:.0f} GB/s, read and written"] if bytes_per_s else []
    return [head, "|---" * 6 + "|", *lines, "", *bandwidth, *targets] if lines else bandwidth


def clip_lines(steps: dict[str, dict[str, Any]]) -> list[str]:
    """A table of whole clips and their parts."""
    found = {name.split()[1]: step for name, step in steps.items() if name.startswith("clips ") and "load_s" in step}
    if not found:
        return []
    columns = [key for key in next(iter(found.values())) if key.endswith("_ms")]
    lines = [
        "",
        f"| {' | '.join(['ms', *(key[:-3].replace('_', ' ') for key in columns)])} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for precision, step in found.items():
        cells = [f"{step[key]:.1f}" for key in columns]
        lines.append(f"| {'transformers ' * (precision == THEIRS)}{precision} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
