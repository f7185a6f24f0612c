"""Data sets by their names on the hub: in a process of its own, and a hub on the loopback interface."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets_made import earnings22, fleurs_tsv, peoples_speech, tone, write_parquet
from hub_server import NAME, HubServer
from test_hub import environment

pytestmark = pytest.mark.reference
READ = """
import json, sys
from cohere_lite.evaluate.utterances import EvaluateError, open_data
try:
    data = open_data(sys.argv[1], count=json.loads(sys.argv[2]))
    rows = [[u.id, u.reference, u.language, u.audio().hex()] for u in data.utterances]
    print(json.dumps([data.name, data.total, rows]))
except EvaluateError as error:
    print(error, file=sys.stderr)
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    pytest.importorskip("huggingface_hub")
    pytest.importorskip("pyarrow")
    with HubServer({"README.md": b"no data"}, "datasets") as server:
        yield server


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(tmp_path: Path, hub: HubServer, spec: str, count: int | None = None, **more: str) -> tuple[list, str]:
    """What is found: name, number, and rows; and stderr. The process ends: streamed parquet files have kept others."""
    command = [sys.executable, "-c", READ, spec, json.dumps(count)]
    environ = environment(tmp_path, hub.url, **more)
    result = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout or "[]"), result.stderr


EARNINGS = [[f"4432298-{i}", f"Good morning, and welcome, {i}.", "en", tone(700 + i).hex()] for i in range(3)]


def test_parquet_files(hub: HubServer, tmp_path: Path) -> None:
    hub.files |= files(earnings22(tmp_path / "data"))
    assert read(tmp_path, hub, f"{NAME}:chunked:test") == ([f"{NAME}:chunked:test", 3, EARNINGS], "")


def test_no_more_is_fetched_than_is_read(hub: HubServer, tmp_path: Path) -> None:
    """12 MB of recordings in groups of 1 MB: the rows take twice 64 KiB a group (before and after the recordings),
    and a recording what is before it in its group, and 1 MiB that is read ahead."""
    rows = [{"id": f"{i}", "audio": {"bytes": os.urandom(100_000), "path": ""}, "text": "a"} for i in range(120)]
    hub.files["data/test.parquet"] = write_parquet(tmp_path / "data.parquet", rows, group=10).read_bytes()
    (_, total, [[name, *_, sound]]), _ = read(tmp_path, hub, NAME, count=1)
    assert (total, bytes.fromhex(sound)) == (120, rows[int(name)]["audio"]["bytes"])
    ranges = [[*map(int, str(asked).removeprefix("bytes=").split("-"))] for _, asked in hub.fetched]
    assert sum(last + 1 - first for first, last in ranges) < 26 * 65_536 + 2_200_000


def test_the_hub_s_own_parquet_files(hub: HubServer, tmp_path: Path) -> None:
    """Of a data set that comes as a script."""
    hub.files["data.py"] = b""
    hub.branches["refs/convert/parquet"] = ("2" * 40, files(peoples_speech(tmp_path / "data")))
    (_, total, [[_, text, *_]]), said = read(tmp_path, hub, NAME)
    assert (total, text, said) == (1, "i wanted this to share a few things", "")


def test_archives(hub: HubServer, tmp_path: Path) -> None:
    hub.files |= files(fleurs_tsv(tmp_path / "data"))
    (_, total, rows), said = read(tmp_path, hub, f"{NAME}:fr_fr")
    assert (total, said) == (2, "")
    assert [(language, sound) for _, _, language, sound in rows] == [("fr", tone(hz).hex()) for hz in (800, 810)]


FETCH = "from huggingface_hub import snapshot_download as d; d('{}', repo_type='dataset', allow_patterns='{}')"


def test_the_copy_in_the_cache(hub: HubServer, tmp_path: Path) -> None:
    """Where the hub does not answer; if it is complete."""
    hub.files |= files(earnings22(tmp_path / "data"))
    for pattern, whole in ("chunked/*-00000-of*", False), ("chunked/*", True):
        command = [sys.executable, "-c", FETCH.format(NAME, pattern)]
        subprocess.run(command, env=environment(tmp_path, hub.url), check=True, capture_output=True)
        found, said = read(tmp_path, hub, f"{NAME}:chunked", HF_HUB_OFFLINE="1")
        if whole:
            assert (found, said) == ([f"{NAME}:chunked", 3, EARNINGS], "")
        else:
            assert said == f"{NAME}:chunked is not complete: 1 of its 2 parquet files are there\n"


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((404, "RepoNotFound"), "there is no such folder here, and no such data set on the Hugging Face hub; and "),
        ((403, "GatedRepo"), f"it is gated: accept its terms at https://huggingface.co/datasets/{NAME}, then `hf auth"),
        ((503, ""), "the Hugging Face hub does not answer (HfHubHTTPError: "),
        (None, "the Hugging Face hub does not answer ("),
    ],
)
def test_a_hub_that_refuses(refusal: tuple[int, str] | None, message: str, hub: HubServer, tmp_path: Path) -> None:
    hub.listing_refused = refusal
    if refusal is None:
        hub.stop()
    _, said = read(tmp_path, hub, NAME)
    assert said.startswith(f"{NAME}: {message}")
    assert said.endswith(f"; and {tmp_path / 'hf' / 'hub'} has no copy of it\n")
    assert said.count("\n") == 1


def test_nothing_to_read(hub: HubServer, tmp_path: Path) -> None:
    _, said = read(tmp_path, hub, NAME)
    assert said.startswith(f"{NAME} holds neither parquet files nor a CSV, TSV or JSONL list of recordings")
