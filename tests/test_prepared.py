"""Prepared copies of models: used if they belong to the model, made again if not; the model is loaded in any case."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from decoding import Decoder

from cohere_lite import OptionError, Transcriber
from cohere_lite.export.__main__ import export
from cohere_lite.extras import prepared
from cohere_lite.extras.prepared import cache_folder
from cohere_lite.graphfile import GraphFile
from cohere_lite.model import load_model
from tools.random_checkpoint import Shape, write_random_checkpoint

PROMPT = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]
MEL = np.random.default_rng(0).standard_normal((128, 200), np.float32)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    for seed in (0, 1):
        write_random_checkpoint(folder, Shape(2, 64, 4, 128, 16, 9, 128, 2, 128, 4, 96, 48, 300), seed)
        export(folder, folder / f"seed{seed}")
    return folder


@pytest.fixture
def model(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prepared, "MIN_BYTES", 0)  # this one is small
    return Path(shutil.copytree(exports / "seed0", tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def loaded_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that sessions are made of, as they are made."""
    paths: list[str] = []
    session = ort.InferenceSession

    def recording(path: str, *args: object, **kwargs: object) -> ort.InferenceSession:
        paths.append(path)
        return session(path, *args, **kwargs)

    monkeypatch.setattr(ort, "InferenceSession", recording)
    return paths


def tokens(folder: Path, cache: Path | str) -> tuple[int, ...]:
    return Decoder(load_model(folder, cache=cache)).decode([MEL], PROMPT)[0].tokens


def entries(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.name != ".lock"}


def test_same_tokens_from_the_prepared_copy(model: Path, cache: Path, loaded_paths: list[str]) -> None:
    expected = tokens(model, "off")
    assert len(expected) > 5
    assert tokens(model, cache) == expected  # made, and used
    made = entries(cache)
    assert len(made) == 2
    loaded_paths.clear()
    assert tokens(model, cache) == expected
    assert entries(cache) == made
    assert [Path(path).parent.parent for path in loaded_paths] == [cache, cache]  # neither original was loaded


@pytest.mark.parametrize("weights", ["beside", "inside"])
def test_a_changed_model_is_prepared_anew(exports: Path, model: Path, cache: Path, weights: str) -> None:
    """Other weights under the same name, of the same size, with the old time of modification put back."""
    other = Path(shutil.copytree(exports / "seed1", model.with_name("other")))
    if weights == "inside":
        for path in (*model.glob("*coder.*.onnx"), *other.glob("*coder.*.onnx")):
            loaded = onnx.load(path)
            path.with_name(f"{path.name}.data").unlink()
            onnx.save(loaded, path)
    changed = model.glob("*.data" if weights == "beside" else "*.onnx")
    old = tokens(model, cache)
    before = entries(cache)
    for path in changed:
        stat = path.stat()
        content = (other / path.name).read_bytes()
        assert len(content) == stat.st_size
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    expected = tokens(model, "off")
    assert expected != old
    assert tokens(model, cache) == expected
    assert len(entries(cache)) == 2  # the old ones are gone
    assert not entries(cache) & before


def test_a_graph_with_its_weights_inside_is_not_read_into_memory(tmp_path: Path, cache: Path, caplog) -> None:
    """64 MB, a hole in the file: onnxruntime reads them and refuses them. A name takes less than 1 MB."""
    path = tmp_path / "graph.onnx"
    path.touch()
    os.truncate(path, 64_000_000)
    tracemalloc.start()
    prepared.prepared_graph(GraphFile(path, (), (), {}), ort.SessionOptions(), [], cache)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "no prepared copy of graph.onnx" in caplog.text  # it came that far
    assert peak < 1_000_000


@pytest.mark.parametrize("what", ["onnxruntime", "processor"])
def test_another_runtime_or_processor_has_its_own(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    expected = tokens(model, cache)
    before = entries(cache)
    if what == "onnxruntime":
        monkeypatch.setattr(ort, "__version__", "0.0")
    else:
        monkeypatch.setattr(prepared, "_processor", lambda: "another")
    assert tokens(model, cache) == expected
    assert len(entries(cache)) == 4  # two installations may take turns
    # by formula: what nobody used for 31 days goes when something new comes
    for name in before:
        os.utime(cache / name, (time.time() - 31 * 24 * 3600,) * 2)
    monkeypatch.setattr(prepared, "_processor", lambda: "a third")
    tokens(model, cache)
    assert len(entries(cache)) == 4
    assert not entries(cache) & before


def test_the_processor_is_known_by_its_instruction_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    def processor(mhz: int, flags: str) -> str:
        """Of a machine with two cores, the second of which runs at `mhz`."""
        core = "processor : {}\nmodel name : Some CPU\ncpu MHz : {}\nflags : {}\n"
        info = core.format(0, 1200, flags) + core.format(1, mhz, flags)
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: info)
        return prepared._processor()

    assert processor(3400, "fpu avx2") == processor(1200, "fpu avx2")  # the clock changes from one second to the next
    assert processor(3400, "fpu avx2") != processor(3400, "fpu avx2 avx512_vnni")


@pytest.mark.parametrize("damage", ["shorter", "gone", "no manifest", "nonsense"])
def test_a_damaged_copy_is_made_again(model: Path, cache: Path, loaded_paths: list[str], damage: str) -> None:
    expected = tokens(model, cache)
    for entry in map(cache.joinpath, entries(cache)):
        data, graph, manifest = (entry / name for name in ("graph.onnx.data", "graph.onnx", "manifest.json"))
        if damage == "shorter":
            os.truncate(data, data.stat().st_size - 1)
        elif damage == "gone":
            data.unlink()
        elif damage == "no manifest":
            manifest.unlink()
        else:
            graph.write_bytes(bytes(graph.stat().st_size))
    assert tokens(model, cache) == expected
    assert tokens(model, cache) == expected
    loaded_paths.clear()
    assert tokens(model, cache) == expected
    assert [Path(path).parent.parent for path in loaded_paths] == [cache, cache]
    assert len(entries(cache)) == 2


def test_a_leftover_that_another_process_removes_meanwhile(model: Path, cache: Path, monkeypatch, caplog) -> None:
    """It is in the listing and gone when its turn comes."""
    tokens(model, cache)
    leftovers = [name.rsplit("-", 2)[0] + "-another-runtime" for name in entries(cache)]
    shutil.rmtree(cache)
    listing = Path.iterdir

    def earlier_listing(folder: Path) -> list[Path]:
        return [*map(cache.joinpath, leftovers if folder == cache else ()), *listing(folder)]

    monkeypatch.setattr(Path, "iterdir", earlier_listing)
    tokens(model, cache)
    monkeypatch.undo()
    assert len(entries(cache)) == 2
    assert caplog.text == ""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by what /proc says is in use")
def test_too_little_memory_to_load(tmp_path: Path, cache: Path, loaded_paths: list[str], monkeypatch) -> None:
    """A limit on the address space, in a process of its own: the 30 MB of weights do not fit. The copy is kept."""
    write_random_checkpoint(tmp_path, Shape(1, 512, 4, 2048, 16, 9, 128, 1, 512, 4, 2048, 48, 300), 0)
    export(tmp_path, tmp_path / "model")
    monkeypatch.setattr(prepared, "MIN_BYTES", 0)
    load_model(tmp_path / "model", cache=cache)
    made = entries(cache)
    code = f"""
import logging, resource
logging.basicConfig()
from cohere_lite.errors import ModelError
from cohere_lite.extras import prepared
prepared.MIN_BYTES = 0
from cohere_lite.model import load_model
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (in_use + 5_000_000, unlimited[1]))
try:
    load_model({str(tmp_path / "model")!r}, threads=1, cache={str(cache)!r})
except ModelError as error:
    resource.setrlimit(resource.RLIMIT_AS, unlimited)
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "bad_alloc" in found.stdout, found  # the model itself did not load either
    assert "could not be loaded: [ONNXRuntimeError]" in found.stderr
    assert entries(cache) == made
    loaded_paths.clear()
    load_model(tmp_path / "model", cache=cache)
    assert [Path(path).parent.parent for path in loaded_paths] == [cache, cache]


def test_a_copy_that_cannot_be_read_now_is_kept(model: Path, cache: Path, monkeypatch, caplog) -> None:
    """No more files can be opened, when it is looked for or after it did not load."""
    expected = tokens(model, cache)
    made = entries(cache)

    read_bytes = Path.read_bytes

    def too_many(path: Path) -> bytes:
        if cache in path.parents:
            raise OSError(errno.EMFILE, "Too many open files")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", too_many)
    assert tokens(model, cache) == expected
    assert "Too many open files" in caplog.text
    for name in made:
        prepared.discard(cache / name / "graph.onnx", RuntimeError("Too many open files"))
    assert entries(cache) == made


def test_files_are_on_the_disk_before_the_folder_gets_its_name(model: Path, cache: Path, monkeypatch) -> None:
    """After a power cut they could be empty otherwise, in a folder that looks complete."""
    synced: set[int] = set()
    renamed: list[set[int]] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def noted_rename(folder: Path, target: Path) -> Path:
        renamed.append({file.stat().st_ino for file in folder.iterdir()} - synced)
        return rename(folder, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    tokens(model, cache)
    assert renamed == [set(), set()]
    assert len(synced) == 6  # graph, weights and manifest, twice


def assert_works_without(model: Path, cache: Path, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    expected = tokens(model, "off")
    with caplog.at_level(logging.WARNING, "cohere_lite"):
        assert tokens(model, cache) == expected
    assert reason in caplog.text
    assert f"{prepared.ENVIRONMENT}=off" in caplog.text


def test_full_disk(model: Path, cache: Path, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert_works_without(model, cache, caplog, "are free there")
    assert entries(cache) == set()


def test_a_cache_prepared_by_somebody_else(
    model: Path, cache: Path, loaded_paths: list[str], monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """A service may read what root prepared, from a folder it cannot write to."""
    expected = tokens(model, cache)
    assert {oct(path.stat().st_mode & 0o444) for path in cache.rglob("*")} == {oct(0o444)}  # with the usual umask

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(Path, "mkdir", refused)
    loaded_paths.clear()
    assert tokens(model, cache) == expected
    assert [Path(path).parent.parent for path in loaded_paths] == [cache, cache]
    assert caplog.text == ""


def test_cache_that_cannot_be_written(model: Path, tmp_path: Path, caplog) -> None:
    """A file is where the folder should be: an error for root, too."""
    (tmp_path / "cache").write_text("not a folder")
    assert_works_without(model, tmp_path / "cache", caplog, "cache")


@pytest.mark.skipif(sys.platform == "win32", reason="sets a limit that Windows does not have")
def test_disk_that_fills_up_while_writing(model: Path, cache: Path) -> None:
    """A limit on the size of files, in a process of its own: writing fails half-way."""
    code = f"""
import logging, resource, sys
logging.basicConfig()
from cohere_lite.extras import prepared
prepared.MIN_BYTES = 0
from cohere_lite.model import load_model
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
load_model({str(model)!r}, cache={str(cache)!r})
print("loaded")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout == "loaded\n", found.stderr
    assert "no prepared copy" in found.stderr
    assert entries(cache) == set()


LOADING = f"""
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
sys.path.insert(0, {str(Path(__file__).parent)!r})
from cohere_lite.extras import prepared
from test_prepared import tokens
prepared.MIN_BYTES = 0
"""


def loading(model: Path, cache: Path, before: str = "") -> subprocess.Popen[str]:
    """A process that prints the tokens, and what the package logs."""
    code = f"{LOADING}{before}\nprint(tokens({str(model)!r}, {str(cache)!r}))"
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code], text=True, **streams)


def test_processes_that_start_at_once(model: Path, cache: Path) -> None:
    processes = [loading(model, cache) for _ in range(3)]
    results = [process.communicate() for process in processes]
    assert [result[0] for result in results] == [f"{tokens(model, 'off')}\n"] * 3, results
    assert len(entries(cache)) == 2


def test_one_process_prepares_and_others_do_not_wait(model: Path, cache: Path) -> None:
    """The first stops before its last step. Killed there, it leaves a folder, which does not keep the next start from
    preparing: that removes it."""
    expected = f"{tokens(model, 'off')}\n"
    first = loading(model, cache, "prepared.os.fsync = lambda _: (print('here', flush=True), sys.stdin.read())")
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "here\n"
        (partial,) = entries(cache)
        assert loading(model, cache).communicate(timeout=60) == (
            expected,
            "encoder.int8.onnx is loaded as it is: another process is preparing a model now\n"
            "decoder.int8.onnx is loaded as it is: another process is preparing a model now\n",
        )
        assert entries(cache) == {partial}
    finally:
        first.kill()
        first.communicate()
    assert loading(model, cache).communicate()[0] == expected
    assert len(entries(cache) - {partial}) == 2
    assert partial not in entries(cache)


def test_small_models_and_other_providers_are_not_prepared(model: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(prepared, "MIN_BYTES", 10**9)
    tokens(model, cache)
    assert not cache.exists()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the XDG Base Directory Specification, on Linux."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv(prepared.ENVIRONMENT, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cohere_lite"
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == Path("/home/someone/.cache/cohere_lite")
    monkeypatch.setenv(prepared.ENVIRONMENT, "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    assert cache_folder("/here") == Path("/here")
    assert cache_folder("off") is None
    monkeypatch.setenv(prepared.ENVIRONMENT, "off")
    assert cache_folder() is None
    assert cache_folder("/here") == Path("/here")


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prepared.ENVIRONMENT, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() is None


@pytest.mark.skipif(sys.platform == "win32", reason="there, ~name is a folder beside the user's own")
def test_the_home_of_nobody(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = " is ~nobody of this name/cache: there is no such home folder; write the whole path$"
    monkeypatch.setattr(prepared, "MIN_BYTES", 0)
    with pytest.raises(OptionError, match=f"^cache{said}"):
        Transcriber(exports / "seed0", cache="~nobody of this name/cache")
    monkeypatch.setenv(prepared.ENVIRONMENT, "~nobody of this name/cache")
    with pytest.raises(OptionError, match=f"^{prepared.ENVIRONMENT}{said}"):
        Transcriber(exports / "seed0")


def test_transcriber_takes_the_folder(model: Path, cache: Path) -> None:
    Transcriber(model, cache=cache)
    assert len(entries(cache)) == 2
