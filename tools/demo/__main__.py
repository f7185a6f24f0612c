"""Make the demonstration model: ``python -m tools.demo --out DIR [--quick]``.

Reads   nothing but this folder.
Writes  the checkpoint into DIR: model.safetensors, config.json, generation_config.json, tokens.txt, tokenizer.model
        and training.json, the record of the run.  DIR/scratch/ (4 GB) holds the training set and the state from which
        an interrupted run goes on; it may be deleted afterwards.
Needs   espeak-ng, torch, transformers, sentencepiece, safetensors, jiwer; 10 GB of memory; under two hours on
        two cores.  --quick: every step in small, which teaches the model nothing; under a minute.
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

from . import checkpoint, dataset, evaluate, heldout, train
from .model import DECODER, ENCODER
from .sentences import LANGUAGES, Grammar, without_punctuation
from .synthesise import HELD_OUT_VOICES, TRAINING_VOICES
from .tokenizer import train_tokenizer

TOKENIZER_SENTENCES = 5000  # a language
QUICK_UTTERANCES, QUICK_HELD_OUT = 20, 2  # a language
QUICK_STEPS, QUICK_FRAMES = 2, 600  # frames per batch: one or two sentences, or no batch would be full
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
    parser.add_argument("--quick", action="store_true", help="every step in small: the model learns nothing")
    args = parser.parse_args()
    out, quick = args.out, args.quick
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)

    texts = []
    for language in LANGUAGES:
        texts += [text.spoken for text in Grammar(language).training(TOKENIZER_SENTENCES, Random(language))]
    tokenizer = train_tokenizer(texts + [without_punctuation(text) for text in texts], out)
    if not (scratch / "utterances.jsonl").exists():
        dataset.build(scratch, QUICK_UTTERANCES if quick else dataset.UTTERANCES)
    utterances, features = dataset.load(scratch)

    size = {"steps": QUICK_STEPS, "frames_per_batch": QUICK_FRAMES} if quick else {}
    model, history = train.train(utterances, features, tokenizer, scratch, **size)
    checkpoint.save(model, out)
    model = checkpoint.load(out)
    count = QUICK_HELD_OUT if quick else heldout.UTTERANCES
    rates = {
        name: evaluate.word_error_rates(model, tokenizer, count=count, **condition)
        for name, condition in CONDITIONS.items()
        if not quick or name == "clean"
    }
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
