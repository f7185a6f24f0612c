"""A model folder -> two onnxruntime sessions, told apart by what their graphs take and give, never by file name."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from .cut import MAX_CHUNK_S
from .errors import ModelError, ModelFileNotFound, OptionError, ProviderError
from .graphfile import GraphFile, check_external_data, read_graph_file
from .session import available_cores, ort
from .tokens import Vocabulary, read_tokens

# The hub's rule for names, but for what it adds (no "--", no ".git"): it says so itself
HUB_NAME = re.compile(r"\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b", re.ASCII)
DEMO_FOLDER = Path(__file__).parent / "demo"

# Short name -> onnxruntime's, and the device its memory is called by. CoreML and OpenVINO work on the CPU's memory.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "cpu"),
    "cuda": ("CUDAExecutionProvider", "cuda"),
    "tensorrt": ("TensorrtExecutionProvider", "cuda"),
    "coreml": ("CoreMLExecutionProvider", "cpu"),
    "directml": ("DmlExecutionProvider", "dml"),
    "openvino": ("OpenVINOExecutionProvider", "cpu"),
}

# What a graph must take and give to be half of a model. "static" is the published contract (all layers of the cache
# in one tensor, in and out), "fast" the one that cohere_lite/export writes (a buffer per layer, shared by past and present).
_STATIC_ENCODER = ({"mel"}, {"n_layer_cross_k", "n_layer_cross_v"})
_STATIC_DECODER = (
    {"tokens", "in_n_layer_self_k_cache", "in_n_layer_self_v_cache", "n_layer_cross_k", "n_layer_cross_v", "offset"},
    {"logits", "out_n_layer_self_k_cache", "out_n_layer_self_v_cache"},
)
_FAST_ENCODER = ({"mel"}, {"cross_key_0", "cross_value_0"})
_FAST_DECODER = (
    {"tokens", "offset", "encoder_length", "past_key_0", "past_value_0", "cross_key_0", "cross_value_0"},
    {"logits", "present_key_0", "present_value_0"},
)
_CONTRACTS = {"static": (_STATIC_ENCODER, _STATIC_DECODER), "fast": (_FAST_ENCODER, _FAST_DECODER)}
# Published exports of this model that cannot be run here, by an input or output only they have.
_FOREIGN = {
    "audio": "an export with the front end inside the graph (raw audio in)",
    "input_features": "an Optimum export (input_features in)",
    "past_key_values.0.decoder.key": "an Optimum export (past_key_values)",
    "decoder_mems": "an onnx-asr export (decoder_mems)",
    "audio_signal": "an onnx-asr export (audio_signal in)",
}


CPU_ONLY = ["CPUExecutionProvider"]
# On the CPU, fusing a residual sum with the layer norm after it replaces two fast kernels with a slow one
# (cohere_lite/export/norms.py).
SLOW_FUSIONS = ["SkipLayerNormFusion"]


@dataclass(frozen=True)
class Model:
    """Loaded once, read only.

    contract: "fast" or "static";  device: whose memory the caches belong in;  max_chunk_s: longest piece of audio that
    the encoder takes, in seconds.
    """

    encoder: ort.InferenceSession
    decoder: ort.InferenceSession
    contract: str
    device: str
    max_chunk_s: float
    vocabulary: Vocabulary


def load_model(
    folder: str | PathLike[str] | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    spin: bool = True,
    cache: str | PathLike[str] | None = None,
) -> Model:
    """Open the two graphs and tokens.txt of `folder` (None: the embedded demonstration model; "owner/name", where there
    is no such folder: a model on the Hugging Face hub).

    providers: short names of PROVIDERS or onnxruntime's own, the preferred one first;  threads: per session, None for
    the cores this process may use;  spin: see _session_options;  cache: see prepare.cache_folder.

    Raises ModelError or ModelFileNotFound for a folder that is not a complete model, OptionError for a provider or
    thread count that makes no sense, ProviderError if the first provider would not run.
    """
    if folder is None and not DEMO_FOLDER.is_dir():
        raise ModelFileNotFound("this copy of the package comes without the demonstration model: name a model folder")
    path = DEMO_FOLDER if folder is None else Path(folder)
    names = _provider_names(providers)
    _check_threads(threads)
    if isinstance(folder, str) and HUB_NAME.fullmatch(folder) and not path.exists():
        from .extras.hub import download_model

        paths = download_model(folder)
        path = paths[0].parent
    else:
        paths = _graph_paths(path)
    contract, encoder, decoder = _find_graphs(path, paths)
    for graph in (encoder, decoder):
        check_external_data(graph)
    vocabulary = read_tokens(path / "tokens.txt")
    from .extras.prepared import cache_folder

    cache_path = cache_folder(cache) if names == CPU_ONLY else None  # weights are packed for the CPU
    encoder_session = _open(encoder, names, lambda: _session_options(threads, spin, stop=True), cache_path)
    decoder_session = _open(decoder, names, lambda: _session_options(threads, spin, stop=False), cache_path)
    n_known = next(output.shape[-1] for output in decoder_session.get_outputs() if output.name == "logits")
    if n_known != len(vocabulary):
        raise ModelError(
            f"{path}: tokens.txt lists {len(vocabulary)} tokens, the decoder knows {n_known}: files of different models"
        )
    for value in decoder_session.get_inputs():
        _check_input(decoder, value)
    longest = encoder_session.get_modelmeta().custom_metadata_map.get("max_audio_s")  # cohere_lite/export writes it
    max_chunk_s = min(MAX_CHUNK_S, float(longest)) if longest else MAX_CHUNK_S
    device = next((device for name, device in PROVIDERS.values() if name == names[0]), "cpu")
    return Model(encoder_session, decoder_session, contract, device, max_chunk_s, vocabulary)


def _graph_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ModelFileNotFound(
            f"{folder} {what}; a model is a folder with an encoder, a decoder (.onnx) and tokens.txt"
        )
    paths = sorted(path for path in folder.glob("*.onnx") if not path.name.startswith("."))  # "._x": macOS's shadows
    if not paths:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelFileNotFound(f"{folder} holds no .onnx file; it holds {held}")
    if not (folder / "tokens.txt").is_file():
        raise ModelFileNotFound(f"{folder} has no tokens.txt, the list of the model's tokens; it comes with the model")
    return paths


def _find_graphs(folder: Path, paths: list[Path]) -> tuple[str, GraphFile, GraphFile]:
    graphs = [read_graph_file(path) for path in paths]
    roles = {
        (contract, i): [g for g in graphs if _matches(g, *pair[i])]
        for contract, pair in _CONTRACTS.items()
        for i in (0, 1)
    }
    for (_, i), found in roles.items():
        if len(found) > 1:
            names = ", ".join(graph.path.name for graph in found)
            raise ModelError(
                f"{folder} has more than one {('encoder', 'decoder')[i]}: {names}; keep one pair in a folder"
            )
    for contract in _CONTRACTS:
        if roles[contract, 0] and roles[contract, 1]:
            return contract, roles[contract, 0][0], roles[contract, 1][0]
    raise ModelError(f"{folder} has no encoder and decoder that belong together: {'; '.join(map(_describe, graphs))}")


def _matches(graph: GraphFile, inputs: set[str], outputs: set[str]) -> bool:
    return inputs <= set(graph.inputs) and outputs <= set(graph.outputs)


def _check_input(graph: GraphFile, value: ort.NodeArg) -> None:
    """Raises ModelError for a decoder input that the contract's names promise but whose type or shape cannot be fed."""
    is_cache = value.name.startswith(("past_", "in_n_layer_self_"))
    if value.type not in ("tensor(float)", "tensor(int64)"):
        raise ModelError(f"{graph.path}: input {value.name!r} is a {value.type}; supported are float and int64")
    if is_cache and not all(isinstance(size, int) for size in (*value.shape[:-4], *value.shape[-3:])):
        raise ModelError(f"{graph.path}: input {value.name!r} has no fixed size: {value.shape}")


def _describe(graph: GraphFile) -> str:
    for contract, pair in _CONTRACTS.items():
        for role, signature in zip(("encoder", "decoder"), pair, strict=True):
            if _matches(graph, *signature):
                return f"{graph.path.name} is an {role} of the {contract!r} layout".replace("an d", "a d")
    for name in (*graph.inputs, *graph.outputs):
        if name in _FOREIGN:
            return f"{graph.path.name} is {_FOREIGN[name]}, which is not supported"
    return f"{graph.path.name} takes {', '.join(graph.inputs[:4])} and gives {', '.join(graph.outputs[:4])}: unknown"


def _provider_names(providers: Sequence[str]) -> list[str]:
    """onnxruntime's names, with the CPU last for what the others leave."""
    if isinstance(providers, str) or not providers:
        raise OptionError(f"providers is {providers!r}; it must be a list such as ['cuda', 'cpu']")
    known = PROVIDERS | {name: (name, device) for name, device in PROVIDERS.values()}
    names = []
    for provider in providers:
        if provider not in known:
            raise OptionError(f"unknown provider {provider!r}; known: {', '.join(PROVIDERS)}")
        names.append(known[provider][0])
    missing = [name for name in names if name not in ort.get_available_providers()]
    if missing:
        raise ProviderError(
            f"this onnxruntime ({ort.__version__}) has no {', '.join(missing)}; "
            f"it has {', '.join(ort.get_available_providers())} (another provider needs another onnxruntime package)"
        )
    return names if "CPUExecutionProvider" in names else [*names, "CPUExecutionProvider"]


def _check_threads(threads: int | None) -> None:
    # Of more, each waits for a core: the demonstration model's 11 tokens took 4 s with 100 threads on two cores, 38 s
    # with 1,000.
    most = max(64, os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= most:
        raise OptionError(f"threads is {threads}; it must be 1 to {most} on this machine")


def _session_options(threads: int | None, spin: bool, stop: bool) -> ort.SessionOptions:
    """spin: threads without work wait for more in a busy loop, for some 80 ms: a step of the decoder is then 1.2 to 1.6
    times as fast, but another process on the same cores slows it down more;  stop: at the end of each run they go to
    sleep at once, to leave the cores to the other session's threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3  # errors only: warnings of graph optimisation mean nothing to a user
    # A plan of memory per input shape pays for fixed shapes only: with clips of all lengths it took no less time, and
    # 515 instead of 303 MB for the full-size encoder (30 s of audio, onnxruntime 1.32).
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.force_spinning_stop", str(int(stop)))
    return options


def _open(
    graph: GraphFile, names: list[str], options: Callable[[], ort.SessionOptions], cache: Path | None
) -> ort.InferenceSession:
    from .extras.prepared import discard, prepared_graph

    prepared = None if cache is None else prepared_graph(graph, options(), SLOW_FUSIONS, cache)
    if prepared is not None:
        done_already = options()
        done_already.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return ort.InferenceSession(str(prepared), done_already, providers=names)
        except Exception:  # damaged, or gone since; what is wrong with the model itself shows below
            discard(prepared)
    try:
        disabled = SLOW_FUSIONS if names == CPU_ONLY else None
        session = ort.InferenceSession(str(graph.path), options(), providers=names, disabled_optimizers=disabled)
    except Exception as error:  # onnxruntime's own classes share no base but this one
        raise ModelError(f"onnxruntime {ort.__version__} cannot load {graph.path}: {error}") from error
    if session.get_providers()[0] != names[0]:
        # onnxruntime only warns, and runs on what is left
        raise ProviderError(
            f"{names[0]} was asked for, but {graph.path.name} would run on {session.get_providers()[0]}"
        )
    return session
