"""Word error rates of exported models on the demonstration model's held-out recordings, clean and in noise.

    python -m tools.evaluate [MODEL_FOLDER ...] [--sentences 100]      (default: the embedded model)

Reads   model folders that know en, de, fr and es
Writes  a Markdown table to stdout: percent of words wrong, without case and punctuation, per language
Needs   espeak-ng, jiwer
"""

import argparse
import sys
from pathlib import Path

from jiwer import wer

from cohere_lite import Transcriber
from cohere_lite.model import DEMO_FOLDER

from .demo.heldout import UTTERANCES, heldout
from .demo.sentences import LANGUAGES, without_punctuation

NOISE_DB = (None, 20, 10, 5)  # white noise, signal-to-noise ratio; None: clean


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", default=[str(DEMO_FOLDER)], help="(default: the embedded model)")
    parser.add_argument("--sentences", type=int, default=UTTERANCES, help="of each language (default: 100)")
    args = parser.parse_args(argv)
    models = {folder: Transcriber(folder) for folder in args.models}
    print(f"| model | noise | {' | '.join(LANGUAGES)} |")
    print("|---" * (2 + len(LANGUAGES)) + "|")
    for snr_db in NOISE_DB:
        recordings = {language: list(heldout(language, args.sentences, snr_db)) for language in LANGUAGES}
        for folder, model in models.items():
            rates = [_error_rate(model, language, recordings[language]) for language in LANGUAGES]
            noise = "none" if snr_db is None else f"{snr_db} dB"
            print(
                f"| {Path(folder).name} | {noise} | {' | '.join(f'{100 * rate:.1f}' for rate in rates)} |", flush=True
            )
    return 0


def _error_rate(model: Transcriber, language: str, recordings: list) -> float:
    said = [without_punctuation(text) for _, text, _ in recordings]
    heard = [
        model.transcribe(samples, rate=16000, language=language, punctuation=False).text for samples, _, _ in recordings
    ]
    return wer(said, heard)


if __name__ == "__main__":
    sys.exit(main())
