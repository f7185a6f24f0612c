"""Prepared copies of models: used when they fit, made anew when they do not, and never in the way."""

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from cohere_lite import Transcriber, prepare
from cohere_lite.decode import Decoder
from cohere_lite.export.__main__ import export
from cohere_lite.extras.prepared import cache_folder
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
    monkeypatch.setattr(prepare, "MIN_BYTES", 0)  # this one is small
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
    return {path.name for path in cache.iterdir()}


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


def test_a_changed_model_is_prepared_anew(exports: Path, model: Path, cache: Path) -> None:
    """Other weights under the same name, of the same size, with the old time of change put back."""
    old = tokens(model, cache)
    before = entries(cache)
    for name in ("decoder.int8.onnx.data", "encoder.int8.onnx.data"):
        stat = (model / name).stat()
        other = (exports / "seed1" / name).read_bytes()
        assert len(other) == stat.st_size
        (model / name).write_bytes(other)
        os.utime(model / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    expected = tokens(model, "off")
    assert expected != old
    assert tokens(model, cache) == expected
    assert len(entries(cache)) == 2  # the old ones are gone
    assert not entries(cache) & before


@pytest.mark.parametrize("what", ["onnxruntime", "processor"])
def test_another_runtime_or_processor_has_its_own(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    expected = tokens(model, cache)
    before = entries(cache)
    if what == "onnxruntime":
        monkeypatch.setattr(ort, "__version__", "0.0")
    else:
        monkeypatch.setattr(prepare, "processor", lambda: "another")
    assert tokens(model, cache) == expected
    assert len(entries(cache)) == 4  # two installations may take turns
    # by formula: what nobody used for 31 days goes when something new comes
    for name in before:
        os.utime(cache / name, (time.time() - 31 * 24 * 3600,) * 2)
    monkeypatch.setattr(prepare, "processor", lambda: "a third")
    tokens(model, cache)
    assert len(entries(cache)) == 4
    assert not entries(cache) & before


@pytest.mark.parametrize("damage", ["shorter", "gone", "no manifest", "nonsense"])
def test_a_damaged_copy_is_not_used(model: Path, cache: Path, damage: str) -> None:
    expected = tokens(model, cache)
    for entry in cache.iterdir():
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
    assert len(entries(cache)) == 2


def test_what_a_killed_process_left_is_removed(model: Path, cache: Path) -> None:
    old, young = cache / f"{prepare._PARTIAL}old", cache / f"{prepare._PARTIAL}young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 7 * 3600,) * 2)
    tokens(model, cache)
    assert not old.exists()
    assert young.exists()  # its process may still be at work


def assert_works_without(model: Path, cache: Path, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    expected = tokens(model, "off")
    with caplog.at_level(logging.WARNING, "cohere_lite"):
        assert tokens(model, cache) == expected
    assert reason in caplog.text
    assert f"{prepare.ENVIRONMENT}=off" in caplog.text


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
import cohere_lite.extras.prepared as prepare
prepare.MIN_BYTES = 0
from cohere_lite.model import load_model
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
load_model({str(model)!r}, cache={str(cache)!r})
print("loaded")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout == "loaded\n", found.stderr
    assert "no prepared copy" in found.stderr
    assert entries(cache) == set()


def test_processes_that_start_at_once(model: Path, cache: Path) -> None:
    code = f"""
import cohere_lite.extras.prepared as prepare
prepare.MIN_BYTES = 0
import sys; sys.path.insert(0, "tests")
from test_prepare import tokens
print(tokens({str(model)!r}, {str(cache)!r}))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [process.communicate() for process in processes]
    assert [result[0] for result in results] == [f"{tokens(model, 'off')}\n"] * 3, results
    assert len(entries(cache)) == 2


def test_small_models_and_other_providers_are_not_prepared(model: Path, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(prepare, "MIN_BYTES", 10**9)
    tokens(model, cache)
    assert not cache.exists()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the XDG Base Directory Specification, on Linux."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv(prepare.ENVIRONMENT, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cohere_lite"
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == Path("/home/someone/.cache/cohere_lite")
    monkeypatch.setenv(prepare.ENVIRONMENT, "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    assert cache_folder("/here") == Path("/here")
    assert cache_folder("off") is None
    monkeypatch.setenv(prepare.ENVIRONMENT, "off")
    assert cache_folder() is None
    assert cache_folder("/here") == Path("/here")


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prepare.ENVIRONMENT, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() is None


def test_transcriber_takes_the_folder(model: Path, cache: Path) -> None:
    Transcriber(model, cache=cache)
    assert len(entries(cache)) == 2
