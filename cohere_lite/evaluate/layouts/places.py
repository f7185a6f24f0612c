"""Where a data set's files lie: a folder of this machine, or a repository of the Hugging Face hub, of which no more is
fetched than is read."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from ..errors import EvaluateError

# The files that describe a data set. A folder may hold millions of recordings, which are not listed.
_DESCRIBING = (
    *(".parquet", ".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".trans.txt", ".ctm"),
    *(".tar", ".tar.gz", ".tgz"),
)
_PACKED = (".parquet", ".tar", ".tar.gz", ".tgz")  # with recordings in them
_KALDI = ("wav.scp", "text", "segments", "utt2spk", "ctm")

EVALUATED = "run.jsonl"  # in the folder of an evaluation, whose lists are no data
_OF_EVALUATIONS = (EVALUATED, "utterances.jsonl", "figures.json")


class Place(Protocol):
    """A folder of files. Their paths are relative to it, with slashes."""

    name: str

    @property
    def files(self) -> list[str]:
        """The files that describe the data set, sorted: tables, lists, archives; no recordings."""

    def open(self, path: str, read_ahead: int = 1 << 20) -> BinaryIO:
        """A file to read and seek in.  read_ahead: bytes that are asked for at once, of a file that is not of this
        machine. Raises OSError."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    def audio(self, path: str) -> Callable[[], bytes | Path]:
        """What gives a recording: its path, or its bytes."""

    @property
    def state(self) -> str:
        """Changes when recordings that are no files of their own may have changed."""


class Folder:
    """A folder of this machine, or one file in it.  only: this file alone describes the data set"""

    def __init__(self, root: Path, only: str | None = None) -> None:
        self.root, self.only, self.name = root, only, (root / only).stem if only else root.resolve().name

    @cached_property
    def files(self) -> list[str]:
        """See Place."""
        if self.only:
            return [self.only]
        found = (prefix + name for prefix, name in walk(self.root) if name.endswith(_DESCRIBING) or name in _KALDI)
        return sorted(found)

    def open(self, path: str, read_ahead: int = 0) -> BinaryIO:
        """See Place."""
        return (self.root / path).open("rb")

    def exists(self, path: str) -> bool:
        """See Place."""
        return os.path.isfile(self.root / path)  # Path.is_file raises OSError for a text that is too long for a name

    def audio(self, path: str) -> Callable[[], bytes | Path]:
        """See Place."""
        return partial(Path, self.root / path)

    @cached_property
    def state(self) -> str:
        """See Place: of tables and archives; those beside a list, too."""
        return " ".join(file_state(self.root / path) for path in Folder(self.root).files if path.endswith(_PACKED))


def file_state(path: Path) -> str:
    """Where a file lies, its size, and when it was written; of one that is not there the first alone."""
    with suppress(OSError):
        return f"{os.path.realpath(path)} {path.stat().st_size} {path.stat().st_mtime_ns}"
    return str(path)


def walk(root: Path) -> Iterator[tuple[str, str]]:
    """The files of a folder and of those in it, one folder after the other: "de/test/", "a.wav". Links to folders are
    followed, each folder is read once. Without what begins with ".", such as macOS' own notes on a file, "._a.wav";
    without evaluations, whose --out may lie beside the recordings, or be their folder."""
    seen, prefixes = set(), [""]
    while prefixes:
        prefix = prefixes.pop()
        folder = os.path.join(root, prefix)
        is_evaluated = os.path.isfile(os.path.join(folder, EVALUATED))
        if (place := os.path.realpath(folder)) in seen or (prefix and is_evaluated):
            continue
        seen.add(place)
        inside = []
        with os.scandir(folder) as entries:  # os.walk would hold the names of all recordings in a folder
            for entry in entries:
                if entry.name.startswith(".") or (is_evaluated and entry.name in _OF_EVALUATIONS):
                    continue
                if entry.is_dir():
                    inside.append(f"{prefix}{entry.name}/")
                else:
                    yield prefix, entry.name
        prefixes += sorted(inside, reverse=True)


class Repository:
    """A data set of the Hugging Face hub, at one commit."""

    def __init__(self, name: str, revision: str, paths: Iterable[str]) -> None:
        self.name, self._revision, self._paths = name, revision, frozenset(paths)
        self.state = f"{name} {revision}"
        self.files = sorted(path for path in self._paths if path.endswith(_DESCRIBING))

    def open(self, path: str, read_ahead: int = 1 << 20) -> BinaryIO:
        """See Place."""
        from huggingface_hub import HfFileSystem

        file = f"datasets/{self.name}@{self._revision}/{path}"
        return cast(BinaryIO, HfFileSystem().open(file, "rb", block_size=read_ahead))

    def exists(self, path: str) -> bool:
        """See Place."""
        return path in self._paths

    def audio(self, path: str) -> Callable[[], bytes | Path]:
        """See Place."""
        return partial(self._read, path)

    def _read(self, path: str) -> bytes:
        try:
            with self.open(path) as file:
                return file.read()
        except Exception as error:  # of httpx, httpx2 or requests, as huggingface_hub's version has it
            raise EvaluateError(f"{path} of {self.name}: {one_line(error)}") from error


_PARQUET_REVISION = "refs/convert/parquet"  # the hub's own copy, of data sets that come as scripts and archives


def find_repository(name: str) -> Place:
    """A data set of the hub, by its name ("owner/name"); from the hub's cache on this machine if the hub does not
    answer. Raises EvaluateError if there is none."""
    try:
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    except ImportError as error:
        raise EvaluateError(f"{name}: there is no such folder here, and for the hub: {needed(error)}") from error
    try:
        return _newest(name)
    except Exception as error:  # of httpx, httpx2 or requests, as huggingface_hub's version has it
        reason, cause = f"the Hugging Face hub does not answer ({one_line(error)})", error
        if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError, too
            page = f"https://huggingface.co/datasets/{name}"
            reason = f"it is gated: accept its terms at {page}, then `hf auth login`, or set HF_TOKEN"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "there is no such folder here, and no such data set on the Hugging Face hub"
    for revision in (_PARQUET_REVISION, "main"):
        with suppress(Exception):  # there is no copy, which is said below
            # Without patterns, the whole repository would have to be in the cache.
            cached = snapshot_download(
                name, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=[]
            )
            folder = Folder(Path(cached))
            folder.name = name
            if folder.files:
                return folder
    raise EvaluateError(f"{name}: {reason}; and {constants.HF_HUB_CACHE} has no copy of it") from cause


def _newest(name: str) -> Repository:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RevisionNotFoundError

    def at(revision: str) -> Repository:
        commit = api.repo_info(name, repo_type="dataset", revision=revision, timeout=timeout).sha
        tree = api.list_repo_tree(name, recursive=True, revision=commit, repo_type="dataset")
        return Repository(name, commit or revision, [item.path for item in tree])

    api, timeout = HfApi(), constants.HF_HUB_ETAG_TIMEOUT
    main = at("main")
    if not any(path.endswith(".parquet") for path in main.files):
        try:
            return at(_PARQUET_REVISION)
        except RevisionNotFoundError:
            pass
    return main


def needed(error: ImportError) -> str:
    """What to install."""
    return f"pip install 'cohere-lite[evaluate]' ({error})"


def one_line(error: Exception) -> str:
    """An error's kind and the first line of what it says."""
    said = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
