"""Export an official Cohere Transcribe checkpoint to ONNX, or convert published ONNX files to the fast layout.

    python -m cohere_lite.export SOURCE OUT [--precision int8|int4] [--contract fast|static]
    python -m cohere_lite.export SOURCE OUT --precision fp16|bf16|fp32 [--weights 8|4]
    python -m cohere_lite.export SOURCE OUT --precision fp16|fp32 --operators standard
    python -m cohere_lite.export SOURCE OUT --target web [--shard-mb 90] [--precision fp16 --weights 4]

Reads   a checkpoint: config.json, model.safetensors (or its shards), and tokens.txt, tokenizer.json or tokenizer.model;
        or published graphs: an encoder and a decoder of any contract that cohere_lite runs, and their list of tokens
Writes  encoder.<precision>.onnx and decoder.<precision>.onnx with their .data, tokens.txt, the source's language.json
        (constants for finding the language) if it has one, and in the fast contract align.<precision>.onnx, for word
        times, which shares the decoder's .data. (int4 is for the decoder: its encoder is INT8, since at many rows at
        once 4-bit products are several times slower than INT8.)
        fp16 and bf16 are for GPUs: both graphs in float16 or bfloat16, with --weights the products' weights in blocks
        of 8 or 4 bits (<precision> is then q8f16, q4f16, q8bf16 or q4bf16); fp32 is for other accelerators. With these
        comes step.<precision>.onnx, the decoder for one token, which CUDA and WebGPU launch as a whole. For TensorRT
        and CoreML, --operators standard keeps operators that only onnxruntime has out of the encoder
        --target web is for browsers (tools/web), which cohere_lite itself does not read: INT8 for WebAssembly, or
        fp16 or fp32 for WebGPU, without a step; weights in several files, and caches of any length
Needs   pip install 'cohere-lite[export]'; no torch

Weights that are quantised already are carried over, number by number, and only their scales rounded to the float type.
Weights that float16 cannot hold are refused. Converted graphs are written once they have given the tokens that the
published ones give for the sample recording and for noise (bf16 as it is: onnxruntime's CPU provider cannot run it).
"""

import argparse
import filecmp
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..graphfile import GraphFile
    from ..model import ModelFiles
    from .source import Source

# onnx and safetensors are imported inside functions: --help needs neither, and main names the one that is missing.

CONTRACTS = ("fast", "static")
STANDARD_PRECISIONS = ("fp32", "fp16")
WEB_PRECISIONS = (None, "int8", "fp32", "fp16")
SHARD_MB = 90.0  # below 100 MB, which hosts of repositories take
MAX_AUDIO_S = 35.0
BLOCKS = "products in 4-bit blocks"  # as graph.py calls weights that it rounds for a second time
# For accelerators: float types, and products by the bits of weights
FLOAT_TYPES = {"fp16": "float16", "bf16": "bfloat16"}
PRODUCTS = {None: "float", 8: "int8b", 4: "int4b"}
ANY_GRAPH = "*.[oO][nN][nN][xX]"
LANGUAGE_CONSTANTS = "language.json"  # extras/detect.py
MODEL_TYPE = "cohere-transcribe-03-2026"  # sherpa-onnx refuses an encoder whose metadata does not say so


def export(
    source: Path,
    out: Path,
    precision: str | None = None,
    contract: str = "fast",
    pointwise: str | None = None,
    max_audio_s: float | None = None,
    source_precision: str | None = None,
    weight_bits: int | None = None,
    standard: bool = False,
    target: str | None = None,
    shard_mb: float | None = None,
) -> list[str]:
    """Write the two graphs and tokens.txt into `out`, all of them or none. Returns what there is to say about it.

    source: a checkpoint, or a folder of published graphs;  precision: "int8", "int4", "fp32", "fp16" or "bf16", by
    default int8, or that of a published decoder;  contract: "fast", or "static", the published one that sherpa-onnx
    reads, too;
    pointwise: precision of the Conformer's pointwise convolutions, "int8" or "fp32", by default that of the encoder;
    max_audio_s: longest clip the encoder takes, in seconds, by default 35, or what a published encoder says; the
    reference never feeds more than 35 s, and cohere_lite cuts at what the model says;
    source_precision: which of several published pairs in the folder;
    weight_bits: 8 or 4 for weights in blocks, with fp16 and bf16;
    standard: an encoder of ONNX's own operators, in fp32 or fp16, for TensorRT and CoreML; see standard.py;
    target: "web" for browsers, whose WebAssembly has fast kernels for INT8 by channel alone; see web.py;
    shard_mb: with it, the most that a file of weights holds, in millions of bytes, by default 90.

    Raises ValueError or OSError for a source that is incomplete or not understood, or that float16 cannot hold,
    ImportError without the packages of the extra `export`.
    """
    from ..cut import SEARCH_S
    from ..model import find_model
    from .align import aligned, read_alignment_heads, write_align
    from .check import rounding
    from .checkpoint import Checkpoint
    from .published import Published
    from .web import make_ready

    if contract not in CONTRACTS:
        raise ValueError(f"contract is {contract!r}; it must be one of {', '.join(CONTRACTS)}")
    if precision not in FLOAT_TYPES and weight_bits is not None:
        raise ValueError(f"weights of {weight_bits} bits go with fp16 and bf16; precision is {precision or 'int8'!r}")
    if weight_bits not in PRODUCTS:
        raise ValueError(f"weight_bits is {weight_bits!r}; it must be 8 or 4")
    if precision in FLOAT_TYPES and contract != "fast":
        raise ValueError(f"the {contract} contract is written in int8, int4 and fp32; {precision} needs the fast one")
    if precision in FLOAT_TYPES and pointwise is not None:
        raise ValueError(f"the precision of pointwise convolutions is for int8, int4 and fp32, not for {precision}")
    if standard and (precision not in STANDARD_PRECISIONS or contract != "fast" or weight_bits is not None):
        raise ValueError(
            f"standard operators are for {' and '.join(STANDARD_PRECISIONS)} in the fast contract, without --weights"
        )
    if target not in (None, "web"):
        raise ValueError(f"target is {target!r}; it must be 'web', or None")
    if standard and (pointwise == "int8" or target is not None):
        raise ValueError("standard operators are for TensorRT and CoreML: neither INT8 convolutions nor the web's")
    if target == "web" and (precision not in WEB_PRECISIONS or contract != "fast"):
        raise ValueError("for the web there are int8, and for WebGPU fp16 and fp32, all in the fast contract")
    if shard_mb is not None and (target is None or not 0 < shard_mb < float("inf")):
        raise ValueError(f"shard_mb is {shard_mb}; it is for the web, and more than 0")
    min_audio_s = 2 * SEARCH_S  # or long audio could not be cut at quiet points
    if max_audio_s is not None and not min_audio_s <= max_audio_s < float("inf"):
        raise ValueError(
            f"max_audio_s is {max_audio_s}; cutting long audio at quiet points needs {min_audio_s} or more"
        )
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; name a folder for the result")
    name = None if precision is None else _name(precision, weight_bits)
    weights: Source
    published = None
    if _is_checkpoint(source):
        if source_precision is not None:
            raise ValueError(f"{source} is a checkpoint; --from chooses among published graphs")
        weights = Checkpoint(source)
    else:
        published = find_model(source.as_posix(), source_precision)
        kind = published.graphs.contract.name
        other = target or standard or pointwise or max_audio_s or name not in (None, published.precision)
        if kind == contract == "fast" and not other:
            decoder = published.graphs.decoder.path
            if not aligned(decoder).exists():  # an export from before there was one
                write_align(decoder, read_alignment_heads(decoder.parent))
                return [f"{source} is in the fast layout already: {aligned(decoder).name}, for word times, was added"]
            return [f"{source} is in the fast layout already: nothing to do"]
        if kind == "fast":
            found = f"{source} is in the fast layout, {published.precision}"
            raise ValueError(f"{found}: another one is made from what that was made from")
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
            plan = _plan(weights, precision, weight_bits, contract)
            plan = plan._replace(standard=standard, has_step=target != "web")
            folders = [source]
            if published is not None:  # whose graphs may lie in a folder of the repository
                folders = [published.graphs.encoder.path.parent, published.graphs.encoder.path.absolute().parent.parent]
            plan = plan._replace(has_align=plan.has_step and contract == "fast", heads=read_alignment_heads(*folders))
            if target == "web" and plan.decoder.product in ("int8b", "int4b") and plan.encoder.product == "int8":
                # WebAssembly, a step of the full size: blocks of 8 bits 500 ms, of 4 bits 550 to 1000, by channel 105
                # to 190
                plan = plan._replace(decoder=_Precision("int8", "int8"))
            moved, said = _write_files(weights, Path(folder), plan, contract, pointwise, max_audio_s or MAX_AUDIO_S)
            if published is not None:
                most_apart = rounding(weights, plan.decoder.name)
                said = [*_compare(published, Path(folder), plan.decoder.float_type, most_apart), *moved, *said]
            if constants := next((path for place in folders if (path := place / LANGUAGE_CONSTANTS).is_file()), None):
                shutil.copy(constants, folder)
            elif (out / LANGUAGE_CONSTANTS).exists():
                said = [*said, f"{out / LANGUAGE_CONSTANTS} is left as it was; its constants are for one model only"]
            if target == "web":
                said += make_ready(Path(folder), round(1e6 * (shard_mb or SHARD_MB)))
            _refuse_mixture(Path(folder), out)
            for file in Path(folder).iterdir():
                file.replace(out / file.name)
    except BaseException:
        if made:
            shutil.rmtree(out, ignore_errors=True)
        raise
    return said


class _Precision(NamedTuple):
    """Of a graph. name: in its file name and metadata;  product: see graph.py."""

    name: str
    product: str
    float_type: str = "float32"


class _Plan(NamedTuple):
    """Of both graphs. keep_blocks: see graph.py;  standard: whether the encoder's operators are ONNX's own;  has_step:
    whether a graph for devices gets a step beside it, which the web page does not use;  has_align: whether the decoder
    gets an align beside it;  heads: see align.py."""

    encoder: _Precision
    decoder: _Precision
    keep_blocks: bool = False
    standard: bool = False
    has_step: bool = True
    has_align: bool = False
    heads: list[list[int]] | None = None


def _name(precision: str, weight_bits: int | None) -> str:
    """fp16 with weights of 8 bits is q8f16, bf16 is q8bf16."""
    return precision if weight_bits is None else f"q{weight_bits}{precision.replace('fp', 'f')}"


def _plan(source: "Source", precision: str | None, weight_bits: int | None, contract: str) -> _Plan:
    """Raises ValueError where weights would be rounded for a second time."""
    kept = source.decoder_precision  # None: floats, which become what is asked for
    if kept == "int8" and (precision == "int4" or weight_bits == 4):
        wanted = "int4" if precision == "int4" else "--weights 4"
        instead = "leave --precision out" if precision == "int4" else "use --weights 8, or none"
        raise ValueError(f"the source is INT8: {wanted} would round its weights for a second time; {instead}")
    if kept == "int4" and weight_bits == 8:
        raise ValueError("the source has weights of 4 bits, which --weights 4 keeps as they are")
    if precision in FLOAT_TYPES:
        both = _Precision(_name(precision, weight_bits), PRODUCTS[weight_bits], FLOAT_TYPES[precision])
        return _Plan(both, both)
    if precision == "fp32":
        return _Plan(_Precision("fp32", "float"), _Precision("fp32", "float"))
    keep_blocks = precision == "int4"
    precision = kept or precision or "int8"
    # Other programs read the static contract with older onnxruntimes, which have no products in 8-bit blocks.
    product = {"int8": "int8b" if contract == "fast" else "int8", "int4": "int4b"}[precision]
    encoder = _Precision("int4" if keep_blocks and kept == "int4" else "int8", "int8")
    return _Plan(encoder, _Precision(precision, product), keep_blocks)


def _write_files(
    source: "Source", out: Path, plan: _Plan, contract: str, pointwise: str | None, max_audio_s: float
) -> tuple[list[str], list[str]]:
    """What there is to say of weights that were quantised for a second time, and of those too small for float16."""
    from .align import write_align
    from .decoder import write_decoder
    from .encoder import write_encoder
    from .graph import Graph
    from .step import write_step

    dims = source.dimensions
    metadata = {"model_type": MODEL_TYPE, "contract": contract}
    source.write_tokens(out / "tokens.txt")
    name, product, float_type = plan.encoder
    max_encoder_frames = -int(-max_audio_s * 100 // 2**dims.subsampling_layers)  # 100 mel frames a second
    with Graph(out / f"encoder.{name}.onnx", product, float_type, plan.standard) as encoder:
        encoder.keep_blocks = plan.keep_blocks
        of_pointwise = {"fp32": "float", "int8": "int8", None: encoder.product}[pointwise]
        write_encoder(encoder, source, max_encoder_frames, of_pointwise, contract)
        languages = {"languages": source.languages} if source.languages else {}
        encoder.save(metadata | languages | {"precision": name, "max_audio_s": str(max_audio_s)})
    name, product, float_type = plan.decoder
    with Graph(out / f"decoder.{name}.onnx", product, float_type) as decoder:
        write_decoder(decoder, source, contract)
        decoder.save(metadata | {"precision": name})
    if plan.has_step and contract == "fast" and decoder.for_devices:
        write_step(out / f"decoder.{name}.onnx", max_encoder_frames)
    if plan.has_align:
        write_align(out / f"decoder.{name}.onnx", plan.heads)
    source.finish()
    said = [
        f"the {part}'s {what} became INT8 by channel, off by {(error / total) ** 0.5:.2%}"
        for part, graph in (("encoder", encoder), ("decoder", decoder))
        for what, (error, total) in graph.moved.items()
        if total
    ]
    if BLOCKS in encoder.moved and plan.has_step:  # on the web there is no choice
        said.append("4 bits are slow for the encoder; --precision int4 keeps them")
    return said, _coarse({**encoder.coarse, **decoder.coarse})


def _coarse(shares: dict[str, tuple[float, float]]) -> list[str]:
    if not shares:
        return []
    name, (coarse, zero) = max(shares.items(), key=lambda item: item[1])
    many = f"{len(shares)} tensors have" if len(shares) > 1 else "one tensor has"
    return [
        f"{many} numbers too small for float16, {name} the most: {coarse:.1%} of its are rounded more coarsely than in "
        f"bfloat16, {zero:.1%} to zero; where the text suffers, use --precision bf16 or fp32"
    ]


def _refuse_mixture(new: Path, out: Path) -> None:
    """Raises ValueError if graphs that stay in `out` belong to what is replaced there: to another model, perhaps."""
    names = {path.name for path in new.iterdir()}
    for graph in sorted(path.name for path in out.glob(ANY_GRAPH) if path.name not in names):
        for name in sorted(names):
            if (out / name).exists() and not filecmp.cmp(new / name, out / name, shallow=False):
                raise ValueError(
                    f"{out} has {graph} of another export, and another {name} than this one's: together they may be "
                    "two models; name another folder, or empty that one"
                )


def _is_checkpoint(source: Path) -> bool:
    """Whether there is a checkpoint in a folder, or no graph."""
    graphs = any(source.glob(ANY_GRAPH)) or any(source.glob(f"onnx/{ANY_GRAPH}"))
    return source.is_dir() and (not graphs or any(source.glob("model*.safetensors*")))


def _compare(source: "ModelFiles", out: Path, float_type: str, most_apart: float) -> list[str]:
    from ..model import find_model
    from .check import compare

    target = find_model(out)
    read, written = (_n_bytes(files.graphs.encoder, files.graphs.decoder) for files in (source, target))
    sizes = f"{read / 1e6:.0f} MB -> {written / 1e6:.0f} MB"
    if float_type == "bfloat16":
        return ["not compared with the source: onnxruntime's CPU provider has no kernels for bfloat16", sizes]
    found = compare(source, target, most_apart)
    ties = f" but for {found.near_ties}, where the source has no preference" if found.near_ties else ""
    return [
        f"the same {found.n_tokens} tokens as the source{ties}; logits {found.apart:.2%} apart "
        f"(root mean square), {found.largest:.3g} at most",
        sizes,
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
        choices=["int8", "int4", "fp32", "fp16", "bf16"],
        help="int8, int4: of the matrix products, for CPUs; fp16, bf16, fp32: of all, for other devices "
        "(default: int8, or what published graphs have)",
    )
    parser.add_argument(
        "--weights", dest="weight_bits", type=int, choices=[8, 4], help="bits of the products' weights in fp16 or bf16"
    )
    parser.add_argument(
        "--contract",
        choices=CONTRACTS,
        default="fast",
        help="inputs and outputs of the graphs: fast for cohere_lite, static for sherpa-onnx, too (default: fast)",
    )
    parser.add_argument(
        "--operators",
        choices=["onnxruntime", "standard"],
        default="onnxruntime",
        help="of the encoder: onnxruntime's own among them, or standard ones alone, for TensorRT and CoreML, in fp16 "
        "or fp32 (default: onnxruntime)",
    )
    parser.add_argument("--target", choices=["web"], help="what will run it, where that is not cohere_lite: a browser")
    parser.add_argument(
        "--shard-mb", type=float, metavar="MB", help="with --target web: size of the files of weights (default: 90)"
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
            args.weight_bits,
            args.operators == "standard",
            args.target,
            args.shard_mb,
        )
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # in the middle of a module in C
            return _interrupted()
        package = (__package__ or "").rpartition(".")[0]
        is_ours = (error.name or "").startswith(f"{package}.")
        needed = "it is not in this copy" if is_ours else "the export needs: pip install 'cohere-lite[export]'"
        print(f"error: {error}; {needed}", file=sys.stderr)
        return 1
    except (OSError, ValueError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    print(*said, sep="\n", end="\n" if said else "")
    return 0


def _interrupted() -> int:
    print("interrupted; nothing was written", file=sys.stderr)
    return 130


if __name__ == "__main__":
    sys.exit(main())
