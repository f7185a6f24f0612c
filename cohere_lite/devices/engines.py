"""TensorRT and CoreML, which compile a graph before they run it: what they need to know of it, and where to keep what
they have made. For encoders alone: a decoder's lengths change at each step, and the providers after them run it.

Built from the providers' documentation, not run: there was no machine with either."""

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..cut import MAX_CHUNK_S
from ..errors import ModelError, logger
from ..extras.prepared import engine_folder
from ..graphfile import GraphFile, fields
from ..mel import HOP_LENGTH, N_MELS, SAMPLE_RATE
from ..session import Cache, Opener, Options, Session, open_session, ort
from .masked import MEL, MEL_MASK, PaddedEncoder
from .opening import open_on
from .providers import Plan, find_plans

_COMPILERS = ("tensorrt", "coreml")
# Of clips, for CoreML, less than the longest: short answers, phrases. Each is compiled, and held in memory, when one
# comes.
_LENGTHS_S = (5.0, 10.0, 20.0)
_MODEL_METADATA, _METADATA_KEY, _METADATA_VALUE = 14, 1, 2  # field numbers: onnx/onnx.proto


def opener_on(providers: Sequence[str]) -> Opener | None:
    """Arguments and errors: see find_plans."""
    plans = find_plans(providers)
    return partial(_open_with, plans) if plans else None


def _open_with(plans: list[Plan], graph: GraphFile, make_options: Options, cache: Cache) -> Session:
    """Raises ModelError, ProviderError."""
    compilers = [plan.name for plan in plans if plan.name in _COMPILERS]
    if compilers and "logits" in graph.outputs:  # a decoder
        plans = [plan for plan in plans if plan.name not in _COMPILERS]
        compilers = []
        if not plans:
            return open_session(graph, None, make_options, cache)
    if not compilers:
        return open_on(plans, graph, make_options)
    if MEL_MASK not in graph.inputs:
        raise ModelError(
            f"{graph.path.name} is not made of standard operators alone, and {compilers[0]} has no others: "
            "export with --precision fp16 --operators standard"
        )
    said = _metadata(graph.path)
    folder = engine_folder(graph, compilers[0], cache)
    max_frames = _n_frames(MAX_CHUNK_S)
    with suppress(LookupError, ValueError):  # what is no number, model.py refuses
        max_frames = _n_frames(min(MAX_CHUNK_S, float(said["max_audio_s"])))
    if compilers[0] == "tensorrt":
        options = tensorrt_options(folder, max_frames, said.get("precision"))
        _tell(graph, folder)
        return open_on(_with_options(plans, options), graph, make_options)

    def open_at(n_frames: int) -> Session:
        options = coreml_options(folder, n_frames)
        _tell(graph, folder and folder / str(n_frames))
        planned = _with_options(plans, options)
        return open_on(planned, graph, partial(at_length, make_options, n_frames))

    return PaddedEncoder(open_at, [*(n for n in map(_n_frames, _LENGTHS_S) if n < max_frames), max_frames])


def tensorrt_options(folder: Path | None, max_frames: int, precision: str | None) -> dict[str, str]:
    """For clips of 1 to max_frames mel frames, one at a time, in one engine, without which each new length would
    compile another one. At its best at the longest, as nearly all pieces of a long recording are.  folder: None: keep
    nothing"""
    options = {}
    for what, n_frames in (("min", 1), ("opt", max_frames), ("max", max_frames)):
        options[f"trt_profile_{what}_shapes"] = f"{MEL}:1x{N_MELS}x{n_frames},{MEL_MASK}:1x{n_frames}"
    if precision == "fp16":  # or TensorRT refuses the graph: "fp16 is not configured in the builder"
        options["trt_fp16_enable"] = "1"
    for what in ("engine", "timing") if folder else ():
        options |= {f"trt_{what}_cache_enable": "1", f"trt_{what}_cache_path": str(folder)}
    return options


def coreml_options(folder: Path | None, n_frames: int) -> dict[str, str]:
    """For clips of n_frames mel frames.  folder: None: keep nothing"""
    options = {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"}
    if folder:  # one for each length: the cache tells models apart by the path of the graph alone
        place = folder / str(n_frames)
        with suppress(OSError):  # a full disk: then it is compiled anew at each start
            place.mkdir(exist_ok=True)
            options["ModelCacheDirectory"] = str(place)
    return options


def _tell(graph: GraphFile, folder: Path | None) -> None:
    if folder is None or not any(folder.glob("*")):
        where = f", once; kept in {folder}" if folder else " at each start: the cache is off"
        logger.info("compiling %s for this machine, which takes minutes%s", graph.path.name, where)


def at_length(make_options: Options, n_frames: int) -> ort.SessionOptions:
    """Options for clips of n_frames mel frames alone."""
    options = make_options()
    options.add_free_dimension_override_by_name("batch", 1)
    options.add_free_dimension_override_by_name("mel_frames", n_frames)
    # It makes one Gemm of a product and its bias, whose weights CoreML's provider writes as text, to be read at each
    # start (others' record: 3.8 GB for 335 million numbers); those of MatMul it writes as numbers.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "MatMulAddFusion")
    return options


def _with_options(plans: list[Plan], options: dict[str, str]) -> list[Plan]:
    """For the provider that compiles; what the user says comes first."""
    return [plan._replace(options=options | plan.options) if plan.name in _COMPILERS else plan for plan in plans]


def _n_frames(seconds: float) -> int:
    return math.ceil(seconds * SAMPLE_RATE / HOP_LENGTH)


def _metadata(path: Path) -> dict[str, str]:
    """What our exporter has written into the file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        entries = [at for field, at in fields(data, slice(0, len(data))) if field == _MODEL_METADATA]
        pairs = [{field: data[at].decode() for field, at in fields(data, entry)} for entry in entries]
    return {pair[_METADATA_KEY]: pair[_METADATA_VALUE] for pair in pairs}
