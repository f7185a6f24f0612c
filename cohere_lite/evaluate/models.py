"""A model as it was named -> what can be said of it before it is loaded; and the process that runs it."""

import hashlib
import multiprocessing
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import CohereLiteError, ModelError
from ..extras.prepared import MIN_BYTES
from ..model import find_model
from ..session import ort
from .errors import EvaluateError
from .worker import Recognise, open_ours, open_reference, serve

REFERENCE = "reference:"  # before the folder of a checkpoint
_REFERENCE_PACKAGES = ("torch", "transformers")
_CLOSE_S = 2.0  # for a process that is idle to end by itself


@dataclass(frozen=True)
class Model:
    """A model that is complete.

    spec:      as it was named;  name: in tables
    languages: that it can be asked for
    pieces:    a digest of its vocabulary: tokens of two models can be compared where these are equal
    n_bytes:   of its graphs, or of the checkpoint, and their weights
    facts:     what its answers and figures depend on: those of a model with other facts must not be mixed with them
    opener, options: how its process opens it
    """

    spec: str
    name: str
    languages: tuple[str, ...]
    pieces: str
    n_bytes: int
    facts: dict[str, Any]
    opener: Callable[..., Recognise]
    options: dict[str, Any]

    @property
    def is_reference(self) -> bool:
        """Whether others' tokens are compared with its."""
        return self.spec.startswith(REFERENCE)


def find_models(specs: Sequence[str], provider: str, threads: int | None, punctuation: bool) -> list[Model]:
    """The models that are named: a folder, FOLDER:PRECISION, the name of one on the hub, which is fetched, or
    reference:FOLDER. Raises EvaluateError, and what Transcriber raises, for one that cannot be used."""
    if twice := {spec for spec in specs if specs.count(spec) > 1}:
        raise EvaluateError(f"{twice.pop()} is named twice")
    settings = {
        "provider": _named(provider),
        "threads": threads,
        "punctuation": punctuation,
        "cohere_lite": __version__,
    }
    names = distinct_ends([spec.replace(REFERENCE, "reference ") for spec in specs])
    models = [_find(spec, name, settings) for spec, name in zip(specs, names, strict=True)]
    references = [model for model in models if model.is_reference]
    if len(references) > 1:
        raise EvaluateError(f"{references[1].spec} is a second reference: one is what tokens are compared with")
    for model in models:
        if references and model.pieces != references[0].pieces:
            raise EvaluateError(
                f"{model.spec} has another vocabulary than {references[0].spec}: tokens cannot be compared"
            )
    return models


def _named(provider: str) -> str:
    """A provider as the command understands it, in one spelling: CPU and CPUExecutionProvider are cpu; its options as
    they are. Raises OptionError."""
    if provider == "cpu":
        return provider  # the one that a copy without devices/ knows
    from ..devices.providers import parse_provider

    name, separator, options = provider.partition(":")
    return parse_provider(f"{name.lower()}{separator}{options}")[0] + separator + options


def distinct_ends(specs: Sequence[str]) -> list[str]:
    """The last parts of paths or names, as many as tell them apart."""
    n_most = max(len(Path(spec).parts) for spec in specs)
    ends = ([Path(*Path(spec).parts[-n:]).as_posix() for spec in specs] for n in range(1, n_most + 1))
    return next((names for names in ends if len({*names}) == len(names)), [*specs])


def _find(spec: str, name: str, settings: dict[str, Any]) -> Model:
    how = {key: settings[key] for key in ("threads", "punctuation")}
    if spec.startswith(REFERENCE):
        return _find_reference(spec, name, settings, how)
    folder, precision = _split_precision(spec)
    files = find_model(folder, precision, on_cpu=settings["provider"] == "cpu")
    graphs = files.graphs.encoder, files.graphs.decoder
    paths = [path for graph in graphs for path in (graph.path, *map(graph.path.parent.joinpath, graph.external_bytes))]
    facts = {"precision": files.precision, "contract": files.graphs.contract.name, "onnxruntime": ort.__version__}
    return Model(
        *(spec, name, files.vocabulary.languages, _digest(files.vocabulary.pieces), _n_bytes(paths)),
        facts=settings | facts | {"files": _state(paths)},
        opener=open_ours,
        options={"model": folder, "precision": precision, "provider": settings["provider"], **how},
    )


def _find_reference(spec: str, name: str, settings: dict[str, Any], how: dict[str, Any]) -> Model:
    from ..export.vocabulary import read_pieces
    from ..tokens import Vocabulary

    if missing := [package for package in _REFERENCE_PACKAGES if find_spec(package) is None]:
        needed = "pip install torch 'transformers>=5.4'"
        raise EvaluateError(f"{spec} needs {' and '.join(missing)}, which this Python does not have: {needed}")
    folder = Path(spec.removeprefix(REFERENCE))
    paths = sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])
    if len(paths) < 2:
        raise EvaluateError(f"{folder} is no folder with a checkpoint: config.json and *.safetensors")
    try:
        vocabulary = Vocabulary(tuple(read_pieces(folder)))
    except (OSError, ValueError, ImportError) as error:
        raise EvaluateError(f"{spec}: {error}") from error
    return Model(
        *(spec, name, vocabulary.languages, _digest(vocabulary.pieces), _n_bytes(paths)),
        facts=settings
        | {package: version(package) for package in _REFERENCE_PACKAGES}
        | {"precision": "fp32", "provider": "torch", "files": _state(paths)},
        opener=open_reference,
        options={"folder": str(folder), **how},
    )


def _split_precision(spec: str) -> tuple[str, str | None]:
    """ "FOLDER:q4" is the folder's; in "owner/name:q4" the hub's own reader finds it."""
    folder, separator, precision = spec.rpartition(":")
    is_folder = separator and re.fullmatch(r"\w+", precision) and Path(folder).is_dir() and not Path(spec).exists()
    return (folder, precision) if is_folder else (spec, None)


def _digest(pieces: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(pieces).encode(), digest_size=8).hexdigest()


def _n_bytes(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _state(paths: Sequence[Path]) -> str:
    """Changes when a file is written anew. Not by what is in them: to read 4 GB takes longer than to transcribe 30
    recordings."""
    said = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]
    return hashlib.blake2b("\n".join(said).encode(), digest_size=8).hexdigest()


class WorkerDied(CohereLiteError):
    """A model's process ended before it answered."""


class Worker:
    """A model that runs in a process of its own.  load_s: from the import of its runtime to a model that is ready."""

    def __init__(self, model: Model, settles: bool = False) -> None:
        """settles: see `serve`. Raises ModelError for a model that cannot be opened, WorkerDied."""
        # spawn: a forked child has none of onnxruntime's threads, and all of the harness's memory
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, model.opener, model.options, settles)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()  # or the end of the process would not be the end of what comes from it
        self._name, self._settles = model.name, settles
        loaded = self._receive()
        if "error" in loaded:
            self.close()
            raise ModelError(f"{model.spec}: {loaded['error']}")
        self.load_s: float = loaded["load_s"]

    def recognise(
        self, frames: NDArray[np.float32], rate: int, language: str, word_times: bool = False
    ) -> dict[str, Any]:
        """The result for frames (n, channels): hypothesis, tokens, time_s, peak_mb and so on, with word_times words,
        too; or error. Raises WorkerDied."""
        frames = np.ascontiguousarray(frames)
        try:
            self._connection.send((rate, frames.shape, language, word_times))
            self._connection.send_bytes(frames.data.cast("B"))
        except OSError:
            pass  # _receive tells why
        result = self._receive()
        if self._settles:
            self._receive()
        return result

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            hint = ", as where memory runs out" if code == -9 else ""
            raise WorkerDied(f"the process of {self._name} ended ({how}{hint})") from None

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._connection.close()  # which ends it
        self._process.join(_CLOSE_S)
        self._process.kill()
        self._process.join()


def open_worker(model: Model, settles: bool) -> Worker:
    """A worker with the load time and the memory of any later start: large models are prepared at their first one
    (extras/prepared.py), in a process that is ended then."""
    if model.n_bytes >= MIN_BYTES and not model.is_reference:
        Worker(model).close()
    return Worker(model, settles)
