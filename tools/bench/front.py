"""The parts around the model: features, resampling, and the command line with the embedded model.

python -m tools.bench.front     (started by python -m tools.bench; prints one JSON object)
"""

import json
import subprocess
import sys

import numpy as np

from cohere_lite.mel import log_mel
from cohere_lite.model import DEMO_FOLDER
from cohere_lite.resample import resample

from .runtimes import RATE, Skip, reference_extractor
from .worker import median

REPEATS = 7


def main() -> int:
    speech = np.random.default_rng(0).standard_normal(11 * RATE).astype(np.float32) * 0.1
    minute = np.random.default_rng(1).standard_normal(60 * 44100).astype(np.float32) * 0.1
    command = [sys.executable, "-m", "cohere_lite", str(DEMO_FOLDER / "sample.wav")]
    found = {
        "mel_11_s": median(REPEATS, log_mel, speech),
        "resample_minute": median(REPEATS, resample, minute, 44100, RATE),
        "command": median(REPEATS, lambda: subprocess.run(command, check=True, capture_output=True)),
    }
    try:
        extractor = reference_extractor()
        reference = median(REPEATS, lambda: extractor(speech, sampling_rate=RATE, return_tensors="pt"))
        found["reference_mel_11_s"] = reference
    except Skip:
        pass
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
