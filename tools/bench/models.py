"""The files that the runtimes load, made once and found again: a random checkpoint and what is exported from it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.random_checkpoint import Shape

# tools/published has what they are
PUBLISHED = ("card", "audio-int8", "merged-q4", "merged-int8", "mems-int8")
CONVERTED = ("card", "audio-int8", "merged-q4")  # the others give the same graphs as the first
QUICK_LAYERS = 2  # of the encoder's 48


@dataclass(frozen=True)
class Models:
    """Folders: a checkpoint and its exports; gguf: files for transcribe.cpp, made elsewhere."""

    root: Path
    gguf: tuple[Path, ...]

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    @property
    def cache(self) -> Path:
        """Where cohere_lite keeps its prepared copies."""
        return self.root / "cache"

    def folder(self, name: str) -> Path:
        """One of "int8", "int4", "static", those of PUBLISHED; NAME-fast for those of CONVERTED."""
        return self.root / name

    @property
    def shape(self) -> Shape:
        """The checkpoint's layers, widths and vocabulary; what else a shape has is the real model's here."""
        config = json.loads((self.checkpoint / "config.json").read_text())
        encoder = config["encoder_config"]
        return Shape(
            encoder_layers=encoder["num_hidden_layers"],
            encoder_width=encoder["hidden_size"],
            encoder_ffn=encoder["intermediate_size"],
            decoder_layers=config["num_hidden_layers"],
            decoder_width=config["hidden_size"],
            decoder_ffn=config["intermediate_size"],
            vocab_size=config["vocab_size"],
        )


def make(root: Path, quick: bool, gguf: list[Path]) -> Models:
    """Make what is missing under `root`. At full size: 30 GB on disk, 40 GB more for prepared copies, 20 GB more and
    23 GB of memory for a while (the tracer's and the quantiser's), half an hour."""
    models = Models(root / ("quick" if quick else "full"), tuple(gguf))
    layers = ["--encoder-layers", str(QUICK_LAYERS)] if quick else []
    exports: dict[str, list[str]] = {"int8": [], "int4": ["--precision", "int4"], "static": ["--contract", "static"]}
    steps: dict[Path, list] = {models.checkpoint: ["tools.random_checkpoint", models.checkpoint, *layers]}
    steps |= {
        models.folder(name): ["cohere_lite.export", models.checkpoint, models.folder(name), *options]
        for name, options in exports.items()
    }
    for kind in PUBLISHED:
        steps[models.folder(kind)] = ["tools.published", models.checkpoint, models.folder(kind), kind]
        if kind in CONVERTED:
            fast = models.folder(f"{kind}-fast")
            steps[fast] = ["cohere_lite.export", models.folder(kind), fast]
    for folder, (module, *arguments) in steps.items():
        done = folder / ".complete"
        if not done.exists():
            print(f"making {folder}", file=sys.stderr)
            # processes of their own: their memory is gone before anything is measured
            subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)
            done.touch()
    return models
