"""The cache of prepared graphs: optimised, with the weights packed for this processor's matrix products.

Preparing a graph takes longer than loading it. But later starts map the packed weights into memory instead of packing
them: they are faster, processes share that memory, and the system may drop it and read it again.

An entry belongs to one graph file, one onnxruntime and one kind of processor; its name is a digest of all three. It is
written under another name and then renamed, so that other processes see a complete entry or none. If anything goes
wrong, the model is loaded as it is, and the logger "cohere_lite" says why.
"""

import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from ..errors import OptionError, logger
from ..graphfile import GraphFile
from ..session import ort

ENVIRONMENT = "COHERE_LITE_CACHE"  # a folder, or "off"
OFF = "off"
# Smaller models load in a fraction of a second anyway.
MIN_BYTES = 50_000_000
# The file holds the packed weights beside the unpacked ones (3.7 GB for a 1.9 GB encoder); the rest is a margin.
MAX_GROWTH = 2.2
UNUSED_S = 30 * 24 * 3600  # entries for another onnxruntime or processor are removed after that time without a start
_FORMAT = "2"  # of an entry; a new number keeps this code from reading entries of older code
_GRAPH, _MANIFEST, _LOCK = "graph.onnx", "manifest.json", ".lock"
_PARTIAL = ".partial-"


def cache_folder(choice: str | PathLike[str] | None = None) -> Path | None:
    """Where prepared graphs are kept; None: nowhere. `choice`: a folder or "off"; by default what the environment
    variable COHERE_LITE_CACHE says, else the system's place for caches. Raises OptionError where ~ stands for nothing.
    """
    name = "cache" if choice else ENVIRONMENT
    choice = choice or os.environ.get(ENVIRONMENT)
    if choice is not None and str(choice).lower() == OFF:
        return None
    if choice:
        try:
            return Path(choice).expanduser()
        except RuntimeError as error:  # nobody is called so, or has a home folder
            raise OptionError(f"{name} is {choice}: there is no such home folder; write the whole path") from error
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library/Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or "")
            if not base.is_absolute():  # the XDG specification: relative paths are to be ignored
                base = Path.home() / ".cache"
    except RuntimeError:  # no home folder
        return None
    return base / "cohere_lite"


def open_prepared(
    graph: GraphFile,
    make_options: Callable[[], ort.SessionOptions],
    disabled: list[str],
    choice: str | PathLike[str] | None,
) -> ort.InferenceSession | None:
    """A session on the prepared form of `graph`, which is made now if need be; None: load `graph` as it is.

    make_options: new ones at each call;  disabled: optimizers to leave out;  choice: see cache_folder."""
    cache = cache_folder(choice)
    path = None if cache is None else prepared_graph(graph, make_options(), disabled, cache)
    if path is None:
        return None
    options = make_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it has been optimised
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # if the model itself is the reason, that shows when it is loaded as it is
        discard(path, error)
        return None


def prepared_graph(graph: GraphFile, options: ort.SessionOptions, disabled: list[str], cache: Path) -> Path | None:
    """The prepared form of `graph`, made now if need be; None: load `graph` as it is.

    options: like those of the session to come, for this use only;  disabled: optimizers to leave out."""
    if graph.path.stat().st_size + sum(graph.external_bytes.values()) < MIN_BYTES:
        return None
    try:
        entry = cache / _entry_name(graph, disabled)
        if not _is_complete(entry):
            cache.mkdir(parents=True, exist_ok=True)
            with alone_in(cache) as locked:
                if not locked:
                    logger.info("%s is loaded as it is: another process is preparing a model now", graph.path.name)
                    return None
                if not _is_complete(entry):  # else another process has just made it
                    _remove_leftovers(entry)
                    _prepare(graph, options, disabled, entry)
        with suppress(OSError):  # somebody else's entry, or a read-only folder
            os.utime(entry)  # the time of the last start, for _remove_leftovers
        return entry / _GRAPH
    except Exception as error:  # OSError; and onnxruntime's own classes, which share no base but this one
        logger.warning(
            "no prepared copy of %s in %s, so starting takes longer: %s (%s=%s: do without)",
            *(graph.path.name, cache, str(error).strip(), ENVIRONMENT, OFF),
        )
        return None


def engine_folder(graph: GraphFile, provider: str, choice: str | PathLike[str] | None) -> Path | None:
    """Where a provider may keep what it has compiled of this state of `graph`; None: nowhere. What it kept of other
    states is removed: providers would take it for this one's.  choice: see cache_folder"""
    cache = cache_folder(choice)
    if cache is None:
        return None
    try:
        folder = cache / _entry_name(graph, [provider])
        cache.mkdir(parents=True, exist_ok=True)
        with alone_in(cache) as locked:
            if locked and not folder.is_dir():
                _remove_leftovers(folder)
        folder.mkdir(exist_ok=True)
        with suppress(OSError):
            os.utime(folder)  # the time of the last start, for _remove_leftovers
        return folder
    except OSError as error:
        logger.warning("nothing compiled of %s is kept in %s: %s", graph.path.name, cache, error)
        return None


def discard(prepared: Path, error: Exception) -> None:
    """Remove the entry of `prepared`, which did not load because of `error`, if it is damaged.

    Whatever kept an intact entry from loading, too little memory for instance, may be over at the next start, and the
    entry took a while to make. onnxruntime's errors do not tell: "std::bad_alloc" is a RuntimeException like many."""
    entry = prepared.parent
    try:
        damaged = not _is_complete(entry, check_graph=True)
    except (OSError, MemoryError):  # too many open files, ...
        damaged = False
    logger.warning("%s %s: %s", entry, "is damaged and removed" if damaged else "could not be loaded", error)
    if damaged:
        shutil.rmtree(entry, ignore_errors=True)


def _entry_name(graph: GraphFile, disabled: list[str]) -> str:
    """place-runtime-contents: digests of where the graph is, of what prepares it, and of what it holds.

    Contents are told apart by size and times: reading them takes longer than a start may. The time of change (ctime)
    cannot be set back by whoever rewrites a file."""
    files = [(name, (graph.path.parent / name).stat()) for name in (graph.path.name, *sorted(graph.external_bytes))]
    parts = [
        str(graph.path.resolve()),
        [_FORMAT, ort.__version__, ort.get_build_info(), _processor(), disabled],
        [(name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in files],
    ]
    return "-".join(hashlib.sha256(json.dumps(part).encode()).hexdigest()[:16] for part in parts)


def _is_complete(entry: Path, check_graph: bool = False) -> bool:
    """Whether the files are as long as the manifest says and, if asked for, the graph has the manifest's digest. The
    weights have none: reading them takes too long. Raises OSError if the files are there and cannot be read."""
    try:
        manifest = json.loads((entry / _MANIFEST).read_bytes())
        as_long = all((entry / name).stat().st_size == size for name, size in manifest["bytes"].items())
        return as_long and (not check_graph or _digest(entry / _GRAPH) == manifest["graph"])
    except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _digest(graph: Path) -> str:
    return hashlib.sha256(graph.read_bytes()).hexdigest()  # about 1 MB: the weights are in another file


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Whether this process alone works in the folder until the end of the block; does not wait.

    The system's lock on a file ends with its process, also after kill -9. A folder or file whose existence is the lock
    would stay, and nobody could tell it from one in use. The lock file is never removed: processes that have it open
    would hold a lock on another file than those that come later."""
    with open(folder / _LOCK, "a") as file:
        locked = True
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # taken: the first on POSIX systems, the second on Windows
            locked = False
        except OSError:  # a file system without locks: two processes may both work there, and disturb each other
            pass
        yield locked


def _prepare(graph: GraphFile, options: ort.SessionOptions, disabled: list[str], entry: Path) -> None:
    cache = entry.parent
    needed = int((graph.path.stat().st_size + sum(graph.external_bytes.values())) * MAX_GROWTH)
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise OSError(f"{free / 1e9:.1f} GB are free there, {needed / 1e9:.1f} GB needed")
    logger.info("preparing %s for this machine, once; kept in %s", graph.path.name, cache)
    partial = cache / f"{_PARTIAL}{secrets.token_hex(8)}"  # tempfile's folders can be read by their owner only
    partial.mkdir()
    try:
        options.optimized_model_filepath = str(partial / _GRAPH)
        for name, value in {
            "session.optimized_model_external_initializers_file_name": f"{_GRAPH}.data",
            "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
            "session.save_external_prepacked_constant_initializers": "1",
        }.items():
            options.add_session_config_entry(name, value)
        ort.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
        sizes = {file.name: file.stat().st_size for file in partial.iterdir()}
        (partial / _MANIFEST).write_text(json.dumps({"bytes": sizes, "graph": _digest(partial / _GRAPH)}))
        for file in partial.iterdir():  # or a power cut may leave empty files in the renamed folder
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(entry: Path) -> None:
    """Makes room for `entry`, which is missing or incomplete. Removes entries of other states of the same graph, unused
    ones for other runtimes, and what killed processes were writing: a process at work would hold the lock."""
    place, runtime, _ = entry.name.split("-")
    for path in entry.parent.iterdir():
        with suppress(FileNotFoundError):  # removed by another process meanwhile
            unused = path.name.startswith(f"{place}-") and time.time() - path.stat().st_mtime > UNUSED_S
            if unused or path.name.startswith((f"{place}-{runtime}-", _PARTIAL)):
                shutil.rmtree(path, ignore_errors=True)


def _processor() -> str:
    """The instruction set and the processor model, as far as the system tells; processors with equal names can run
    each other's machine-specific files."""
    parts = [platform.system(), platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    fields = ("model name", "flags", "Features", "CPU implementer", "CPU part")  # x86, ARM
    return "\n".join(parts + sorted({line for line in lines if line.startswith(fields)}))
