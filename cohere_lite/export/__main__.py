"""Export an official Cohere Transcribe checkpoint to ONNX.

    python -m cohere_lite.export CHECKPOINT OUT [--precision int8|int4|fp32] [--contract fast|static]

Reads   config.json, model.safetensors (or its shards), and tokens.txt, tokenizer.json or tokenizer.model
Writes  encoder.<precision>.onnx and decoder.<precision>.onnx with their .data, and tokens.txt (int4 is for the decoder:
        its encoder is INT8, since at many rows at once 4-bit products are several times slower than INT8)
Needs   pip install 'cohere-lite[export]'; no torch
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

# onnx and safetensors are imported inside functions: --help needs neither, and main names the one that is missing.

CONTRACTS = ("fast", "static")
MODEL_TYPE = "cohere-transcribe-03-2026"  # sherpa-onnx refuses an encoder whose metadata does not say so


def export(
    checkpoint_folder: Path,
    out: Path,
    precision: str = "int8",
    contract: str = "fast",
    pointwise: str | None = None,
    max_audio_s: float = 35.0,
) -> None:
    """Write the two graphs and tokens.txt into `out`, all of them or none.

    precision: "int8", "int4" or "fp32";  contract: "fast", or "static", the published one that sherpa-onnx reads, too;
    pointwise: precision of the Conformer's pointwise convolutions, "int8" or "fp32", by default that of the encoder;
    max_audio_s: longest clip the encoder takes, in seconds; the reference never feeds more than 35 s, and cohere_lite
    cuts at what the model says.

    Raises ValueError or OSError for a checkpoint that is incomplete or not understood, ImportError without the
    packages of the extra `export`.
    """
    from ..cut import SEARCH_S
    from .checkpoint import Checkpoint

    if contract not in CONTRACTS:
        raise ValueError(f"contract is {contract!r}; it must be one of {', '.join(CONTRACTS)}")
    min_audio_s = 2 * SEARCH_S  # or long audio could not be cut at quiet points
    if not min_audio_s <= max_audio_s < float("inf"):
        raise ValueError(
            f"max_audio_s is {max_audio_s}; cutting long audio at quiet points needs {min_audio_s} or more"
        )
    checkpoint = Checkpoint(checkpoint_folder)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out) as folder:  # an export that fails half-way must not look like a model
        _write_files(checkpoint, Path(folder), precision, contract, pointwise, max_audio_s)
        for file in Path(folder).iterdir():
            file.replace(out / file.name)


def _write_files(
    checkpoint: "Checkpoint", out: Path, precision: str, contract: str, pointwise: str | None, max_audio_s: float
) -> None:
    from .decoder import write_decoder
    from .encoder import write_encoder
    from .graph import Graph
    from .vocabulary import write_tokens

    dims = checkpoint.dimensions
    metadata = {"model_type": MODEL_TYPE, "contract": contract}
    write_tokens(checkpoint.folder, out / "tokens.txt", dims.vocab_size)
    encoder_precision = "fp32" if precision == "fp32" else "int8"
    graph = Graph(out / f"encoder.{encoder_precision}.onnx", encoder_precision)
    max_encoder_frames = -int(-max_audio_s * 100 // 2**dims.subsampling_layers)  # 100 mel frames a second
    write_encoder(graph, checkpoint, max_encoder_frames, pointwise or encoder_precision, contract)
    graph.save(metadata | {"precision": encoder_precision, "max_audio_s": str(max_audio_s)})
    # Other programs read the static contract with older onnxruntimes, which have no products in 8-bit blocks.
    product = {"fp32": "fp32", "int8": "int8b" if contract == "fast" else "int8", "int4": "int4b"}[precision]
    graph = Graph(out / f"decoder.{precision}.onnx", product)
    write_decoder(graph, checkpoint, contract)
    graph.save(metadata | {"precision": precision})
    checkpoint.finish()


def main(argv: list[str] | None = None) -> int:
    """The command: 0, or 1 and one line on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m cohere_lite.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("out", type=Path, help="folder for the ONNX files")
    parser.add_argument(
        "--precision", choices=["int8", "int4", "fp32"], default="int8", help="of the matrix products (default: int8)"
    )
    parser.add_argument(
        "--contract",
        choices=CONTRACTS,
        default="fast",
        help="inputs and outputs of the graphs: fast for cohere_lite, static for sherpa-onnx, too (default: fast)",
    )
    parser.add_argument(
        "--pointwise", choices=["int8", "fp32"], help="of the pointwise convolutions (default: as the encoder)"
    )
    parser.add_argument("--max-audio-s", type=float, default=35.0, help="longest clip in seconds (default: 35)")
    args = parser.parse_args(argv)
    try:
        export(args.checkpoint, args.out, args.precision, args.contract, args.pointwise, args.max_audio_s)
    except ImportError as error:
        print(f"error: {error}; the export needs: pip install 'cohere-lite[export]'", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
