"""Long recordings: peak memory and speed of the command line with the embedded model, 10 minutes against 3 hours.

python -m tools.bench.long [MINUTES ...]     (default: 10 180)

Makes    a WAV file of each length in a temporary folder: the sample recording over and over with 1 s of silence after
         it, at 22.05 kHz, so that all of reading, resampling and cutting takes part (26 MB for 10 minutes)
Writes   a Markdown table to stdout: cut as the reference cuts, and at pauses
Needs    POSIX (wait4)
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import soxr

from cohere_lite.model import DEMO_FOLDER

RATE = 22_050  # Hz


def main(minutes: list[float]) -> int:
    print("| audio | cut at | peak memory, MB | time, s | x real time |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for length_min in minutes:
            path = Path(folder) / f"{length_min:g}.wav"
            write_recording(path, length_min)
            for cut in ("chunks", "pauses"):
                peak_mb, spent_s = run(path, cut)
                speed = 60 * length_min / spent_s
                print(f"| {length_min:g} min | {cut} | {peak_mb:.0f} | {spent_s:.1f} | {speed:.0f} |", flush=True)
            path.unlink()
    return 0


def write_recording(path: Path, length_min: float) -> None:
    with wave.open(str(DEMO_FOLDER / "sample.wav")) as file:
        speech = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
        speech = np.append(speech, np.zeros(file.getframerate(), np.float32))
        part = np.round(soxr.resample(speech, file.getframerate(), RATE)).clip(-(2**15), 2**15 - 1).astype("<i2")
    left = round(60 * length_min * RATE)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, left, "NONE", ""))
        while left > 0:
            file.writeframes(part[:left].tobytes())
            left -= len(part)


def run(path: Path, cut: str) -> tuple[float, float]:
    """Peak resident memory in MB, and seconds."""
    command = [sys.executable, "-m", "cohere_lite", "--quiet", "--cut", cut, str(path)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return usage.ru_maxrss * unit / 1e6, time.monotonic() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.bench.long", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("minutes", nargs="*", type=float, default=[10, 180], help="of each recording (default: 10 180)")
    sys.exit(main(parser.parse_args().minutes))
