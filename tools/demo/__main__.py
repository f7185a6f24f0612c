"""Make the demonstration model: ``python -m tools.demo --out DIR``.

Reads   nothing but this folder.
Writes  the checkpoint into DIR: model.safetensors, config.json, generation_config.json, tokens.txt, tokenizer.model
        and training.json, the record of the run.  DIR/scratch/ (4 GB) holds the training set and the state from which
        an interrupted run goes on; it may be deleted afterwards.
Needs   espeak-ng, torch, transformers, sentencepiece, safetensors, jiwer; 10 GB of memory; under two hours on
        two cores.
"""

import argparse
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from . import checkpoint, dataset, evaluate, train
from .model import DECODER, ENCODER
from .sentences import LANGUAGES, Grammar, without_punctuation
from .synthesise import HELD_OUT_VOICES, TRAINING_VOICES
from .tokenizer import train_tokenizer

TOKENIZER_SENTENCES = 5000  # a language
CONDITIONS: dict[str, dict[str, Any]] = {
    "clean": {},
    "white noise, 20 dB": {"snr_db": 20},
    "white noise, 10 dB": {"snr_db": 10},
    "white noise, 5 dB": {"snr_db": 5},
    "babble, 10 dB": {"snr_db": 10, "kind": "babble"},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="Make the demonstration model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    out = parser.parse_args().out
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)

    texts = []
    for language in LANGUAGES:
        texts += Grammar(language).training(TOKENIZER_SENTENCES, Random(language))
    tokenizer = train_tokenizer(texts + [without_punctuation(text) for text in texts], out)
    if not (scratch / "utterances.jsonl").exists():
        dataset.build(scratch)
    utterances, features = dataset.load(scratch)

    model, history = train.train(utterances, features, tokenizer, scratch)
    checkpoint.save(model, out)
    model = checkpoint.load(out)
    rates = {name: evaluate.word_error_rates(model, tokenizer, **condition) for name, condition in CONDITIONS.items()}
    record = {
        "word_error_rates_percent": rates,
        "held_out_voices": HELD_OUT_VOICES,
        "training_voices": TRAINING_VOICES,
        "utterances": len(utterances),
        "hours": round(len(features) / 100 / 3600, 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "encoder": ENCODER,
        "decoder": DECODER,
        "seed": train.SEED,
        "cycles": train.CYCLES,
        "frames_per_batch": train.FRAMES_PER_BATCH,
        "learning_rate": train.LEARNING_RATE,
        "versions": {name: version(name) for name in ("torch", "transformers", "sentencepiece", "numpy")},
        "espeak": subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True).stdout.split(" Data")[0],
        "python": platform.python_version(),
        "processors": os.cpu_count(),
    }
    lines = ",\n".join("  " + json.dumps(entry) for entry in history)  # one a line
    text = json.dumps(record, indent=1, ensure_ascii=False).removesuffix("\n}")
    (out / "training.json").write_text(f'{text},\n "history": [\n{lines}\n ]\n}}\n', "utf-8")
    print(json.dumps(rates, indent=1))


if __name__ == "__main__":
    main()
