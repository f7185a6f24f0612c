"""Many recordings on a cluster: each comes out once, whatever fails, dies or is interrupted."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import until
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite import OptionError, Transcriber
from cohere_lite.batch.__main__ import main
from cohere_lite.batch.inputs import Item, find_items, in_groups
from cohere_lite.batch.journal import Journal
from cohere_lite.model import DEMO_FOLDER

pytestmark = pytest.mark.folder
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or sys.platform == "win32", reason="needs ray: pip install 'cohere-lite[ray]'"
)
needs_pyarrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow, which comes with ray")
on_a_cluster = [needs_ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own code

SETTINGS = {"model": None, "language": "en"}


# ---- what is named


def write_parquet(place: Path, **columns: list) -> Path:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), place)
    return place


def found(*names: Path | str) -> tuple[list[str], int]:
    """The names of the files, and how many came again."""
    items, n_again = find_items([*map(str, names)])
    return [os.path.basename(item.path) for item in items], n_again


def test_folders_lists_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.wav", "a.MP3", "in/c.flac", "in/notes.txt", "in/deep/g.ogg", ".hidden/d.wav", "e.wav.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(7))
    (tmp_path / "list.txt").write_text("\ufeffin/c.flac\n \n gone.wav\n", encoding="utf-8")
    assert found(tmp_path) == (["a.MP3", "b.wav", "c.flac", "g.ogg"], 0)
    assert found(tmp_path / "list.txt") == (["c.flac", " gone.wav"], 0)
    assert found(tmp_path / "**/*.ogg", tmp_path / "b.wav") == (["g.ogg", "b.wav"], 0)
    assert found(tmp_path / "*.txt", tmp_path / "in") == (["c.flac", " gone.wav", "g.ogg"], 1)
    assert found(tmp_path / "in/*") == (["c.flac", "g.ogg"], 0)  # notes.txt is no list
    monkeypatch.chdir(tmp_path)
    assert find_items(["b.wav", "list.txt"])[0] == [  # by hand
        Item(path, path, None, size)
        for path, size in ((f"{tmp_path}/b.wav", 7), (f"{tmp_path}/in/c.flac", 7), (f"{tmp_path}/ gone.wav", 0))
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there, links are for administrators")
def test_links(tmp_path: Path) -> None:
    """By hand: to a folder beside, to one above, and to nothing."""
    for name in ("talks/in/a.wav", "other/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "talks/in/back").symlink_to("..")
    (tmp_path / "talks/other").symlink_to("../other")
    (tmp_path / "talks/broken.wav").symlink_to("gone.wav")
    assert found(tmp_path / "talks") == (["broken.wav", "a.wav", "b.wav"], 0)
    assert found(tmp_path / "talks/b*") == (["broken.wav"], 0)
    assert found(tmp_path / "talks/broken.wav") == (["broken.wav"], 0)


@needs_pyarrow
def test_tables(tmp_path: Path) -> None:
    table = write_parquet(
        tmp_path / "t.parquet",
        audio=["x/a.wav", "b.wav", "x/a.wav", "/c.wav"],
        id=[7, 8, 7, None],
        language=["German", None, "de", "fr-CA"],
    )
    items, n_again = find_items([str(table)])
    assert n_again == 1
    assert items == [  # by hand
        Item("7", f"{tmp_path}/x/a.wav", "de"),
        Item("8", f"{tmp_path}/b.wav"),
        Item("/c.wav", "/c.wav", "fr"),
    ]
    assert find_items([str(tmp_path / "*.parquet")]) == (items, 1)


@needs_pyarrow
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"audio": [b"RIFF"], "id": ["a"]}, r"needs a column of paths: path, file or audio; it has audio \(binary\), "),
        ({"audio": [{"bytes": b"RIFF", "path": "a.wav"}]}, r"it has audio \(struct<bytes: binary, path: string>\)"),
        ({"file": [["a.wav"]]}, r"it has file \(list<element: string>\)"),
        ({"path": ["a.wav", None]}, r"t\.parquet has a row without a path"),
        (
            {"path": ["a.wav", "b.wav"], "id": ["1", "1"]},
            r"the id '1' is that of two recordings: .*a\.wav and .*b\.wav",
        ),
        (
            {"path": ["a.wav", "a.wav"], "language": ["de", "en"]},
            r"a\.wav' is named in two languages, de and en: give each an id in a table",
        ),
        (
            {"path": ["a.wav", "a.wav"], "id": ["1", "1"], "language": [None, "en"]},
            r"'1' is named in two languages, that of --language and en",
        ),
    ],
)
def test_tables_that_cannot_be_used(columns: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        find_items([str(write_parquet(tmp_path / "t.parquet", **columns))])


def test_names_that_stand_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no such file or folder, and nothing matches it"):
        find_items([str(tmp_path / "*.wav")])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "list.txt").write_text("\n")
    for name in ("empty", "empty/list.txt", "emp*"):
        with pytest.raises(OptionError, match=re.escape(f"{name} holds no recordings; in folders, those are .wav ")):
            find_items([str(SAMPLE), str(tmp_path / name)])
    (tmp_path / "empty too.wav").touch()
    assert found(SAMPLE, tmp_path / "emp*", SAMPLE) == (["sample.wav", "empty too.wav"], 1)


def test_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.wav").touch()
    real = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry]:
        if path == str(tmp_path / "in"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # by mode bits it could not be kept from root
    with pytest.raises(PermissionError, match="in'"):
        find_items([str(tmp_path)])


@needs_pyarrow
def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(OptionError, match=r"t\.parquet cannot be read: "):
        find_items([str(tmp_path / "t.parquet")])


def sizes(groups: list[list[Item]]) -> list[list[int]]:
    return [[item.n_bytes for item in group] for group in groups]


def items_of(sizes: list[int]) -> list[Item]:
    return [Item(f"{i}", "", None, size) for i, size in enumerate(sizes)]


def test_groups() -> None:
    """By hand: 160 bytes for 1 worker are groups of 10; the long ones are alone; shortest and longest in turns."""
    assert sizes(in_groups(items_of([1, 100, 5, 4, 36, 3, 2, 9]), 1)) == [[3, 2, 1], [100], [5, 4], [36], [9]]
    assert sizes(in_groups(items_of([0, 0, 0]), 2)) == [[0, 0, 0]]  # of files that are not there
    assert in_groups([], 2) == []


def test_groups_are_neither_large_nor_too_many() -> None:
    hour = 115_200_000  # bytes at 16 kHz
    assert {len(group) for group in in_groups(items_of([hour // 60] * 1600), 2)} == {16}  # 30.7 of at most 32 MB
    n = len(in_groups(items_of([hour] * 250_000), 2))
    assert n == 125_000 or n <= 100_000, n


# ---- what comes out


def line(id: str, error: str | None = None, **more: object) -> bytes:
    found = {"id": id, "error": error, "file": f"/{id}", "timing": {"seconds": 0.5}, "model": {"name": "m"}} | more
    return (json.dumps(found) + "\n").encode()


def test_a_journal_is_gone_on_with(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SETTINGS, ())
    assert [journal.add(line(id, error), id) for id, error in (("a", None), ("b", "broken"), ("a", None))] == [
        True,
        True,
        False,
    ]
    journal.close()
    assert journal.path.read_bytes() == line("a") + line("b", "broken")
    with open(journal.path, "ab") as file:
        file.write(line("c")[:-9])  # as the end of a process leaves it
    journal = Journal(tmp_path, SETTINGS, {"a", "c"})
    journal.close()
    assert journal.done == {"a", "b"}  # b failed, and is not asked for: its line stays
    assert journal.path.read_bytes() == line("a") + line("b", "broken")
    journal = Journal(tmp_path, SETTINGS, {"a", "b"})
    assert journal.done == {"a"}
    assert journal.add(line("b"), "b")
    journal.close()
    assert journal.path.read_bytes() == line("a") + line("b")


def test_what_failed_stays_until_it_was_tried_again(tmp_path: Path) -> None:
    """By hand; a run that ends before its first line, one that is killed after its second, and the next one."""
    failed = [line(id, "broken at 2:59:00", text="three hours") for id in ("a", "b", "c")]
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    lines = tmp_path / "transcripts.jsonl"
    lines.write_bytes(b"".join(failed) + line("d"))
    Journal(tmp_path, SETTINGS, {"a", "b", "c"}).close()
    assert lines.read_bytes() == b"".join(failed) + line("d")
    killed = Journal(tmp_path, SETTINGS, {"a", "b", "c"})
    assert killed.done == {"d"}
    killed.add(line("b"), "b")
    killed.add(line("a", "broken"), "a")
    killed._file.close()
    assert lines.read_bytes() == b"".join(failed) + line("d") + line("b") + line("a", "broken")
    journal = Journal(tmp_path, SETTINGS, {"a", "b", "c"})
    assert journal.done == {"b", "d"}
    assert lines.read_bytes() == failed[2] + line("d") + line("b") + line("a", "broken")
    journal.add(line("c"), "c")
    journal.close()
    assert lines.read_bytes() == line("d") + line("b") + line("a", "broken") + line("c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.json", "transcripts.jsonl"]


def test_where_everything_failed_other_settings_may_be_tried(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SETTINGS | {"language": "xx"}, ())
    journal.add(line("a", "no such language"), "a")
    journal.close()
    journal = Journal(tmp_path, SETTINGS, {"a"})
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS
    assert journal.path.read_bytes() == line("a", "no such language")
    journal.add(line("a"), "a")
    journal.close()
    assert journal.path.read_bytes() == line("a")
    with pytest.raises(OptionError, match="holds transcripts with another language: use another"):
        Journal(tmp_path, SETTINGS | {"language": "xx"}, {"a"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("settings.json", "[]", "settings.json is none of a batch"),
        ("settings.json", '{"tabs": 4}', "settings.json is none of a batch"),
        ("settings.json", "no", "settings.json is none of a batch"),
        ("transcripts.jsonl", "{}\n", "transcripts.jsonl exists, and .*settings.json does not: use another --out"),
    ],
)
def test_a_folder_of_something_else(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(OptionError, match=message):
        Journal(tmp_path, SETTINGS, ())
    assert (tmp_path / name).read_text() == content


def test_other_settings_need_another_folder_once_there_are_lines(tmp_path: Path) -> None:
    (tmp_path / "settings.json").touch()  # as a full disk leaves it
    Journal(tmp_path, SETTINGS, ()).close()
    german = SETTINGS | {"language": "de"}
    journal = Journal(tmp_path, german, ())
    journal.add(line("a"), "a")
    journal.close()
    with pytest.raises(OptionError, match="holds transcripts with another language: use another"):
        Journal(tmp_path, SETTINGS, ())
    assert json.loads((tmp_path / "settings.json").read_text()) == german


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the length of files, in place of a full disk")
def test_a_full_disk(tmp_path: Path) -> None:
    import resource

    journal = Journal(tmp_path, SETTINGS, ())
    journal.add(line("a"), "a")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 9, before[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f": '{journal.path}'")):
            journal.add(line("b"), "b")
        with pytest.raises(OSError, match=re.escape(f": '{journal.path}'")):
            journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.path.read_bytes() == line("a") + line("b")[:9]
    journal = Journal(tmp_path, SETTINGS, ())
    journal.close()
    assert (journal.done, journal.path.read_bytes()) == ({"a"}, line("a"))


def test_lines_of_something_else(tmp_path: Path) -> None:
    Journal(tmp_path, SETTINGS, ()).close()
    (tmp_path / "transcripts.jsonl").write_bytes(line("a") + b'{"id": 1}\n')
    with pytest.raises(OptionError, match=r"transcripts.jsonl, line 2, is none of a batch"):
        Journal(tmp_path, SETTINGS, ())


@needs_pyarrow
def test_a_journal_as_a_table(tmp_path: Path) -> None:
    """Of more lines than are in one row group, and of names that are not UTF-8."""
    from pyarrow.parquet import read_table

    journal = Journal(tmp_path, SETTINGS, ())
    segment = {"start": 0.0, "end": 1.5, "text": "Oui.", "tokens": [3, 4], "avg_logprob": -0.5, "channel": None}
    segment |= {"silent": False, "truncated": False, "looped": False, "language": "fr", "language_probability": 0.5}
    for i in range(1001):
        journal.add(line(f"{i}\udcff", segments=[segment], text="Oui.", warnings=["w"], duration=1.5), f"{i}")
    journal.close()
    rows = read_table(journal.write_table()).to_pylist()
    assert [row["id"] for row in rows] == [f"{i}\\udcff" for i in range(1001)]
    assert rows[1000] == {  # by hand
        "id": "1000\\udcff",
        "file": "/1000\\udcff",
        "language": None,
        "language_probability": None,
        "text": "Oui.",
        "error": None,
        "model": '{"name": "m"}',
        "complete": None,
        "truncated": None,
        "duration": 1.5,
        "seconds": 0.5,
        "warnings": ["w"],
        "segments": [segment],
    }


# ---- the command


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_help_needs_nothing_but_the_standard_library() -> None:
    code = "import sys; sys.argv[1:] = ['--help']; sys.modules.update(numpy=None, ray=None, onnxruntime=None); "
    code += "import runpy; runpy.run_module('cohere_lite.batch', run_name='__main__')"
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "--tries" in done.stdout


def test_without_ray_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['ray'] = None; sys.modules['ray.exceptions'] = None\n"
    code += "from cohere_lite.batch.__main__ import main; sys.exit(main(['a.wav', '--out', 'never']))"
    done = run_python(code)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install 'cohere-lite[ray]'" in done.stderr


@pytest.mark.parametrize(
    ("signal_name", "exit_code"),
    [("SIGINT", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.skipif(os.name != "posix", reason="of POSIX"))],
)
@pytest.mark.usefixtures("sigint")
def test_signals_while_ray_is_imported(signal_name: str, exit_code: int) -> None:
    code = f"import signal, sys, types\ndef interrupt(name): signal.raise_signal(signal.{signal_name})\n"
    code += "sys.modules['ray'] = types.ModuleType('ray'); sys.modules['ray'].__getattr__ = interrupt\n"
    code += "from cohere_lite.batch.__main__ import main; sys.exit(main(['a.wav', '--out', 'never']))"
    done = run_python(code)
    assert (done.returncode, done.stderr) == (exit_code, "interrupted; the same command goes on from here\n")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "head", ":6379", "head:port"])
def test_what_is_no_address(address: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["a.wav", "--out", "never", "--address", address])
    assert f"{address!r} is neither HOST:PORT nor auto" in capsys.readouterr().err


@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (
            "RuntimeError",
            "Version mismatch: Cluster:\n    Ray: 1\n",
            "Version mismatch: Cluster: Ray: 1",
        ),
        (
            "RayError",
            "The actor died\n  File, line 7\nModuleNotFoundError: a\n",
            "ModuleNotFoundError: a",
        ),
        ("RayError", "", "RayError"),
    ],
)
def test_what_ray_says_is_one_line(
    kind: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def init(**_: object) -> None:
        raise getattr(ray.exceptions, kind, RuntimeError)(text)

    monkeypatch.setattr(ray, "init", init)
    assert main([str(SAMPLE), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def batch_command(*arguments: Path | str) -> list[str]:
    return [sys.executable, "-m", "cohere_lite.batch", *map(str, arguments)]


@needs_ray
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-l", "ja"], "error: the language ja is asked for; this model knows de, en, es, fr"),
        (["-l", "en,auto"], "error: language is 'en,auto'; it must be a code, \"auto\" alone or several, as "),
        (["-l", "en,"], "error: language is 'en,'; it must be a code"),
        (["--address", "127.0.0.1:1"], "error: --address 127.0.0.1:1: no cluster is there"),
        (["--threads", "9999", "--actors", "1"], "error: --threads 9999 is more than the "),
        (["gone.wav"], "error: gone.wav: there is no such file or folder"),
    ],
)
def test_what_is_said_before_the_work(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = batch_command("--out", tmp_path / "out", SAMPLE, *arguments)
    done = subprocess.run(command, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "logging.cc" not in line]  # how Ray's C++ code begins
    assert (done.returncode, len(said)) == (2, 1), done.stderr
    assert said[0].startswith(message)


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_two_processes_load_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cohere_lite.batch.worker import _one_at_a_time

    monkeypatch.setenv("COHERE_LITE_CACHE", str(tmp_path / "cache"))
    second_is_in = threading.Event()

    def second() -> None:
        with _one_at_a_time():
            second_is_in.set()

    thread = threading.Thread(target=second)
    with _one_at_a_time():
        thread.start()
        assert not second_is_in.wait(1)
    thread.join()
    assert second_is_in.is_set()
    monkeypatch.setenv("COHERE_LITE_CACHE", "off")
    with _one_at_a_time(), _one_at_a_time():
        pass


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_a_model_is_loaded_alone_and_given_up_if_it_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cohere_lite.batch import worker
    from cohere_lite.extras.prepared import alone_in

    def load(*_: object, **options: object) -> dict:
        with alone_in(tmp_path / "loading") as is_alone:
            assert not is_alone
        return options

    class Remote:  # as Ray's handle of Attempts
        def __init__(self, n: int) -> None:
            self.begin = self.end = self
            self.n = n

        def remote(self, name: str) -> int:
            assert name == "folder in 7"
            return self.n

    class Context:
        def get_actor_id(self) -> str:
            return "7"

    monkeypatch.setattr(worker.ray, "get", lambda value: value)
    monkeypatch.setattr(worker.ray, "get_runtime_context", Context)
    monkeypatch.setattr(worker, "Transcriber", load)
    monkeypatch.setenv("COHERE_LITE_CACHE", str(tmp_path))
    settings = {"model": "folder", "precision": "q4"}
    made = worker.Recogniser(Remote(3), 3, 5, settings)
    assert made._transcriber == {"precision": "q4", "threads": 5, "spin": False}  # type: ignore[comparison-overlap]
    given_up = worker.Recogniser(Remote(4), 3, 5, settings)
    message = "folder: loading it killed its process 3 times, as where memory runs out"
    assert given_up(worker.pa.table({"item": ["[]"]})).to_pylist() == [{"failure": message}]


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_a_recording_that_was_cut_short_is_not_done(tmp_path: Path) -> None:
    """By formula: 44 bytes of header, 2 of each sample."""
    from cohere_lite.batch.worker import Recogniser

    (tmp_path / "a.wav").write_bytes(SAMPLE.read_bytes()[:60_044])
    recogniser = object.__new__(Recogniser)  # without Ray
    recogniser._settings, recogniser._transcriber = {"language": "en", "punctuation": True}, Transcriber(threads=1)
    line = recogniser._recognise(Item("a", str(tmp_path / "a.wav")))
    assert "promises 79360 bytes (2.48 s), the file holds 60000 (1.88 s)" in line["error"]
    assert (line["warnings"], line["complete"], line["duration"]) == ([line["error"]], False, 60_000 / 2 / 16_000)
    assert line["text"].startswith("Turn on the light")
    assert recogniser._recognise(Item("b", str(SAMPLE)))["error"] is None


@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shown", [False, True])
def test_progress(shown: bool, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from cohere_lite.batch import run

    for name, value in {"_TOLD_S": 0, "_SHOWN_S": 0, "is_terminal": lambda _: shown}.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run, "_terminal_columns", lambda: 31)
    monkeypatch.setattr(run, "spent_since", lambda _: 10.0)
    summary = run.Summary(4, 0, before=1)
    with run._progress(summary, total=100) as tell:
        summary.count({"error": None, "duration": 65.0, "timing": {"seconds": 5.0}})
        tell(25)
    whole = "1 of 4 recordings, 1 before, 1:05 of audio, 6.5x real time, 0:30 left"  # by hand
    erased = f"\r{' ' * 30}\r"
    assert capsys.readouterr().err == (f"\r{whole[:30]}\r{erased}" if shown else f"{whole}\n")


# ---- on real clusters. In place of ffmpeg is a program that does what a recording's name asks for, then ffmpeg's work

FFMPEG = """#!/bin/sh
echo "$RAY_RAYLET_PID" "$*" >> {folder}/begun
case "$*" in
  *deadly*) kill -9 $PPID;;
  *gate*) until [ -e {folder}/open ]; do sleep 0.05; done;;
  *slow*) sleep 0.3;;
esac
exec {ffmpeg} "$@"
"""


def sample_as_au(path: Path) -> Path:
    """The sample in a container that needs ffmpeg."""
    with wave.open(str(SAMPLE)) as wav:
        assert (wav.getsampwidth(), wav.getnchannels()) == (2, 1)
        samples, rate = wav.readframes(wav.getnframes()), wav.getframerate()
    header = struct.pack(">4s5I", b".snd", 24, len(samples), 3, rate, 1)  # 3: 16-bit PCM
    path.write_bytes(header + b"".join(samples[i : i + 2][::-1] for i in range(0, len(samples), 2)))
    return path


def wait(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Until it is so, or the process ends. Ray takes its time to start on a busy machine."""
    end = time.monotonic() + 300
    while not condition() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


class Place:
    """folder: for recordings;  out: what a batch writes;  begun: what ffmpeg was asked for, a line each"""

    def __init__(self, root: Path) -> None:
        from cohere_lite.extras.ffmpeg import find_ffmpeg

        self.folder, self.out, self.root = root / "recordings", root / "out", root
        self.folder.mkdir()
        program = root / "bin" / "ffmpeg"
        program.parent.mkdir()
        ffmpeg = find_ffmpeg()
        assert ffmpeg
        program.write_text(FFMPEG.format(folder=root, ffmpeg=ffmpeg))
        program.chmod(0o755)
        self.token = uuid.uuid4().hex
        self.environment = os.environ | {
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "COHERE_LITE_CACHE": str(root / "cache"),
            "COHERE_LITE_TEST": self.token,
            "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "1",  # which must not end the work
        }

    def start(self, *arguments: Path | str) -> subprocess.Popen[str]:
        command = batch_command(*arguments, "--out", self.out, "--threads", "1")
        return subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: Path | str) -> tuple[int, str]:
        process = self.start(*arguments)
        _, stderr = process.communicate(timeout=300)
        return process.returncode, stderr

    def begun(self) -> list[str]:
        path = self.root / "begun"
        return path.read_text().splitlines() if path.exists() else []

    def lines(self) -> list[dict]:
        path = self.out / "transcripts.jsonl"
        return [json.loads(text) for text in path.read_bytes().splitlines(keepends=True)] if path.exists() else []

    def n_lines(self) -> int:
        path = self.out / "transcripts.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def processes(self) -> list[str]:
        """That were started with this place's environment and still run."""
        names = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.token.encode() in (process / "environ").read_bytes():
                    names.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:  # ended, or somebody else's
                pass
        return names


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if sys.platform != "linux":
        pytest.skip("looks into /proc for processes that are left behind")
    place = Place(tmp_path)
    yield place
    until(lambda: place.processes() == [])


@needs_ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
@pytest.mark.parametrize(("mode", "said"), [(None, "; if it wants a token, set RAY_AUTH_MODE=token"), ("token", "")])
def test_a_cluster_that_wants_a_token(mode: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own error does not say what to do."""
    import ray

    from cohere_lite.batch.run import _cluster

    def refuse(**options: object) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConnectionError) as caught, _cluster(address):
            raise AssertionError("it was opened")
    assert str(caught.value) == f"Failed to connect{said}"


class TestClusters:
    pytestmark = on_a_cluster

    def test_each_comes_out_once_whatever_fails(self, place: Place) -> None:
        """Named twice, damaged, gone, in languages of their own, and one that kills its process; then again."""
        from pyarrow.parquet import read_table

        for i in range(4):
            (place.folder / f"{i}.wav").write_bytes(SAMPLE.read_bytes())
        sample_as_au(place.folder / "deadly.au")
        (place.folder / "damaged.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
        names = [f"{i}.wav" for i in range(4)] + ["0.wav", "deadly.au", "damaged.wav", "gone.wav"]
        languages = ["en", "de", "en", "en", "en", "en", "en", "en"]
        ids = ["a", "b", "c", "d", "a", "deadly", "damaged", "gone"]
        table = write_parquet(place.folder / "t.parquet", path=names, id=ids, language=languages)
        command = (table, place.folder / "1.wav", "--actors", "2", "--format", "parquet")
        code, said = place.run(*command)
        assert code == 1, said
        by_id = {line["id"]: line for line in place.lines()}
        one = str(place.folder / "1.wav")
        assert sorted(by_id) == sorted({*ids, one})
        assert place.n_lines() == len(by_id)
        assert {by_id[id]["text"] for id in ("a", "c", "d", one)} == {SAMPLE_TEXT}
        assert {id: line["language"] for id, line in by_id.items()}["b"] == "de"
        errors = {id: line["error"] for id, line in by_id.items() if line["error"]}
        assert errors["deadly"] == "its process died in each of 3 attempts, as where memory runs out"
        assert "damaged.wav" in errors["damaged"]
        assert "gone.wav" in errors["gone"]
        assert len(errors) == 3
        assert len(place.begun()) == 3  # attempts
        summary = json.loads((place.out / "summary.json").read_text())
        counts = {name: summary[name] for name in ("recordings", "named_again", "before", "done", "failed")}
        assert counts == {"recordings": 8, "named_again": 1, "before": 0, "done": 5, "failed": 3}
        assert summary["audio_s"] == pytest.approx(5 * 2.48)
        assert "\n8 of 8 recordings (3 failed), 1 named again, 0:12 of audio, " in said
        rows = read_table(place.out / "transcripts.parquet").to_pylist()
        assert {row["id"]: (row["text"], row["error"]) for row in rows} == {
            id: (line["text"], line["error"]) for id, line in by_id.items()
        }

        sample_as_au(place.folder / "gone.wav")  # mended
        place.folder.joinpath("damaged.wav").write_bytes(SAMPLE.read_bytes())
        stays = {id: by_id[id] for id in by_id if id not in errors}
        code, said = place.run(*command, "--tries", "1")
        assert code == 1, said
        assert "\n3 of 8 recordings (1 failed), 5 before, 1 named again, " in said
        again = {line["id"]: line for line in place.lines()}
        assert (len(again), place.n_lines()) == (8, 8)
        assert {id: again[id] for id in stays} == stays  # not done again
        assert [again[id]["text"] for id in ("damaged", "gone", "deadly")] == [SAMPLE_TEXT, SAMPLE_TEXT, ""]
        assert len(place.begun()) == 3 + 2
        (place.folder / "t.parquet").unlink()
        write_parquet(table, path=names[:5], id=ids[:5], language=languages[:5])
        code, said = place.run(*command)
        assert (code, said) == (0, "0 of 5 recordings, 5 before, 1 named again, 0:00 of audio, 0.0x real time\n")

    def test_a_model_that_cannot_be_loaded(self, place: Place) -> None:
        """Its graph has an operator that onnxruntime does not know; the files are all there."""
        model = place.root / "model"
        shutil.copytree(DEMO_FOLDER, model)
        graph = (model / "encoder.int8.onnx").read_bytes()
        changed = graph.replace(b"DynamicQuantizeMatMul", b"DynamicQuantizeMatMux")
        assert changed != graph
        (model / "encoder.int8.onnx").write_bytes(changed)
        code, said = place.run(SAMPLE, "--model", model)
        assert code == 1
        last = said.splitlines()[-1]
        assert last.startswith("error: onnxruntime "), said
        assert f"cannot load {model / 'encoder.int8.onnx'}" in last
        assert "Traceback" not in said
        assert place.lines() == []

    def test_a_long_recording_holds_nobody_up(self, place: Place) -> None:
        """The longest by far ends after all others have come out."""
        for i in range(20):
            name = os.fsdecode(b"\xff%d.wav" % i)  # no UTF-8
            (place.folder / name).write_bytes(SAMPLE.read_bytes())
        long = sample_as_au(place.folder / "gate.au")
        with open(long, "ab") as file:
            file.write(bytes(5_000_000))
        process = place.start(place.folder, "--actors", "2")
        try:
            wait(process, lambda: place.n_lines() == 20)
            time.sleep(5)  # without any progress
        finally:
            (place.root / "open").touch()
            _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert place.lines()[20]["file"] == str(long)
        assert {line["id"] for line in place.lines()} == {*map(str, place.folder.iterdir())}

    @pytest.mark.usefixtures("sigint")
    @pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted_and_gone_on_with(self, place: Place, number: signal.Signals, exit_code: int) -> None:
        for i in range(12):
            sample_as_au(place.folder / f"slow{i}.au")
        process = place.start(place.folder, "--actors", "2")
        wait(process, lambda: place.n_lines() > 0)
        process.send_signal(number)
        _, said = process.communicate(timeout=300)
        assert process.returncode == exit_code, said
        assert "interrupted; the same command goes on from here" in said
        assert "***" not in said  # as above a dump of Ray's C++ stack
        first = place.lines()
        assert 0 < len(first) < 12
        code, said = place.run(place.folder, "--actors", "2")
        assert code == 0, said
        assert f"{12 - len(first)} of 12 recordings, {len(first)} before" in said
        assert place.lines()[: len(first)] == first
        assert Counter(line["text"] for line in place.lines()) == {SAMPLE_TEXT: 12}
        assert len({line["id"] for line in place.lines()}) == 12

    def test_a_node_dies_without_grace(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of two, in the middle: every recording comes out, once."""
        from ray.cluster_utils import Cluster

        n = 30
        for i in range(n):
            sample_as_au(place.folder / f"slow{i}.au")
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False},
        )
        try:
            node = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
            process = place.start(place.folder, "--address", cluster.address, "--actors", "2")

            def workers() -> Counter[str]:
                return Counter(begun.split()[0] for begun in place.begun())

            try:
                wait(process, lambda: len(workers()) == 2 and place.n_lines() > 0)
            finally:
                cluster.remove_node(node, allow_graceful=False)
            begun_before = len(place.begun())
            _, said = process.communicate(timeout=300)
        finally:
            cluster.shutdown()
        assert process.returncode == 0, said
        assert len(workers()) == 2  # both nodes had some
        assert begun_before < n  # in the middle
        assert Counter(line["text"] for line in place.lines()) == {SAMPLE_TEXT: n}
        assert len({line["id"] for line in place.lines()}) == n
