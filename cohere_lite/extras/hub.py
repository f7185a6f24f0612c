"""A model's name on the Hugging Face hub -> its files in the hub's cache on this machine.

One encoder, one decoder, their weights, the list of tokens and config.json are fetched, and nothing else of the
repository. huggingface_hub does the work, if it is installed: it resumes interrupted downloads, and a complete copy in
its cache needs no network.
"""

import posixpath
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

from ..errors import CohereLiteError, ModelError, ModelFileNotFound, OptionError, logger
from ..graphfile import check_external_data, read_graph_file
from ..model import VOCABULARIES, find_graphs
from .describe import FOREIGN_FILES
from .precisions import best_precision, named_precision, pairs_by_precision

_ROLES = "encoder", "decoder"


def download_model(name: str, precision: str | None, on_cpu: bool) -> list[Path]:
    """The .onnx files of the encoder and the decoder of `name` ("owner/name"), beside their weights and tokens.
    Their folder may hold other graphs, which somebody else fetched.  precision, on_cpu: see precisions.py.

    If they cannot be fetched, a complete copy in the cache is taken. Raises ModelFileNotFound or
    ModelError if there is none, or if the repository does not hold one model that can be run.
    """
    page = f"https://huggingface.co/{name}"
    nowhere = f"there is no folder {name} here"
    try:
        from huggingface_hub import constants
        from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise ModelFileNotFound(
            f"{nowhere}; to fetch it from the Hugging Face hub: pip install 'cohere-lite[hub]' (or huggingface_hub); "
            f"or fetch encoder and decoder (.onnx), the files with their weights and tokens.txt by hand from {page}"
        ) from error
    choice = partial(_choose_files, name, precision=precision, on_cpu=on_cpu)
    try:
        return _fetch(name, choice)
    except CohereLiteError:
        raise
    except Exception as error:  # of httpx, httpx2 or requests, as huggingface_hub's version has it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        with suppress(ModelError, OptionError, LocalEntryNotFoundError):
            cached = _find_cached(name, choice)
            logger.info("%s is taken from %s (%s)", name, constants.HF_HUB_CACHE, reason)
            return cached
        if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError, too
            reason = f"it is gated: accept its terms at {page}, then `hf auth login`, or set HF_TOKEN"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "no such model is there (if it is private: `hf auth login`, or set HF_TOKEN)"
        else:
            reason = f"there is no complete copy in {constants.HF_HUB_CACHE}, and {reason}"
        raise ModelFileNotFound(f"{nowhere}, and none to be had from the Hugging Face hub: {reason}") from error


def _fetch(name: str, choose: Callable[[list[str]], list[str]]) -> list[Path]:
    from huggingface_hub import HfApi, constants, hf_hub_download

    info = HfApi().model_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    files = choose([file.rfilename for file in info.siblings or []])
    # By commit: all files are of one version, and those in the cache are not asked for again. Not with
    # snapshot_download: after Ctrl-C it goes on until its threads have fetched their files (huggingface_hub 2.4).
    graphs = _complete(files, partial(hf_hub_download, name, revision=info.sha))
    # By branch, when all is there: it makes this commit the current one, for _find_cached and `hf cache prune`.
    hf_hub_download(name, files[-1])
    return graphs


def _find_cached(name: str, choose: Callable[[list[str]], list[str]]) -> list[Path]:
    from huggingface_hub import snapshot_download

    # The folder of the current commit; without patterns, the whole repository would have to be in it.
    snapshot = Path(snapshot_download(name, local_files_only=True, allow_patterns=[]))
    held = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    return _complete(choose(held), snapshot.joinpath)


def _complete(files: Sequence[str], fetch: Callable[[str], str | Path]) -> list[Path]:
    """Fetches the encoder, the decoder, their weights, and what else is needed; the first two are returned."""
    encoder, decoder, *others = files
    graphs = [read_graph_file(fetch(encoder)), read_graph_file(fetch(decoder))]
    find_graphs(graphs[0].path.parent, [graph.path for graph in graphs])  # refuses another model's, before its weights
    for graph in graphs:
        for location in graph.external_bytes:
            fetch(posixpath.join(posixpath.dirname(encoder), location))
        check_external_data(graph)
    for other in others:
        fetch(other)
    return [graph.path for graph in graphs]


def _choose_files(name: str, held: list[str], precision: str | None, on_cpu: bool) -> list[str]:
    """Encoder and decoder of one folder out of the files of a repository; config.json, what is known of languages, the
    graph for word times and the step's for a GPU, if they are there; and the list of tokens."""

    def beside(folder: str, names: Sequence[str]) -> list[str]:
        paths = [posixpath.join(place, file) for place in (folder, posixpath.dirname(folder)) for file in names]
        return [path for path in paths if path in held][:1]

    for file in held:
        for beginning, what in FOREIGN_FILES.items():
            if posixpath.basename(file).startswith(beginning) and file.endswith(".onnx"):
                raise ModelError(f"{name} holds {file}, {what}")
    models: dict[tuple[str, str], tuple[list[str], list[str]]] = {}  # by folder and precision
    for folder in sorted({posixpath.dirname(file) for file in held}):
        graphs = [file for file in held if posixpath.dirname(file) == folder and file.lower().endswith(".onnx")]
        encoders, decoders = ([f for f in graphs if role in posixpath.basename(f).lower()] for role in _ROLES)
        # Masterx's repositories hold a second decoder, for DirectML
        decoders = [file for file in decoders if f"{file[:-5]}_dyn.onnx" not in held]
        if beside(folder, VOCABULARIES):
            merged = [file for file in decoders if "merged" in file]  # rather than Optimum's, for the first step
            pairs = pairs_by_precision(encoders, merged or decoders, lambda f: named_precision(f) or "fp32", on_cpu)
            models |= {(folder, label): pair for label, pair in pairs.items()}
    if not models:
        names = sorted(file for file in held if not file.startswith("."))
        some = f"{', '.join(names[:8]) or 'nothing'}{' ...' if names[8:] else ''}"
        if any(file.endswith(".safetensors") for file in held):
            some += (
                ": a checkpoint, to be exported first (pip install 'cohere-lite[export]', python -m cohere_lite.export)"
            )
        raise ModelFileNotFound(f"{name} has no encoder and decoder (.onnx) beside a list of tokens; it holds {some}")
    labels = dict.fromkeys(label for _, label in models)
    wanted = best_precision(labels, precision, on_cpu)
    if wanted is None:
        raise OptionError(f"{name} has no precision {precision!r}; it has {', '.join(sorted(labels))}")
    chosen = [[*encoders, *decoders] for (_, label), (encoders, decoders) in models.items() if label == wanted]
    if len(chosen) > 1 or len(chosen[0]) > 2:
        raise ModelError(
            f"{name} has more than one model: {', '.join(sorted(chain(*chosen)))}; fetch one encoder and decoder, "
            "their weights and tokens.txt into a folder of your own (`hf download`), and use that"
        )
    folder, decoder = posixpath.dirname(chosen[0][0]), posixpath.basename(chosen[0][1])
    # extras/detect.py, extras/word_times.py
    others = ["config.json", "language.json", decoder.replace("decoder", "align")]
    others += [] if on_cpu else [decoder.replace("decoder", "step")]  # devices/recorded.py
    found = [file for name in others for file in beside(folder, [name]) if file not in chosen[0]]
    return [*chosen[0], *found, *beside(folder, VOCABULARIES)]
