"""Write the package's sample recording: ``python -m tools.demo.sample --out FILE.wav --kokoro FOLDER``.

A held-out sentence spoken by a held-out voice: 16 kHz, mono, 16 bits, peak 0.5.  Needs what the synthesiser needs.
"""

import argparse
import wave
from pathlib import Path

import numpy as np

from .acoustics import SAMPLE_RATE, Samples, at_peak, silence
from .heldout import MARGIN, PEAK
from .recordings import audible
from .sentences import Grammar
from .voices import HELD_OUT, speak

TEXT = "Turn on the light in the living room."
ENCODER_FRAME = 1280  # samples: 80 ms; the recording has a whole number of them, so that its length is a round one
SYNTHESISER, VOICE = "kokoro", {"language": "en-gb", "voice": "bm_george", "speed": 1.1}


def spoken(kokoro: Path) -> Samples:
    """The recording: float32 (n,), 16 kHz.  kokoro: the folder with Kokoro's files."""
    words = audible(speak(SYNTHESISER, TEXT, VOICE, kokoro))
    recording = np.concatenate([silence(MARGIN), at_peak(words, PEAK), silence(MARGIN)])
    return np.concatenate([recording, np.zeros(-len(recording) % ENCODER_FRAME, np.float32)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo.sample", description="Write the sample recording.")
    parser.add_argument("--out", type=Path, required=True, help="WAV file to write")
    parser.add_argument("--kokoro", type=Path, required=True, help="folder of its files: DIR/voices/kokoro")
    args = parser.parse_args()
    assert Grammar("en").held_out(TEXT)
    assert VOICE["voice"] in HELD_OUT[SYNTHESISER]
    samples = spoken(args.kokoro)
    with wave.open(str(args.out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    print(f"{args.out}: {len(samples) / SAMPLE_RATE:.2f} s, {TEXT}")


if __name__ == "__main__":
    main()
