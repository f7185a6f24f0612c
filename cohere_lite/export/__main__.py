"""Export an official Cohere Transcribe checkpoint to ONNX.

    python -m cohere_lite.export CHECKPOINT OUT [--precision int8|int4|fp32] [--layout fast|sherpa] [--pointwise int8|fp32]

Reads   config.json, model.safetensors (or its shards), and tokens.txt, tokenizer.json or tokenizer.model
Writes  encoder.<precision>.onnx and decoder.<precision>.onnx with their .data, and tokens.txt (int4 is for the decoder:
        its encoder is INT8, since at many rows at once 4-bit products are several times slower than INT8)
Needs   numpy, onnx, safetensors (ml_dtypes for bfloat16); sentencepiece only for tokenizer.model. No torch.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from ..cut import SEARCH_S
from .checkpoint import Checkpoint
from .decoder import write_decoder
from .encoder import write_encoder
from .graph import Graph
from .vocabulary import write_tokens

MIN_AUDIO_S = 2 * SEARCH_S  # as cohere_lite.cut.split demands
MODEL_TYPE = "cohere-transcribe-03-2026"  # sherpa-onnx refuses an encoder whose metadata does not say so


def export(
    checkpoint_folder: Path,
    out: Path,
    precision: str = "int8",
    layout: str = "fast",
    pointwise: str | None = None,
    max_audio_s: float = 35.0,
) -> None:
    """Write the two graphs and tokens.txt into `out`. `pointwise`: precision of the Conformer's pointwise
    convolutions, by default that of the encoder. `max_audio_s`: longest clip the encoder takes; the
    reference never feeds more than 35 s, and cohere_lite cuts at what the model says.

    Raises ValueError, OSError or SafetensorError for a checkpoint that is incomplete or not understood."""
    if not max_audio_s >= MIN_AUDIO_S:
        raise ValueError(
            f"max_audio_s is {max_audio_s}; cutting long audio at quiet points needs {MIN_AUDIO_S} or more"
        )
    checkpoint = Checkpoint(checkpoint_folder)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out) as folder:  # what fails half-way must not look like a model
        _write_files(checkpoint, checkpoint_folder, Path(folder), precision, layout, pointwise, max_audio_s)
        for file in Path(folder).iterdir():
            file.replace(out / file.name)


def _write_files(
    checkpoint: Checkpoint,
    checkpoint_folder: Path,
    out: Path,
    precision: str,
    layout: str,
    pointwise: str | None,
    max_audio_s: float,
) -> None:
    dims = checkpoint.dimensions
    metadata = {"model_type": MODEL_TYPE, "layout": layout}
    write_tokens(checkpoint_folder, out / "tokens.txt", dims.vocab_size)
    encoder_precision = "fp32" if precision == "fp32" else "int8"
    graph = Graph(out / f"encoder.{encoder_precision}.onnx", encoder_precision)
    max_encoder_frames = -int(-max_audio_s * 100 // 2**dims.subsampling_layers)  # 100 mel frames a second
    write_encoder(graph, checkpoint, max_encoder_frames, pointwise or encoder_precision, layout)
    graph.save(metadata | {"precision": encoder_precision, "max_audio_s": str(max_audio_s)})
    # The published contract says nothing of batches, and old onnxruntimes, which read it too, have no 8-bit blocks.
    product = {"fp32": "fp32", "int8": "int8b" if layout == "fast" else "int8", "int4": "int4b"}[precision]
    graph = Graph(out / f"decoder.{precision}.onnx", product)
    write_decoder(graph, checkpoint, layout)
    graph.save(metadata | {"precision": precision})
    checkpoint.finish()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cohere_lite.export", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("out", type=Path, help="folder for the ONNX files")
    parser.add_argument(
        "--precision", choices=["int8", "int4", "fp32"], default="int8", help="of the products (default: int8)"
    )
    parser.add_argument(
        "--layout", choices=["fast", "sherpa"], default="fast", help="fast for cohere_lite, sherpa for sherpa-onnx too"
    )
    parser.add_argument(
        "--pointwise",
        choices=["int8", "fp32"],
        help="of the pointwise convolutions (default: as the encoder)",
    )
    parser.add_argument("--max-audio-s", type=float, default=35.0, help="longest clip in seconds (default: 35)")
    args = parser.parse_args(argv)
    try:
        export(args.checkpoint, args.out, args.precision, args.layout, args.pointwise, args.max_audio_s)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
