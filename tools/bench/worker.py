"""Measure one runtime in a process of its own, so that memory and loading are its own. Prints one JSON object.

    python -m tools.bench.worker all|quick|cold ROW MODELS_ROOT [GGUF ...]     (started by python -m tools.bench)

quick: 10 s of audio only;  cold: only load, with the files out of the page cache first.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .models import Models
from .runtimes import RATE, Lite, Skip, rows

ENCODER_S = (5, 10, 30)
LANGUAGE_S = 10  # seconds of audio whose language is found
CLIPS = {10: 35, 30: 100}  # seconds of audio: tokens, as in speech
STEPS = 30  # tokens timed for a median
REPEATS = 3  # of everything else: the first one, which touches memory for the first time, never is the median
LONG = (20, 30, 100)  # ten minutes: pieces, seconds each, tokens each
BATCH = 8


def main() -> int:
    what, name, root, *gguf = sys.argv[1:]
    models = Models(Path(root), tuple(map(Path, gguf)))
    open_runtime = rows(models)[name]
    try:
        if what == "cold":
            forget_files([models.root, *models.gguf])
            found = {"cold_load_s": timed(open_runtime)[0]}
        else:
            found = measure(open_runtime, quick=what == "quick")
        json.dump(found, sys.stdout)
    except Skip as why:
        json.dump({"skipped": str(why)}, sys.stdout)
    return 0


def measure(open_runtime: Callable[[], Any], quick: bool) -> dict[str, float]:
    """Seconds, and MB of memory, by column."""
    load_s, runtime = timed(open_runtime)
    found = {"load_s": load_s}
    noise = np.random.default_rng(0).standard_normal(30 * RATE).astype(np.float32) * 0.05
    audio = {seconds: noise[: seconds * RATE] for seconds in ((10,) if quick else ENCODER_S)}
    clips = {seconds: CLIPS[seconds] for seconds in audio if seconds in CLIPS}
    if hasattr(runtime, "encode"):
        for seconds, samples in audio.items():
            features = runtime.features(samples)
            found[f"encoder_{seconds}_s"] = median(REPEATS, runtime.encode, features)
            if seconds in clips:
                runtime.step(runtime.prompt)
                found[f"token_{seconds}_s"] = median(STEPS, runtime.step, [20])
            if seconds == LANGUAGE_S and hasattr(runtime, "find_language"):
                found[f"language_{seconds}_s"] = median(REPEATS, runtime.find_language, seconds)
        for seconds, n_tokens in clips.items():
            found[f"clip_{seconds}_s"] = timed(whole_clip, runtime, audio[seconds], n_tokens)[0]
        found |= memory()
        for seconds, n_tokens in clips.items() if isinstance(runtime, Lite) else ():
            if words := runtime.words(audio[seconds], n_tokens):
                found[f"words_{seconds}_s"] = median(REPEATS, words)
        if getattr(runtime, "long", False) and not quick:
            found |= ten_minutes(runtime, noise)
    else:
        for seconds, n_tokens in clips.items():
            start, per_token = runtime.parts(audio[seconds], REPEATS)
            found[f"token_{seconds}_s"] = per_token
            found[f"clip_{seconds}_s"] = start + (n_tokens - 1) * per_token
        found |= memory()
    return found


def whole_clip(runtime: Any, samples: np.ndarray, n_tokens: int) -> None:
    runtime.encode(runtime.features(samples))
    runtime.step(runtime.prompt)
    for _ in range(n_tokens - 1):
        runtime.step([20])


def ten_minutes(runtime: Lite, piece: np.ndarray) -> dict[str, float]:
    """Decoding one piece at a time; and everything in batches, as `Transcriber` runs it."""
    pieces, _, n_tokens = LONG
    features = runtime.features(piece)

    def decode(clips: int) -> float:
        runtime.encode(*[features] * clips)
        began = time.perf_counter()
        runtime.step(runtime.prompt)
        for _ in range(n_tokens - 1):
            runtime.step([20])
        return time.perf_counter() - began

    alone = float(np.median([decode(1) for _ in range(3)]))
    began = time.perf_counter()
    spent = [decode(min(BATCH, pieces - first)) for first in range(0, pieces, BATCH)]
    return {
        "tokens_per_s": n_tokens / alone,
        "tokens_per_s_batch": BATCH * n_tokens / spent[0],
        "ten_minutes_s": time.perf_counter() - began,
        "batch_private_mb": memory()["private_mb"],
    }


def memory() -> dict[str, float]:
    """Peak of all resident memory, and what is private to this process now (not backed by files), MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {key: int(lines[name].split()[0]) / 1e3 for key, name in (("peak_mb", "VmHWM"), ("private_mb", "RssAnon"))}


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def median(repeats: int, function: Callable[..., Any], *arguments: Any) -> float:
    return float(np.median([timed(function, *arguments)[0] for _ in range(repeats)]))


def forget_files(places: list[Path]) -> None:
    """Out of the page cache, so that the next load is a cold one."""
    for place in places:
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())  # what is not written yet would stay
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
