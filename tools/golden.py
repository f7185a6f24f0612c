"""Make tests/golden/: log-mel features by the live reference, `CohereAsrFeatureExtractor`.

    python -m tools.golden [FOLDER]

Needs torch, transformers and the program espeak-ng. Writes mel.npz and manifest.json, which says what each array is and
which versions made it. Inputs are stored as int16 (sample = value / 32768), so they do not depend on any version;
features made on another machine differ in their last bits, as the tolerances in tests/test_mel.py allow.
"""

import argparse
import io
import json
import platform
import subprocess
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohere_lite.resample import Resampler

FOLDER = Path(__file__).parents[1] / "tests" / "golden"

THIRTY_SECONDS = 480_000  # samples
# Of the 30 s clip every 37th frame is kept: 37 is odd, so every position in an FFT block of 2^k frames is met.
STEP = 37  # frames
DITHER_LENGTHS = (160, 161, 175, 176_015)  # samples; n % 16 = 0, 1, 15, 15
DITHER_ENDS = 48  # values kept from each end: three blocks of 16

RULES = {
    "speech": "espeak-ng, voice en-us, 'Please turn on the lights in the kitchen.', resampled to 16 kHz",
    "music": "19 harmonics of 220 Hz, vibrato 3 Hz wide at 5 Hz, tremolo at 2 Hz",
    "noise": "uniform in -3277..3276",
    "short": "the first 799 values of noise",
    "faint": "uniform in -3..3, about 1e-4 of full scale",
    "silence": "zeros",
    "thirty_seconds": f"speech repeated to {THIRTY_SECONDS} values (numpy.resize); not stored",
}


def signals() -> dict[str, NDArray[np.int16]]:
    """The input of each case in RULES: int16 (n,), 16 kHz. Lengths n % 16: 15, 1, 0, 15, 1, 0, 0."""
    random = np.random.RandomState(0)
    speech = _speech("Please turn on the lights in the kitchen.")
    speech = speech[: (len(speech) - 15) // 16 * 16 + 15]
    noise = random.randint(-3277, 3277, 16_000).astype(np.int16)
    return {
        "speech": speech,
        "music": _music(16_001),
        "noise": noise,
        "short": noise[:799],
        "faint": random.randint(-3, 4, 16_001).astype(np.int16),
        "silence": np.zeros(16_000, np.int16),
        "thirty_seconds": np.resize(speech, THIRTY_SECONDS),
    }


def _speech(text: str) -> NDArray[np.int16]:
    command = ["espeak-ng", "-v", "en-us", "--stdout", text]
    header_and_data = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(header_and_data)) as file:
        samples = np.frombuffer(file.readframes(len(header_and_data)), "<i2").astype(np.float32)
        resampler = Resampler(file.getframerate())
        return _to_int16(np.concatenate([resampler.push(samples / np.float32(32768)), resampler.finish()]))


def _music(n: int) -> NDArray[np.int16]:
    t = np.arange(n) / 16_000
    phase = 2 * np.pi * 220 * t + 3 / 5 * np.sin(2 * np.pi * 5 * t)
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    return _to_int16(0.1 * (1 + np.sin(2 * np.pi * 2 * t)) * tone)


def _to_int16(samples: NDArray[Any]) -> NDArray[np.int16]:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def main(folder: Path) -> None:
    import torch
    import transformers

    extractor = transformers.CohereAsrFeatureExtractor()
    arrays: dict[str, NDArray[Any]] = {}
    for name, signal in signals().items():
        samples = signal.astype(np.float32) / 32768
        features = extractor(samples, sampling_rate=16_000, return_tensors="np")
        valid = features["input_features"][0][features["attention_mask"][0] == 1].T
        if name == "thirty_seconds":
            arrays[f"{name}.features"] = valid[:, ::STEP]
        else:
            arrays[f"{name}.samples"] = signal
            arrays[f"{name}.features"] = valid
    for n in DITHER_LENGTHS:
        normal = torch.randn(n, generator=torch.Generator().manual_seed(n)).numpy()
        arrays[f"dither.{n}"] = np.concatenate([normal[:DITHER_ENDS], normal[-DITHER_ENDS:]])

    espeak = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout.split()
    manifest = {
        "made_by": "python -m tools.golden",
        "versions": {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "espeak-ng": espeak[espeak.index("text-to-speech:") + 1],
            "machine": platform.machine(),
        },
        "extractor": {key: value for key, value in extractor.to_dict().items() if isinstance(value, int | float)},
        "dither_rule": "waveform += dither * torch.randn(n, generator=torch.Generator().manual_seed(n)), on the CPU",
        "arrays": {
            "<case>.samples": "int16 (n,), sample = value / 32768, 16 kHz",
            "<case>.features": "float32 (128, n // 160), the frames that the reference does not mask",
            "thirty_seconds.features": f"every {STEP}th of those frames",
            "dither.<n>": f"float32, the first and the last {DITHER_ENDS} values of torch.randn, seed n",
        },
        "cases": RULES,
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "mel.npz", allow_pickle=False, **arrays)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.golden", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: tests/golden")
    main(parser.parse_args().folder)
