"""Export an official Cohere Transcribe checkpoint to ONNX, or convert published ONNX files to the fast layout.

    python -m cohere_lite.export SOURCE OUT [--precision int8|int4|fp32] [--contract fast|static]

Reads   a checkpoint: config.json, model.safetensors (or its shards), and tokens.txt, tokenizer.json or tokenizer.model;
        or published graphs: an encoder and a decoder of any contract that cohere_lite runs, and their list of tokens
Writes  encoder.<precision>.onnx and decoder.<precision>.onnx with their .data, and tokens.txt (int4 is for the decoder:
        its encoder is INT8, since at many rows at once 4-bit products are several times slower than INT8)
Needs   pip install 'cohere-lite[export]'; no torch

Weights that are quantised already are carried over, number by number. Converted graphs are written once they have given
the tokens that the published ones give for the sample recording and for noise.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graphfile import GraphFile
    from ..model import ModelFiles
    from .source import Source

# onnx and safetensors are imported inside functions: --help needs neither, and main names the one that is missing.

CONTRACTS = ("fast", "static")
MAX_AUDIO_S = 35.0
# Said of a weight that is rounded for a second time.
SLOW_BLOCKS = {"products in 4-bit blocks": ": 4 bits are slow for the encoder; --precision int4 keeps them"}
MODEL_TYPE = "cohere-transcribe-03-2026"  # sherpa-onnx refuses an encoder whose metadata does not say so


def export(
    source: Path,
    out: Path,
    precision: str | None = None,
    contract: str = "fast",
    pointwise: str | None = None,
    max_audio_s: float | None = None,
    source_precision: str | None = None,
) -> list[str]:
    """Write the two graphs and tokens.txt into `out`, all of them or none. Returns what there is to say about it.

    source: a checkpoint, or a folder of published graphs;  precision: "int8", "int4" or "fp32", by default int8, or
    that of a published decoder;  contract: "fast", or "static", the published one that sherpa-onnx reads, too;
    pointwise: precision of the Conformer's pointwise convolutions, "int8" or "fp32", by default that of the encoder;
    max_audio_s: longest clip the encoder takes, in seconds, by default 35, or what a published encoder says; the
    reference never feeds more than 35 s, and cohere_lite cuts at what the model says;
    source_precision: which of several published pairs in the folder.

    Raises ValueError or OSError for a source that is incomplete or not understood, ImportError without the packages of
    the extra `export`.
    """
    from ..cut import SEARCH_S
    from ..model import find_model
    from .check import rounding
    from .checkpoint import Checkpoint
    from .published import Published

    if contract not in CONTRACTS:
        raise ValueError(f"contract is {contract!r}; it must be one of {', '.join(CONTRACTS)}")
    min_audio_s = 2 * SEARCH_S  # or long audio could not be cut at quiet points
    if max_audio_s is not None and not min_audio_s <= max_audio_s < float("inf"):
        raise ValueError(
            f"max_audio_s is {max_audio_s}; cutting long audio at quiet points needs {min_audio_s} or more"
        )
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; name a folder for the result")
    weights: Source
    published = None
    if _is_checkpoint(source):
        if source_precision is not None:
            raise ValueError(f"{source} is a checkpoint; --from chooses among published graphs")
        weights = Checkpoint(source)
    else:
        published = find_model(source.as_posix(), source_precision)
        kind = published.graphs.contract.name
        if kind == contract == "fast":
            return [f"{source} is in the fast layout already: nothing to do"]
        if kind == "fast":
            raise ValueError(f"{source} is in the fast layout; a {contract} one is made from what that was made from")
        if out.resolve() in (source.resolve(), published.graphs.encoder.path.parent.resolve()):
            raise ValueError(f"{out} is the folder to convert; name another one for the result")
        try:
            weights = Published(published)
        except (LookupError, TypeError, AttributeError) as error:  # of what nobody has thought of
            raise ValueError(f"{source}: graphs that this converter does not understand ({error!r})") from error
        max_audio_s = max_audio_s or weights.max_audio_s
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=out) as folder:  # an export that fails half-way must not look like a model
            said = _write_files(weights, Path(folder), precision, contract, pointwise, max_audio_s or MAX_AUDIO_S)
            if published is not None:
                most_apart = rounding(weights, precision)
                said = [*_compare(published, Path(folder), most_apart), *said]
            for file in Path(folder).iterdir():
                file.replace(out / file.name)
    except BaseException:
        if made:
            out.rmdir()
        raise
    return said if published is not None else []


def _write_files(
    source: "Source", out: Path, precision: str | None, contract: str, pointwise: str | None, max_audio_s: float
) -> list[str]:
    from .decoder import write_decoder
    from .encoder import write_encoder
    from .graph import Graph

    dims = source.dimensions
    kept = source.decoder_precision  # None: floats, which become what is asked for
    if kept == "int8" and precision == "int4":
        raise ValueError("the source is INT8: int4 would round its weights for a second time; leave --precision out")
    keep_blocks = precision == "int4"
    precision = precision if kept is None or precision == "fp32" else kept
    precision = precision or "int8"
    metadata = {"model_type": MODEL_TYPE, "contract": contract}
    source.write_tokens(out / "tokens.txt")
    encoder_precision = "fp32" if precision == "fp32" else "int8"
    encoder_name = "int4" if keep_blocks and kept == "int4" else encoder_precision
    max_encoder_frames = -int(-max_audio_s * 100 // 2**dims.subsampling_layers)  # 100 mel frames a second
    with Graph(out / f"encoder.{encoder_name}.onnx", encoder_precision) as encoder:
        encoder.keep_blocks = keep_blocks
        write_encoder(encoder, source, max_encoder_frames, pointwise or encoder_precision, contract)
        encoder.save(metadata | {"precision": encoder_name, "max_audio_s": str(max_audio_s)})
    # Other programs read the static contract with older onnxruntimes, which have no products in 8-bit blocks.
    product = {"fp32": "fp32", "int8": "int8b" if contract == "fast" else "int8", "int4": "int4b"}[precision]
    with Graph(out / f"decoder.{precision}.onnx", product) as decoder:
        write_decoder(decoder, source, contract)
        decoder.save(metadata | {"precision": precision})
    source.finish()
    moved = {**encoder.moved, **decoder.moved}
    return [
        f"{what} became INT8 by channel, off by {(error / total) ** 0.5:.2%}{SLOW_BLOCKS.get(what, '')}"
        for what, (error, total) in moved.items()
        if total
    ]


def _is_checkpoint(source: Path) -> bool:
    """Whether there is a checkpoint in a folder, or no graph."""
    graphs = any(source.glob("*.onnx")) or any(source.glob("onnx/*.onnx"))
    return source.is_dir() and (not graphs or any(source.glob("model*.safetensors*")))


def _compare(source: "ModelFiles", out: Path, most_apart: float) -> list[str]:
    from ..model import find_model
    from .check import compare

    target = find_model(out)
    found = compare(source, target, most_apart)
    read, written = (_n_bytes(files.graphs.encoder, files.graphs.decoder) for files in (source, target))
    ties = f" but for {found.near_ties}, where the source has no preference" if found.near_ties else ""
    return [
        f"the same {found.n_tokens} tokens as the source{ties}; logits {found.apart:.2%} apart "
        f"(root mean square), {found.largest:.3g} at most",
        f"{read / 1e6:.0f} MB -> {written / 1e6:.0f} MB",
    ]


def _n_bytes(*graphs: "GraphFile") -> int:
    """Of graphs and their weights."""
    paths = [path for graph in graphs for path in (graph.path, *map(graph.path.parent.joinpath, graph.external_bytes))]
    return sum(path.stat().st_size for path in paths)


def main(argv: list[str] | None = None) -> int:
    """The command: 0, or 1 and one line on stderr that says what is wrong."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m cohere_lite.export", description=about, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="folder of a checkpoint, or of published ONNX graphs")
    parser.add_argument("out", type=Path, help="folder for the ONNX files")
    parser.add_argument(
        "--precision",
        choices=["int8", "int4", "fp32"],
        help="of the matrix products (default: int8, or what published graphs have)",
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
    parser.add_argument("--max-audio-s", type=float, help="longest clip in seconds (default: 35)")
    parser.add_argument(
        "--from", dest="source_precision", metavar="PRECISION", help="which of several published pairs: int8, q4, ..."
    )
    args = parser.parse_args(argv)
    try:
        said = export(
            args.source,
            args.out,
            args.precision,
            args.contract,
            args.pointwise,
            args.max_audio_s,
            args.source_precision,
        )
    except ImportError as error:
        print(f"error: {error}; the export needs: pip install 'cohere-lite[export]'", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print(*said, sep="\n", end="\n" if said else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
