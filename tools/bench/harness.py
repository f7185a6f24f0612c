"""What the evaluation costs over the recogniser itself: an utterance's share of the harness's work.

    python -m tools.bench.harness [MODEL] [--seconds 10]      (default: the embedded model)

The sample is repeated to make recordings of so many seconds. The harness's work is the processor time of its process,
which is 0 while the model works: scoring, figures and report are in it, what both need, reading the files, is not. From
two runs of different lengths, so that what is done once cancels out.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np

from cohere_lite.evaluate.__main__ import main as evaluate
from cohere_lite.evaluate.sound import read_sound
from cohere_lite.evaluate.utterances import open_data
from cohere_lite.model import DEMO_FOLDER

COUNTS = (10, 50)
TEXT = "Turn on the light in the living room."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.harness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", default=str(DEMO_FOLDER))
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args.model, 1, args.seconds, Path(folder))  # imports what it needs
        harness_s, reading_s, work_s = zip(
            *(measure(args.model, count, args.seconds, Path(folder)) for count in COUNTS), strict=True
        )
    n = COUNTS[1] - COUNTS[0]
    harness, reading, work = (1e3 * (spent[1] - spent[0]) / n for spent in (harness_s, reading_s, work_s))
    print(
        f"{args.seconds:g} s of sound: recogniser {work:.1f} ms, reading {reading:.2f} ms, harness without reading "
        f"{harness - reading:.2f} ms: {(harness - reading) / work:.1%} of the recogniser"
    )
    return 0


def measure(model: str, count: int, seconds: float, folder: Path) -> tuple[float, float, float]:
    """Seconds of all utterances: of the harness's process, of reading alone, of the model."""
    data, out = folder / f"{count}", folder / f"{count}-out"
    write_recordings(data, count, seconds)
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluate([model, "--data", str(data), "--samples", "all", "--out", str(out)])
    harness_s = time.process_time() - began
    began = time.process_time()
    for utterance in open_data(str(data)).utterances:
        read_sound(utterance)
    reading_s = time.process_time() - began
    lines = map(json.loads, (out / "run.jsonl").read_text(encoding="utf-8").splitlines())
    return harness_s, reading_s, sum(line.get("time_s", 0.0) for line in lines)


def write_recordings(folder: Path, count: int, seconds: float) -> None:
    folder.mkdir()
    with wave.open(str(DEMO_FOLDER / "sample.wav")) as file:
        sample = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    samples = np.resize(sample, round(16000 * seconds))
    for i in range(count):
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
        (folder / f"{i}.txt").write_text(" ".join([TEXT] * -(-len(samples) // len(sample))), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
