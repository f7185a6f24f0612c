"""Write the package's sample recording: ``python -m tools.demo.sample --out FILE.wav``.

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
SYNTHESISER, VOICE = "kokoro", {"language": "en-gb", "voice": "bm_george", "speed": 1.1}


def spoken(kokoro: Path) -> Samples:
    """The recording: float32 (n,), 16 kHz.  kokoro: the folder with Kokoro's files."""
    words = audible(speak(SYNTHESISER, TEXT, VOICE, kokoro))
    return np.concatenate([silence(MARGIN), at_peak(words, PEAK), silence(MARGIN)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo.sample", description="Write the sample recording.")
    parser.add_argument("--out", type=Path, required=True, help="WAV file to write")
    parser.add_argument("--kokoro", type=Path, default=Path("kokoro"), help="folder of Kokoro's files, if it speaks")
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
