"""A model's name on the Hugging Face hub -> its files in the hub's cache on this machine.

huggingface_hub does the work, if it is installed: the package itself does without. Of a repository only one encoder,
one decoder, the files with their weights and tokens.txt are fetched; what was fetched once is found without a network.
"""

import posixpath
import re
from contextlib import suppress
from pathlib import Path

from ..errors import CohereLiteError, ModelError, ModelFileNotFound, logger
from ..graphfile import check_external_data, read_graph_file

_ROLES = ("encoder", "decoder")


def download_model(name: str) -> list[Path]:
    """The .onnx files of the encoder and the decoder of `name` ("owner/name"), beside the files with their weights and
    tokens.txt. The snapshot they are in may hold other graphs, which somebody else fetched.

    Whatever keeps the hub from answering, a complete copy in its cache is used instead. Raises ModelFileNotFound or
    ModelError if there is none, or if the repository does not hold what it takes.
    """
    page = f"https://huggingface.co/{name}"
    nowhere = f"there is no folder {name} here"
    try:
        from huggingface_hub import constants
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
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
        cache = Path(constants.HF_HUB_CACHE)
        if cached := _find_cached(cache, name):
            logger.info("%s is taken from %s (%s)", name, cache, reason)
            return cached
        if isinstance(error, GatedRepoError):
            raise ModelError(
                f"{name} is gated: accept its terms at {page}, then `hf auth login`, or set HF_TOKEN"
            ) from error
        if isinstance(error, RepositoryNotFoundError):
            raise ModelFileNotFound(
                f"{nowhere}, and no such model on the Hugging Face hub (if it is private: `hf auth login`, or set "
                "HF_TOKEN)"
            ) from error
        raise ModelFileNotFound(
            f"{nowhere}; from the Hugging Face hub it could not be fetched, and there is no complete copy in {cache} "
            f"({reason})"
        ) from error


def _fetch(name: str) -> list[Path]:
    from huggingface_hub import HfApi, constants, hf_hub_download

    info = HfApi().model_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    held = [file.rfilename for file in info.siblings or []]
    *graphs, tokens = _choose(name, held)
    # By commit: a file that is there is not asked for again, and no file is another version's.
    paths = [Path(hf_hub_download(name, graph, revision=info.sha)) for graph in graphs]
    for graph, path in zip(graphs, paths, strict=True):
        for location in read_graph_file(path).external_bytes:
            file = posixpath.normpath(posixpath.join(posixpath.dirname(graph), location))
            if file not in held:
                raise ModelFileNotFound(f"{name}: {graph} keeps its weights in {file!r}, which is not there")
            hf_hub_download(name, file, revision=info.sha)
    hf_hub_download(name, tokens, revision=info.sha)
    # By branch, last: it makes the complete snapshot the current one. `hf cache prune` removes the others.
    hf_hub_download(name, tokens)
    return paths


def _find_cached(cache: Path, name: str) -> list[Path] | None:
    """The newest complete snapshot's graphs; the current one may be incomplete, as a newer version was on its way."""
    snapshots = (cache / f"models--{name.replace('/', '--')}" / "snapshots").glob("*")
    for snapshot in sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True):
        held = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
        with suppress(ModelError):
            paths = [snapshot / graph for graph in _choose(name, held)[:2]]
            for path in paths:
                check_external_data(read_graph_file(path))
            return paths
    return None


def _choose(name: str, held: list[str]) -> list[str]:
    """Encoder, decoder and tokens.txt, out of the files that a repository holds: those of one folder, INT8 if there is
    a choice."""
    choices: list[list[str]] = [[], []]
    for folder in {posixpath.dirname(file) for file in held if posixpath.basename(file) == "tokens.txt"}:
        graphs = [file for file in held if posixpath.dirname(file) == folder and file.endswith(".onnx")]
        named = [[file for file in graphs if role in posixpath.basename(file).lower()] for role in _ROLES]
        if all(named):
            choices = [choice + more for choice, more in zip(choices, named, strict=True)]
    if not all(choices):
        raise ModelFileNotFound(f"{name} has no encoder and decoder (.onnx) beside a tokens.txt; {_contents(held)}")
    # "uint8" is another precision
    choices = [[file for file in choice if re.search(r"(?<![a-z])int8", file.lower())] or choice for choice in choices]
    if [len(choice) for choice in choices] != [1, 1]:
        names = ", ".join(sorted(choices[0] + choices[1]))
        raise ModelError(
            f"{name} has more than one model: {names}; fetch one encoder and decoder, their weights and tokens.txt "
            "into a folder of your own (`hf download`), and use that"
        )
    (encoder,), (decoder,) = choices
    return [encoder, decoder, posixpath.join(posixpath.dirname(encoder), "tokens.txt")]


def _contents(held: list[str]) -> str:
    names = sorted(file for file in held if not file.startswith("."))
    some = f"it holds {', '.join(names[:8]) or 'nothing'}{' ...' if names[8:] else ''}"
    if any(file.endswith(".safetensors") for file in held):
        return f"{some}: a checkpoint, which has to be exported first (python -m cohere_lite.export, see the README)"
    return some
