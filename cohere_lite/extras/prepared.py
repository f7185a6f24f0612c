"""A graph, optimised and with its weights packed for this machine's products, kept in the user's cache folder.

Making it takes longer than loading the model does; but a start that finds it maps the packed weights into memory
instead of packing them: it is faster, its memory is shared with other processes, and the system may drop and reread
it.

An entry belongs to one graph file, one onnxruntime and one kind of processor, and is found by a digest of all that. It
is written beside its place and then renamed, so another process sees all of it or nothing. Whatever goes wrong, the
model is loaded as it is; a message to the logger "cohere_lite" says why.
"""

import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import time
from contextlib import suppress
from os import PathLike
from pathlib import Path

from ..errors import logger
from ..graphfile import GraphFile
from ..session import ort

ENVIRONMENT = "COHERE_LITE_CACHE"  # a folder, or "off"
OFF = "off"
# Smaller models load in a fraction of a second anyway.
MIN_BYTES = 50_000_000
# Packed weights lie beside the unpacked ones in the file: 3.7 GB of a 1.9 GB encoder. And some room for others.
MAX_GROWTH = 2.2
UNUSED_S = 30 * 24 * 3600  # after which an entry for another onnxruntime or processor is taken for a leftover
UNFINISHED_S = 6 * 3600  # after which whoever was writing an entry is taken for dead
_FORMAT = "1"  # of an entry: change it when one written by older code must not be read
_GRAPH, _MANIFEST = "graph.onnx", "manifest.json"
_PARTIAL = ".partial-"


def cache_folder(choice: str | PathLike[str] | None = None) -> Path | None:
    """Where prepared graphs are kept; None: nowhere. `choice`: a folder or "off"; by default what the environment
    variable COHERE_LITE_CACHE says, else the system's place for caches."""
    choice = choice or os.environ.get(ENVIRONMENT)
    if choice is not None and str(choice).lower() == OFF:
        return None
    if choice:
        return Path(choice).expanduser()
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


def prepared_graph(graph: GraphFile, options: ort.SessionOptions, disabled: list[str], cache: Path) -> Path | None:
    """The prepared form of `graph`, made now if need be; None if there is none and none can be made.

    options: like those of the session to come, for this use only;  disabled: optimizers to leave out."""
    if graph.path.stat().st_size + sum(graph.external_bytes.values()) < MIN_BYTES:
        return None
    try:
        entry = cache / _entry_name(graph, disabled)
        if not _is_complete(entry):
            _prepare(graph, options, disabled, entry)
            _remove_leftovers(entry)
        with suppress(OSError):  # somebody else's entry, or a read-only folder
            os.utime(entry)  # used today: see _remove_leftovers
        return entry / _GRAPH
    except Exception as error:  # OSError; and onnxruntime's own classes, which share no base but this one
        logger.warning(
            "no prepared copy of %s in %s, so starting takes longer: %s (%s=%s: do without)",
            *(graph.path.name, cache, str(error).strip(), ENVIRONMENT, OFF),
        )
        return None


def discard(prepared: Path) -> None:
    """Remove an entry that does not load."""
    logger.warning("%s does not load and is removed", prepared.parent)
    shutil.rmtree(prepared.parent, ignore_errors=True)


def _entry_name(graph: GraphFile, disabled: list[str]) -> str:
    """place-runtime-contents: digests of where the graph is, of what prepares it, and of what it holds.

    Of the weights the sizes and times are taken, not the bytes: reading them all takes longer than a start may. The
    time of change (ctime) cannot be set back by whoever rewrites a file."""
    weights = [(name, (graph.path.parent / name).stat()) for name in sorted(graph.external_bytes)]
    parts = [
        str(graph.path.resolve()),
        [_FORMAT, ort.__version__, ort.get_build_info(), _processor(), disabled],
        [
            hashlib.sha256(graph.path.read_bytes()).hexdigest(),
            *((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in weights),
        ],
    ]
    return "-".join(hashlib.sha256(json.dumps(part).encode()).hexdigest()[:16] for part in parts)


def _is_complete(entry: Path) -> bool:
    try:
        sizes = json.loads((entry / _MANIFEST).read_bytes())
        return bool(sizes) and all((entry / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _prepare(graph: GraphFile, options: ort.SessionOptions, disabled: list[str], entry: Path) -> None:
    cache = entry.parent
    cache.mkdir(parents=True, exist_ok=True)
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
        files = list(partial.iterdir())
        (partial / _MANIFEST).write_text(json.dumps({file.name: file.stat().st_size for file in files}))
        for file in partial.iterdir():  # after a power cut a renamed folder must not hold empty files
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
        if entry.exists() and not _is_complete(entry):
            shutil.rmtree(entry, ignore_errors=True)
        try:
            partial.rename(entry)
        except OSError:
            if not _is_complete(entry):  # else another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(entry: Path) -> None:
    """Entries of an earlier state of the same graph, those for another runtime that nobody uses, unfinished ones."""
    place, runtime, _ = entry.name.split("-")
    for path in entry.parent.iterdir():
        age_s = time.time() - path.stat().st_mtime
        replaced = path != entry and path.name.startswith(f"{place}-{runtime}-")
        unused = path.name.startswith(f"{place}-") and age_s > UNUSED_S
        unfinished = path.name.startswith(_PARTIAL) and age_s > UNFINISHED_S
        if replaced or unused or unfinished:
            shutil.rmtree(path, ignore_errors=True)


def _processor() -> str:
    """Names the instruction set and the processor model, as far as the system tells; equal names can run each
    other's machine-specific files."""
    parts = [platform.system(), platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    telling = ("model name", "flags", "Features", "CPU implementer", "CPU part")  # x86, ARM
    return "\n".join(parts + sorted({line for line in lines if line.startswith(telling)}))
