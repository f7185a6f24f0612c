"""A model's name on the Hugging Face hub -> its files in the hub's cache on this machine.

One encoder, one decoder, their weights and tokens.txt are fetched, and nothing else of the repository. huggingface_hub
does the work, if it is installed: it resumes interrupted downloads, and a complete copy in its cache needs no network.
"""

import posixpath
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

from ..errors import CohereLiteError, ModelError, ModelFileNotFound, logger
from ..graphfile import check_external_data, read_graph_file

_INT8 = re.compile("(?<![a-z])int8")  # "uint8" is another precision


def download_model(name: str) -> list[Path]:
    """The .onnx files of the encoder and the decoder of `name` ("owner/name"), beside their weights and tokens.txt.
    Their folder may hold other graphs, which somebody else fetched.

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
    try:
        return _fetch(name)
    except CohereLiteError:
        raise
    except Exception as error:  # of httpx, httpx2 or requests, as huggingface_hub's version has it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        with suppress(ModelError, LocalEntryNotFoundError):
            cached = _find_cached(name)
            logger.info("%s is taken from %s (%s)", name, constants.HF_HUB_CACHE, reason)
            return cached
        if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError, too
            reason = f"it is gated: accept its terms at {page}, then `hf auth login`, or set HF_TOKEN"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "no such model is there (if it is private: `hf auth login`, or set HF_TOKEN)"
        else:
            reason = f"there is no complete copy in {constants.HF_HUB_CACHE}, and {reason}"
        raise ModelFileNotFound(f"{nowhere}, and none to be had from the Hugging Face hub: {reason}") from error


def _fetch(name: str) -> list[Path]:
    from huggingface_hub import HfApi, constants, hf_hub_download

    info = HfApi().model_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    files = _choose(name, [file.rfilename for file in info.siblings or []])
    # By commit: all files are of one version, and those in the cache are not asked for again. Not with
    # snapshot_download: after Ctrl-C it goes on until its threads have fetched their files (huggingface_hub 2.4).
    graphs = _complete(files, partial(hf_hub_download, name, revision=info.sha))
    # By branch, when all is there: it makes this commit the current one, for _find_cached and `hf cache prune`.
    hf_hub_download(name, files[-1])
    return graphs


def _find_cached(name: str) -> list[Path]:
    from huggingface_hub import snapshot_download

    # The folder of the current commit; without patterns, the whole repository would have to be in it.
    snapshot = Path(snapshot_download(name, local_files_only=True, allow_patterns=[]))
    held = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    return _complete(_choose(name, held), snapshot.joinpath)


def _complete(files: Sequence[str], fetch: Callable[[str], str | Path]) -> list[Path]:
    """Fetches the encoder, the decoder, their weights and tokens.txt; the first two are returned."""
    encoder, decoder, tokens = files
    graphs = [read_graph_file(fetch(encoder)), read_graph_file(fetch(decoder))]
    for graph in graphs:
        for location in graph.external_bytes:
            fetch(posixpath.join(posixpath.dirname(encoder), location))
        check_external_data(graph)
    fetch(tokens)
    return [graph.path for graph in graphs]


def _choose(name: str, held: list[str]) -> tuple[str, ...]:
    """Encoder, decoder and tokens.txt of one folder, out of the files of a repository; INT8 if there is a choice."""
    named = (r"encoder[^/]*\.onnx$", r"decoder[^/]*\.onnx$", r"(^|/)tokens\.txt$")
    matching = [[file for file in held if re.search(pattern, file.lower())] for pattern in named]
    models = [model for model in product(*matching) if len(set(map(posixpath.dirname, model))) == 1]
    if not models:
        names = sorted(file for file in held if not file.startswith("."))
        some = f"{', '.join(names[:8]) or 'nothing'}{' ...' if names[8:] else ''}"
        if any(file.endswith(".safetensors") for file in held):
            some += (
                ": a checkpoint, to be exported first (pip install 'cohere-lite[export]', python -m cohere_lite.export)"
            )
        raise ModelFileNotFound(f"{name} has no encoder and decoder (.onnx) beside a tokens.txt; it holds {some}")
    n_int8 = [sum(bool(_INT8.search(file.lower())) for file in model) for model in models]
    best = [model for model, n in zip(models, n_int8, strict=True) if n == max(n_int8)]
    if len(best) > 1:
        names = sorted({file for model in best for file in model[:2]})
        raise ModelError(
            f"{name} has more than one model: {', '.join(names)}; fetch one encoder and decoder, their weights and "
            "tokens.txt into a folder of your own (`hf download`), and use that"
        )
    return best[0]
