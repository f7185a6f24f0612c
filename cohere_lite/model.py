"""A model folder -> its two graphs, open, and its vocabulary."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from .contracts import CONTRACTS, Contract
from .cut import MAX_CHUNK_S, MIN_CHUNK_S
from .errors import ModelError, ModelFileNotFound, OptionError, ProviderError, check_kind, logger
from .graphfile import GraphFile, check_download, check_external_data, read_graph_file
from .session import Session, find_opener, open_session, session_options
from .tokens import Vocabulary, read_tokens
from .turns import Turn

DEMO_FOLDER = Path(__file__).parent / "demo"
# The hub's own rule for names, less the exceptions that it names itself ("--", ".git"); and ":" precision.
HUB_NAME = re.compile(r"(\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b)(?::(\w+))?", re.ASCII)
VOCABULARIES = ("tokens.txt", "vocabulary.txt", "vocab.txt", "tokenizer.json", "vocab.json")


class Graphs(NamedTuple):
    """Two graphs that belong together."""

    contract: type[Contract]
    encoder: GraphFile
    decoder: GraphFile


class ModelFiles(NamedTuple):
    """What a folder holds, before anything is opened. config: config.json, {} where there is none;  precision: of the
    graphs, as far as their files tell."""

    folder: Path
    graphs: Graphs
    vocabulary: Vocabulary
    config: dict[str, Any]
    precision: str


@dataclass(frozen=True)
class Model:
    """contract: the graphs, and how they are run;  max_chunk_s: longest piece of audio that the encoder takes;
    precision: of the graphs, as far as their files tell;  turn: to be taken to run them;  open_graph: opens another
    graph on the decoder's device."""

    contract: Contract
    vocabulary: Vocabulary
    max_chunk_s: float
    precision: str
    turn: Turn
    open_graph: Callable[[GraphFile], Session]


def load_model(
    model: str | PathLike[str] | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    spin: bool = True,
    cache: str | PathLike[str] | None = None,
    precision: str | None = None,
    self_check: bool = False,
) -> Model:
    """Open the two graphs and the vocabulary of a folder, or of its subfolder onnx/, or of a model on the Hugging Face
    hub ("owner/name" or "owner/name:precision", where there is no such folder). Arguments and errors: see Transcriber;
    ProviderError also for a provider that runs the model, but not rightly."""
    path = (str, PathLike, type(None))
    check_kind("model", model, path, 'a folder, the "owner/name" of a model on the Hugging Face hub, or None')
    check_kind("cache", cache, path, 'a folder, "off" or None')
    check_kind("precision", precision, (str, type(None)), 'text such as "int8", or None')
    if model == "":
        raise OptionError("model is '', as of a variable that was never set; for the current folder it is '.'")
    opener = find_opener(providers)
    # the encoder's threads leave the cores to the decoder's, which wait for the next step
    encoder_options, decoder_options = (partial(session_options, threads, spin, stop) for stop in (True, False))
    n_threads = encoder_options().intra_op_num_threads  # or raises what is to be said of them
    files = find_model(model, precision, on_cpu=opener is None)
    if opener is None and "bf16" in files.precision:
        raise ModelError(
            f"{files.folder} is {files.precision}, which no CPU runs: use --provider cuda, or another export"
        )
    turn = Turn(n_threads != 1 or opener is not None, providers)
    with turn.lock:
        turn.check()
        encoder = open_session(files.graphs.encoder, opener, encoder_options, cache)
        if "mel_mask" in encoder.inputs:
            try:
                from .devices.masked import unmasked
            except ImportError:
                raise ModelError(f"{encoder.path} takes a mask, which needs cohere_lite/devices/masked.py") from None
            encoder = unmasked(encoder)
        decoder = open_session(files.graphs.decoder, opener, decoder_options, cache)
        max_chunk_s = _max_chunk_s(encoder)
        contract_type = files.graphs.contract
        if checked := opener or self_check:
            try:
                from .devices.on_device import on_device
                from .devices.selfcheck import check_model
            except ImportError as error:
                needed = f"cohere_lite/devices/selfcheck.py, which is not in this copy, or not whole ({error})"
                raise ProviderError(f"providers other than ['cpu'], and the self-check, need {needed}") from None
            contract_type = on_device(contract_type, decoder)
        turn.contract = contract = contract_type(encoder, decoder, files.config)
        open_graph = partial(open_session, opener=opener, make_options=decoder_options, cache=cache)
        if checked:
            check_model(contract, files.precision, providers[0], opener is None, open_graph)
    if (known := contract.vocabulary_size) != len(files.vocabulary):
        listed = f"{files.folder}: {files.vocabulary.name} lists {len(files.vocabulary)} tokens"
        raise ModelError(f"{listed}, the decoder knows {known}: files of different models")
    return Model(contract, files.vocabulary, max_chunk_s, files.precision, turn, open_graph)


def find_model(model: str | PathLike[str] | None, precision: str | None = None, on_cpu: bool = True) -> ModelFiles:
    """The files of a model, complete. Arguments and errors: see Transcriber;  on_cpu: what will run it."""
    folder, paths, precision = _locate(model, precision, on_cpu)
    found = find_graphs(folder, paths, precision)
    try:
        from .extras.precisions import choose_model
    except ImportError:
        if precision is not None or len(found) > 1:
            needed = "cohere_lite/extras/precisions.py, which is not in this copy"
            raise ModelError(f"{folder}: to choose a model needs {needed}") from None
        graphs, precision = found[0], "unknown"
    else:
        graphs, precision = choose_model(folder, found, precision, on_cpu)
    for graph in (graphs.encoder, graphs.decoder):
        check_external_data(graph)
    path = _beside(graphs.encoder.path, VOCABULARIES)
    if path is None:
        others = f"{', '.join(VOCABULARIES[1:-1])} or {VOCABULARIES[-1]}"
        raise ModelFileNotFound(f"{folder} has no {VOCABULARIES[0]}, nor {others}: the model's tokens come with it")
    vocabulary = read_tokens(path)
    _check_vocabulary(vocabulary, graphs.contract.name)
    config = _config(graphs.encoder.path) if graphs.contract.max_positions_key else {}
    return ModelFiles(folder, graphs, vocabulary, config, precision)


def _locate(
    model: str | PathLike[str] | None, precision: str | None, on_cpu: bool
) -> tuple[Path, list[Path], str | None]:
    """The model's folder, the .onnx files in it that may be its graphs, and the precision that is asked for."""
    if model is None and not DEMO_FOLDER.is_dir():
        found = "comes without the demonstration model"
        if any(path.is_file() for path in DEMO_FOLDER.parents):
            found = "is in a zip file, and models are loaded from folders"
        elif getattr(sys, "frozen", False):
            found += " (PyInstaller adds it with --collect-data cohere_lite)"
        raise ModelFileNotFound(f"this copy of the package {found}: name a model folder")
    folder = DEMO_FOLDER if model is None else Path(model)
    named = HUB_NAME.fullmatch(model) if isinstance(model, str) and not folder.exists() else None
    if named and named[2]:
        if precision not in (None, named[2]):
            raise OptionError(f"{model} names a precision, and precision is {precision!r}: use one of the two")
        folder, precision = Path(named[1]), named[2]
    if named and not folder.exists():
        try:
            from .extras.hub import download_model
        except ImportError:
            missing = "from the Hugging Face hub needs cohere_lite/extras/hub.py, which is not in this copy"
            raise ModelFileNotFound(f"there is no folder {model}; to fetch it {missing}") from None
        paths = download_model(named[1], precision, on_cpu)
        return paths[0].parent, paths, None  # there it has been chosen
    if not folder.is_dir():
        found = f"{folder} is a file" if folder.exists() else f"{folder} does not exist"
        raise ModelFileNotFound(f"{found}; a model is a folder with an encoder, a decoder (.onnx) and tokens.txt")
    paths = sorted([*folder.glob("*.[oO][nN][nN][xX]"), *folder.glob("onnx/*.[oO][nN][nN][xX]")])
    paths = [path for path in paths if path.is_file() and not path.name.startswith(".")]  # "._x": macOS's shadows
    if not paths:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelFileNotFound(f"{folder} holds no .onnx file; it holds {held}")
    return folder, paths, precision


def _beside(graph: Path, names: Sequence[str]) -> Path | None:
    """The first of these files beside a graph, else one level up."""
    paths = [folder / name for folder in (graph.parent, graph.absolute().parent.parent) for name in names]
    return next(filter(Path.is_file, paths), None)


def _check_vocabulary(vocabulary: Vocabulary, contract: str) -> None:
    """Raises ModelError for that of another model, whose graphs may look the same."""
    if not vocabulary.languages:
        raise ModelError(f"{vocabulary.name} has no language, such as '<|en|>'; is it from a Cohere Transcribe model?")
    vocabulary.prompt(vocabulary.languages[0])
    if contract == "mems" and "<|spkchange|>" in vocabulary.pieces and "<0x00>" not in vocabulary.pieces:
        raise ModelError(f"{vocabulary.name} has no pieces for bytes ('<0x00>'): Canary's, whose graphs look the same")


def _config(graph: Path) -> dict[str, Any]:
    path = _beside(graph, ["config.json"])
    return read_config(path) if path else {}


def read_config(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object. Raises ModelError, OSError."""
    check_download(path, "a configuration")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: not a JSON object")
    return config


def find_graphs(folder: Path, paths: list[Path], precision: str | None = None) -> list[Graphs]:
    """Every encoder with every decoder of its contract, in one folder. Raises ModelError where there is no such pair,
    or a file is damaged that is named after the precision that is asked for."""
    graphs, damaged = [], []
    for path in paths:
        try:
            graphs.append(read_graph_file(path))
        except (ModelError, OSError) as error:  # such as pointers to files of other precisions, which were not fetched
            damaged.append((path, error if isinstance(error, ModelError) else ModelError(str(error))))
    found = []
    for contract in CONTRACTS:
        encoders = [graph for graph in graphs if graph.has(*contract.encoder_graph)]
        decoders = [graph for graph in graphs if is_decoder(graph, contract)]
        found += [Graphs(contract, e, d) for e in encoders for d in decoders if e.path.parent == d.path.parent]
    for path, damage in damaged:
        wanted = rf"(?<![a-z0-9]){re.escape(precision)}(?![a-z0-9])" if precision else "$^"
        if not found or re.search(wanted, path.name, re.IGNORECASE):
            raise damage
        logger.debug("left out: %s", damage)
    if found:
        return found
    try:
        from .extras.describe import describe

        held = describe(graphs)
    except ImportError:
        held = ", ".join(graph.path.name for graph in graphs)
    raise ModelError(f"{folder} has no encoder and decoder that belong together: {held}")


def is_decoder(graph: GraphFile, contract: type[Contract]) -> bool:
    """Whether it is the contract's, and not that of one that asks for more."""
    more = [other for other in CONTRACTS if other.decoder_graph[0] > contract.decoder_graph[0]]
    return graph.has(*contract.decoder_graph) and not any(graph.has(*other.decoder_graph) for other in more)


def _max_chunk_s(encoder: Session) -> float:
    """The longest piece to cut: the reference's, or less where the encoder says so (our exporter writes it)."""
    said = encoder.metadata.get("max_audio_s", MAX_CHUNK_S)
    with suppress(ValueError):
        if float(said) >= MIN_CHUNK_S:
            return min(MAX_CHUNK_S, float(said))
    raise ModelError(
        f"{encoder.path}: its metadata says max_audio_s {said!r}; it must be {MIN_CHUNK_S:g} seconds or more: "
        "shorter pieces leave no room to look for a quiet point to cut at"
    )
