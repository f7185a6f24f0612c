"""The parts around the model: features, resampling, and the command line with the embedded model.

python -m tools.bench.front     (started by python -m tools.bench; prints one JSON object)
"""

import json
import subprocess
import sys

import numpy as np

from cohere_lite.mel import log_mel
from cohere_lite.model import DEMO_FOLDER
from cohere_lite.resample import Resampler

from .runtimes import RATE, Skip, reference_extractor
from .worker import median

REPEATS = 7


def main() -> int:
    speech = np.random.default_rng(0).standard_normal(11 * RATE).astype(np.float32) * 0.1
    minute = np.random.default_rng(1).standard_normal(60 * 44100).astype(np.float32) * 0.1
    json.dump(measure(speech, minute, REPEATS), sys.stdout)
    return 0


def measure(speech: np.ndarray, minute: np.ndarray, repeats: int) -> dict[str, float]:
    """Seconds. speech: 11 s at 16 kHz;  minute: at 44.1 kHz."""
    command = [sys.executable, "-m", "cohere_lite", str(DEMO_FOLDER / "sample.wav")]
    found = {
        "mel_11_s": median(repeats, log_mel, speech),
        "resample_minute": median(repeats, _resample, minute, 44100),
        "command": median(repeats, lambda: subprocess.run(command, check=True, capture_output=True)),
    }
    try:
        extractor = reference_extractor()
    except Skip:
        return found
    reference = median(repeats, lambda: extractor(speech, sampling_rate=RATE, return_tensors="pt"))
    return found | {"reference_mel_11_s": reference}


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    resampler = Resampler(rate)
    return np.concatenate([resampler.push(samples), resampler.finish()])


if __name__ == "__main__":
    sys.exit(main())
