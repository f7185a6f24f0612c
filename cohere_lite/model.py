"""A model folder -> its two graphs, open, and its vocabulary."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

from .contracts import CONTRACTS, Contract
from .cut import MAX_CHUNK_S, MIN_CHUNK_S
from .errors import ModelError, ModelFileNotFound
from .graphfile import GraphFile, check_external_data, read_graph_file
from .session import Session, open_session, provider_names, session_options
from .tokens import Vocabulary, read_tokens

DEMO_FOLDER = Path(__file__).parent / "demo"
# The hub's own rule for names, less the exceptions that it names itself ("--", ".git").
HUB_NAME = re.compile(r"\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b", re.ASCII)


@dataclass(frozen=True)
class Model:
    """contract: the graphs, and how they are run;  max_chunk_s: longest piece of audio that the encoder takes."""

    contract: Contract
    vocabulary: Vocabulary
    max_chunk_s: float


def load_model(
    model: str | PathLike[str] | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    spin: bool = True,
    cache: str | PathLike[str] | None = None,
) -> Model:
    """Open the two graphs and tokens.txt of a folder (None: the embedded demonstration model; "owner/name", where there
    is no such folder: a model on the Hugging Face hub).

    providers: see extras/providers.py, the preferred one first;  threads: per session, None for the physical cores that
    this process may use;  spin: see session.session_options;  cache: see extras/prepared.py.

    Raises ModelError or ModelFileNotFound for a folder that is not a complete model, OptionError for a provider or
    thread count that makes no sense, ProviderError if the first provider would not run.
    """
    names = provider_names(providers)
    # the encoder's threads leave the cores to the decoder's, which wait for the next step
    encoder_options, decoder_options = (partial(session_options, threads, spin, stop) for stop in (True, False))
    encoder_options()  # raises what is to be said of the threads
    folder, paths = _locate(model)
    contract, encoder, decoder = _find_graphs(folder, paths)
    for graph in (encoder, decoder):
        check_external_data(graph)
    vocabulary = read_tokens(folder / "tokens.txt")
    encoder_session = open_session(encoder, names, encoder_options, cache)
    decoder_session = open_session(decoder, names, decoder_options, cache)
    max_chunk_s = _max_chunk_s(encoder_session)
    opened = contract(encoder_session, decoder_session)
    if (known := opened.vocabulary_size) != len(vocabulary):
        listed = f"{folder}: tokens.txt lists {len(vocabulary)} tokens"
        raise ModelError(f"{listed}, the decoder knows {known}: files of different models")
    return Model(opened, vocabulary, max_chunk_s)


def _locate(model: str | PathLike[str] | None) -> tuple[Path, list[Path]]:
    """The model's folder, and the .onnx files in it that may be its graphs."""
    if model is None and not DEMO_FOLDER.is_dir():
        raise ModelFileNotFound("this copy of the package comes without the demonstration model: name a model folder")
    folder = DEMO_FOLDER if model is None else Path(model)
    if isinstance(model, str) and HUB_NAME.fullmatch(model) and not folder.exists():
        try:
            from .extras.hub import download_model
        except ImportError:
            missing = "from the Hugging Face hub needs cohere_lite/extras/hub.py, which is not in this copy"
            raise ModelFileNotFound(f"there is no folder {model}; to fetch it {missing}") from None
        paths = download_model(model)
        return paths[0].parent, paths
    if not folder.is_dir():
        found = f"{folder} is a file" if folder.exists() else f"{folder} does not exist"
        raise ModelFileNotFound(f"{found}; a model is a folder with an encoder, a decoder (.onnx) and tokens.txt")
    paths = sorted(path for path in folder.glob("*.onnx") if not path.name.startswith("."))  # "._x": macOS's shadows
    if not paths:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelFileNotFound(f"{folder} holds no .onnx file; it holds {held}")
    if not (folder / "tokens.txt").is_file():
        raise ModelFileNotFound(f"{folder} has no tokens.txt, the list of the model's tokens; it comes with the model")
    return folder, paths


def _find_graphs(folder: Path, paths: list[Path]) -> tuple[type[Contract], GraphFile, GraphFile]:
    """The contract whose two graphs are there."""
    graphs = [read_graph_file(path) for path in paths]
    pairs = []
    for contract in CONTRACTS:
        encoders = [graph for graph in graphs if graph.has(*contract.encoder_graph)]
        decoders = [graph for graph in graphs if graph.has(*contract.decoder_graph)]
        for role, found in (("encoder", encoders), ("decoder", decoders)):
            if len(found) > 1:
                names = ", ".join(graph.path.name for graph in found)
                raise ModelError(f"{folder} has more than one {role}: {names}; keep one pair in a folder")
        pairs += [(contract, *pair) for pair in zip(encoders, decoders, strict=False)]
    if pairs:
        return pairs[0]
    try:
        from .extras.describe import describe
    except ImportError:
        held = ", ".join(graph.path.name for graph in graphs)
    else:
        held = "; ".join(map(describe, graphs))
    raise ModelError(f"{folder} has no encoder and decoder that belong together: {held}")


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
