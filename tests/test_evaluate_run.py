"""The command: models over data, what is left after Ctrl-C, a kill, a bad recording; what is told before the work."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHECKOUT, until
from datasets_made import tone, write_parquet

pytest.importorskip("jiwer")
pytest.importorskip("matplotlib")
pytest.importorskip("kaldialign")
pytest.importorskip("whisper_normalizer")
pytest.importorskip("rich")

from cohere_lite import Transcriber
from cohere_lite.evaluate import __main__ as command
from cohere_lite.evaluate.models import Model, Worker, WorkerDied, distinct_ends, find_models
from cohere_lite.evaluate.noise import CLEAN, parse_conditions
from cohere_lite.evaluate.run import Plan, open_state, run
from cohere_lite.evaluate.tally import tally
from cohere_lite.evaluate.utterances import open_data
from cohere_lite.extras.prepared import alone_in
from cohere_lite.model import DEMO_FOLDER

pytestmark = [pytest.mark.folder, pytest.mark.reference]  # what the extra `evaluate` installs is there in CI
SAMPLE, SAMPLE_TEXT = DEMO_FOLDER / "sample.wav", "Turn on the light in the living room."
DEMO = str(DEMO_FOLDER)
EVALUATE = [sys.executable, "-m", "cohere_lite.evaluate"]


def write_data(folder: Path, texts: dict[str, str]) -> str:
    folder.mkdir()
    for name, text in texts.items():
        shutil.copy(SAMPLE, folder / f"{name}.wav")
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """By hand, under both rules: of 8 + 9 + 7 words none, two and one are wrong."""
    said = {
        "a": SAMPLE_TEXT,
        "b": "Turn on the lights now in the living room.",
        "c": "Turn on light in the living room.",
    }
    return write_data(tmp_path / "said", said)


def lines(out: Path) -> list[dict[str, Any]]:
    """The results in the file of a run."""
    read = [json.loads(line) for line in (out / "run.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in read if "facts" not in line]


def keys(out: Path) -> Counter:
    return Counter((line["condition"], line["id"], line["model"]) for line in lines(out))


def children() -> set[int]:
    found = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout.split("\n")[1:]
    return {int(row.split()[0]) for row in found if row and int(row.split()[1]) == os.getpid()}


def test_two_models(data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One is the other's copy: rates by hand, no difference."""
    copy = str(shutil.copytree(DEMO_FOLDER, tmp_path / "copy"))
    out = tmp_path / "out"
    assert command.main([DEMO, copy, "--data", data, "--out", str(out), "--noise", "telephone"]) == 0
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    rates = {(r["condition"], r["model"], r["way"]): r for r in figures["rates"]}
    for name in ("demo", "copy"):
        for way in ("card", "leaderboard"):
            rate = rates["clean", name, way]
            assert (rate["substitutions"], rate["deletions"], rate["insertions"], rate["words"]) == (1, 1, 1, 24)
    assert {(d["wer"], d["p"]) for d in figures["differences"]} == {(0, 1)}
    assert [model["name"] for model in figures["models"]] == ["demo", "copy"]
    assert all(50 < model["peak_mb"] < 1000 and model["load_s"] > 0 for model in figures["models"])
    assert figures["models"][0]["mb_on_disk"] == pytest.approx(7.3, abs=0.3)
    assert keys(out) == {(c, n, m): 1 for c in ("clean", "telephone") for n in "abc" for m in (DEMO, copy)}
    assert {line["seconds"] for line in lines(out)} == {2.48}
    assert capsys.readouterr().out.strip() == (out / "table.md").read_text(encoding="utf-8").strip()
    assert (out / "report.html").read_text(encoding="utf-8").count("<article>") == 2


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")
def test_held_out_sentences(tmp_path: Path) -> None:
    """By reference: jiwer, on what Transcriber hears in the same files; six sentences a language, in two languages."""
    import jiwer

    from tools.demo.heldout import heldout, write_recordings

    out, transcriber = tmp_path / "out", Transcriber()
    expected = {}
    for language in ("en", "de"):
        write_recordings(heldout(language, 6, snr_db=5), tmp_path / language)
        files = sorted((tmp_path / language).glob("*.wav"))
        said = [file.with_suffix(".txt").read_text(encoding="utf-8").lower() for file in files]
        heard = [transcriber.transcribe(file, language=language, punctuation=False).text.lower() for file in files]
        expected[f"{language}:{language}"] = jiwer.wer(said, heard)
    sets = [f"{tmp_path / language}:{language}" for language in ("en", "de")]
    assert command.main([DEMO, "--data", *sets, "--samples", "all", "--no-punctuation", "--out", str(out)]) == 0
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    found = {rate["data"]: rate["wer"] for rate in figures["rates"] if rate["way"] == "card"}
    assert min(expected.values()) > 0
    assert found == pytest.approx({**expected, "all data sets": sum(expected.values()) / 2})


def test_models_take_turns(data: str, tmp_path: Path) -> None:
    """Utterance by utterance, each first as often as the other."""
    copy = str(shutil.copytree(DEMO_FOLDER, tmp_path / "copy"))
    out = tmp_path / "out"
    assert command.main([DEMO, copy, "--data", data, "--out", str(out)]) == 0
    assert [(line["id"], line["model"] == DEMO) for line in lines(out)] == [
        *[("a", True), ("a", False)],
        *[("b", False), ("b", True)],
        *[("c", True), ("c", False)],
    ]


def test_nothing_is_done_twice(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with more goes on from a smaller one; one with nothing left starts no model, and gives the same figures."""
    out = tmp_path / "out"
    arguments = [DEMO, "--data", data, "--out", str(out)]
    assert command.main([*arguments, "--samples", "2"]) == 0
    first = lines(out)
    assert len(first) == 2
    assert command.main([*arguments, "--noise", "white:20"]) == 0
    assert lines(out)[:2] == first
    assert keys(out) == {(c, n, DEMO): 1 for c in ("clean", "white:20") for n in "abc"}
    state, table = (out / "run.jsonl").read_bytes(), (out / "table.md").read_bytes()
    monkeypatch.setattr("cohere_lite.evaluate.run.open_worker", None)
    assert command.main([*arguments, "--noise", "white:20"]) == 0
    assert ((out / "run.jsonl").read_bytes(), (out / "table.md").read_bytes()) == (state, table)


def test_an_evaluation_beside_the_recordings(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own lists are not taken for the data set when it is run again, from where the recordings are."""
    monkeypatch.chdir(data)
    for noise in "", "telephone":
        assert command.main([DEMO, "--data", ".", "--noise", noise]) == 0
    assert keys(Path("evaluation")) == {(c, n, DEMO): 1 for c in ("clean", "telephone") for n in "abc"}


def test_an_evaluation_in_the_folder_of_the_recordings(data: str) -> None:
    """Beside a list of them, too, which is the only one."""
    for noise in "", "telephone":
        assert command.main([DEMO, "--data", data, "--out", data, "--noise", noise]) == 0
    assert keys(Path(data)) == {(c, n, DEMO): 1 for c in ("clean", "telephone") for n in "abc"}
    (Path(data) / "list.csv").write_text("audio,text\na.wav,yes\n", encoding="utf-8")
    assert [utterance.reference for utterance in open_data(data).utterances] == ["yes"]


@pytest.fixture
def many(tmp_path: Path) -> str:
    return write_data(tmp_path / "many", {f"{i:03}": SAMPLE_TEXT for i in range(60)})


def interrupted(many: str, out: Path, number: int) -> subprocess.CompletedProcess:
    """A run that a signal ends, once there are a few results."""
    process = subprocess.Popen(
        [*EVALUATE, DEMO, "--data", many, "--samples", "all", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: (out / "run.jsonl").exists() and (out / "run.jsonl").read_bytes().count(b"\n") > 5)
    # Ctrl-C reaches all processes of a terminal, kill one
    os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)  # which waits for all that hold the pipes: the workers have ended
    return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_interrupted_goes_on(many: str, tmp_path: Path, sigint: None, number: int) -> None:
    out = tmp_path / "out"
    result = interrupted(many, out, number)
    if number == signal.SIGINT:
        assert (result.returncode, result.stderr) == (130, "interrupted; the same command goes on from here\n")
    else:
        assert result.returncode == -number
    before = (out / "run.jsonl").read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert 5 < whole.count(b"\n") < 60
    with open(out / "run.jsonl", "ab") as file:
        file.write(b'{"data": "what was being writ')
    assert command.main([DEMO, "--data", many, "--samples", "all", "--out", str(out)]) == 0
    assert (out / "run.jsonl").read_bytes().startswith(whole)
    assert keys(out) == {("clean", f"{i:03}", DEMO): 1 for i in range(60)}


def test_results_in_another_language_are_others(data: str, tmp_path: Path) -> None:
    """Whoever names the language afterwards is not given what was recognised without it."""
    path = tmp_path / "run.jsonl"
    model = find_models([DEMO], "cpu", 1, True)[0]
    for language in "en", "de":
        plan = Plan(
            [open_data(data, language=language)], [CLEAN], [replace(model, languages=("de", "en"), opener=deaf)]
        )
        run(plan, open_state(path, plan.models))
        tallies, _ = tally(plan, path, tmp_path / "utterances.jsonl")
        assert tallies[data, "clean"].done.all()
    assert Counter(line["language"] for line in lines(tmp_path)) == {"en": 3, "de": 3}
    told = (tmp_path / "utterances.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["hypothesis"] for line in told} == {"de"}


def deaf(**_: Any) -> Any:
    """A model that says in what language it was asked."""
    return lambda frames, rate, language: {
        **{"hypothesis": language, "tokens": [], "avg_logprob": None, "warnings": []},
        **dict.fromkeys(("segments", "silent", "looped", "truncated"), 0),
    }


def counting(**_: Any) -> Any:
    """A model that says how many samples it was given."""
    return lambda frames, rate, language: deaf()(frames, rate, f"{len(frames)}")


def counts(spec: str, out: Path) -> dict[str, int]:
    """What a run with that model tells of each utterance, when it is done again or for the first time."""
    plan = Plan([open_data(spec)], [CLEAN], [Model("counting", "counting", ("en",), "", 0, {}, counting, {})])
    run(plan, open_state(out / "run.jsonl", plan.models))
    tally(plan, out / "run.jsonl", out / "utterances.jsonl")
    told = map(json.loads, (out / "utterances.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["id"]: int(line["hypothesis"]) for line in told}


def test_recordings_that_change_are_heard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their lengths: one is replaced, a list has another end, another folder is called the same from elsewhere; the
    others are not done again."""
    out = tmp_path / "out"
    for here in "here", "there":
        (tmp_path / here).mkdir()
        write_data(tmp_path / here / "said", {"a": "yes", "b": "no"})
    monkeypatch.chdir(tmp_path / "here")
    assert counts("said", out) == {"a": 39680, "b": 39680}
    Path("said/a.wav").write_bytes(tone(300))
    assert counts("said", out) == {"a": 800, "b": 39680}
    assert Counter(line["id"] for line in lines(out)) == {"a": 2, "b": 1}
    Path("../there/said/b.wav").write_bytes(tone(300, seconds=0.1))
    monkeypatch.chdir(tmp_path / "there")
    assert counts("said", out) == {"a": 39680, "b": 1600}
    for end, n in ("1.5", 16000), ("1.0", 8000):
        Path("list.csv").write_text(f"id,audio,text,start,end\nx,said/a.wav,yes,0.5,{end}\n", encoding="utf-8")
        assert counts("list.csv", out) == {"x": n}


def test_results_from_before_sounds_were_told(tmp_path: Path) -> None:
    """Nobody knows what they are of: it is done again, once."""
    spec, path = write_data(tmp_path / "said", {"a": "yes"}), tmp_path / "out" / "run.jsonl"
    counts(spec, path.parent)
    path.write_text(re.sub('"sound": "[0-9a-f]+", ', "", path.read_text(encoding="utf-8")), encoding="utf-8")
    for _ in range(2):
        assert counts(spec, path.parent) == {"a": 39680}
    assert ["sound" in line for line in lines(path.parent)] == [False, True]


def test_a_recording_that_the_table_lacks(tmp_path: Path) -> None:
    """Is one failure; the others are recognised, in babble, too, which is not made of it."""
    pytest.importorskip("pyarrow")
    sounds = [None, SAMPLE.read_bytes(), SAMPLE.read_bytes()]
    rows = [{"id": f"{i}", "audio": {"bytes": sound, "path": ""}, "text": "yes"} for i, sound in enumerate(sounds)]
    path = write_parquet(tmp_path / "said.parquet", rows)
    out = tmp_path / "out"
    assert command.main([DEMO, "--data", str(path), "--out", str(out), "--noise", "babble:5"]) == 0
    errors = {(line["condition"], line["id"]): line.get("error") for line in lines(out)}
    assert [key for key, error in errors.items() if error] == [("clean", "0"), ("babble:5", "0")]
    assert errors["clean", "0"] == "said.parquet, row 0: the table holds no recording"


def test_one_run_at_a_time(data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Another one does not touch its file, whose last line may be about to be written."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.jsonl").write_bytes(b'{"data": "what is being writ')
    with alone_in(out) as is_alone:
        assert is_alone
        assert command.main([DEMO, "--data", data, "--out", str(out)]) == 1
    expected = f"error: another evaluation is at work in {out}: wait for it, or use another --out\n"
    assert capsys.readouterr().err == expected
    assert (out / "run.jsonl").read_bytes() == b'{"data": "what is being writ'
    assert command.main([DEMO, "--data", data, "--out", str(out / "run.jsonl")]) == 1
    assert capsys.readouterr().err.endswith("run.jsonl is a file: name a folder\n")


def test_the_table_comes_before_the_report(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of work must not end without it."""

    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("cohere_lite.evaluate.report.write_report", fail)
    assert command.main([DEMO, "--data", data, "--samples", "1", "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert (told.out.count("| said | clean | demo |"), told.err) == (1, "error: the disk is full\n")


def test_bad_recordings_are_counted(data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One is no sound, one is cut short, one is gone when its turn comes: two failures, one damaged."""
    (Path(data) / "a.wav").write_bytes(b"RIFF")
    (Path(data) / "b.wav").write_bytes(SAMPLE.read_bytes()[:-2000])
    (Path(data) / "c.wav").unlink()
    (Path(data) / "c.wav").symlink_to(tmp_path / "nowhere")
    out = tmp_path / "out"
    assert command.main([DEMO, "--data", data, "--out", str(out)]) == 0
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert [failure["id"] for failure in figures["failures"]] == ["a", "c"]
    assert "No such file" in figures["failures"][1]["error"]
    about = figures["data"][0]
    assert (about["utterances"], about["failed"], about["cut_short"]) == (3, 2, 1)
    assert {rate["utterances"] for rate in figures["rates"]} == {1}
    assert "said, clean, a: failed: " in capsys.readouterr().out
    (Path(data) / "a.wav").write_bytes(SAMPLE.read_bytes())  # mended; the other is tried again, too
    assert command.main([DEMO, "--data", data, "--out", str(out)]) == 0
    assert keys(out) == {("clean", name, DEMO): 1 for name in "abc"}
    assert [failure["id"] for failure in json.loads((out / "figures.json").read_bytes())["failures"]] == ["c"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names of other systems are text")
def test_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    """Is kept as it is: the run goes on from it."""
    (tmp_path / "said").mkdir()
    name = os.fsdecode(b"sp\xe4t")
    shutil.copy(SAMPLE, tmp_path / "said" / f"{name}.wav")
    (tmp_path / "said" / f"{name}.txt").write_text("Nothing of it.", encoding="utf-8")
    for _ in range(2):
        assert command.main([DEMO, "--data", str(tmp_path / "said"), "--out", str(tmp_path / "out")]) == 0
    assert keys(tmp_path / "out") == {("clean", name, DEMO): 1}


def test_where_nothing_can_be_read(data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for path in Path(data).glob("*.wav"):
        path.write_bytes(b"RIFF")
    assert command.main([DEMO, "--data", data, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.count("failed") >= 3


def dying(deadly: int) -> Any:
    """A model whose process ends at recordings of so many samples, and that hears nothing but "yes"."""

    def recognise(frames: np.ndarray, rate: int, language: str) -> dict:
        if len(frames) == deadly:
            os._exit(3)
        result = {"hypothesis": "yes", "tokens": [], "avg_logprob": None, "segments": 1}
        return result | {"silent": 0, "looped": 0, "truncated": 0, "warnings": []}

    return recognise


def test_a_model_that_dies_is_started_again(tmp_path: Path) -> None:
    """The recording that it died of fails; the others do not."""
    spec = write_data(tmp_path / "said", dict.fromkeys("abc", "yes"))
    shortened = bytearray(SAMPLE.read_bytes()[:-160])
    shortened[40:44] = (len(shortened) - 44).to_bytes(4, "little")
    (tmp_path / "said" / "b.wav").write_bytes(shortened)
    deadly = (len(shortened) - 44) // 2
    model = Model("dying", "dying", ("en",), "", 0, {}, dying, {"deadly": deadly})
    state = open_state(tmp_path / "out" / "run.jsonl", [model])
    run(Plan([open_data(spec)], [CLEAN], [model]), state)
    told = {line["id"]: line.get("error") for line in lines(tmp_path / "out")}
    assert told == {"a": None, "b": "the process of dying ended (exit code 3)", "c": None}


def startled(**_: Any) -> Any:
    """A model that raises at short recordings what nobody expects."""

    def recognise(frames: np.ndarray, rate: int, language: str) -> dict:
        if len(frames) < 1000:
            raise RuntimeError("Kernel size can't be greater than input size\nin a layer")
        return deaf()(frames, rate, language)

    return recognise


def test_errors_that_nobody_expects(tmp_path: Path) -> None:
    """They are the recording's; the model goes on, and is not started again."""
    spec = write_data(tmp_path / "said", dict.fromkeys("abc", "yes"))
    (tmp_path / "said" / "b.wav").write_bytes(tone(300))
    model = Model("startled", "startled", ("en",), "", 0, {}, startled, {})
    state = open_state(tmp_path / "out" / "run.jsonl", [model])
    run(Plan([open_data(spec)], [CLEAN], [model]), state)
    told = {line["id"]: line.get("error") for line in lines(tmp_path / "out")}
    assert told == {"a": None, "b": "RuntimeError: Kernel size can't be greater than input size", "c": None}
    assert len(state.loads_s["startled"]) == 1


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """By construction: of 16 and of 48 recordings, of 160 KB each as they are sent, less than two are held in
    addition."""
    model = Model("quick", "quick", ("en",), "", 0, {}, dying, {"deadly": -1})
    peaks = []
    for n in (16, 48):  # babble is made of 12
        spec = write_data(tmp_path / f"{n}", {f"{i}": "yes" for i in range(n)})
        plan = Plan([open_data(spec)], parse_conditions("babble:5"), [model])
        state = open_state(tmp_path / f"out{n}" / "run.jsonl", [model])
        tracemalloc.start()
        run(plan, state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 320_000
    assert peaks[1] - peaks[0] < 320_000, peaks


def test_a_worker_is_gone_when_it_is_closed() -> None:
    """By construction: it was a child of this process; one that is asked again says so."""
    worker = Worker(find_models([DEMO], "cpu", None, True)[0])
    assert worker.load_s > 0
    assert worker._process.pid in children()
    worker.close()
    assert worker._process.pid not in children()
    assert worker._process.exitcode == 0
    with pytest.raises(WorkerDied, match=r"the process of demo ended \(exit code 0\)"):
        worker.recognise(np.zeros((100, 1), np.float32), 16000, "en")


def test_stereo_and_other_rates(tmp_path: Path) -> None:
    """What the worker is sent is what the file holds: the same text as from the file."""
    worker = Worker(find_models([DEMO], "cpu", None, True)[0])
    samples = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2").astype(np.float32) / 32768
    doubled = np.repeat(samples, 3)[:, None] * np.array([[1.0, 0.5]], np.float32)
    try:
        result = worker.recognise(doubled, 48000, "en")
    finally:
        worker.close()
    assert result["hypothesis"] == SAMPLE_TEXT


def test_without_torch(data: str, tmp_path: Path) -> None:
    """By construction: neither the command nor the model's process imports it, though it is installed here."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('torch is imported')", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    arguments = [DEMO, "--data", data, "--out", str(tmp_path / "out"), "--noise", "babble:10"]
    result = subprocess.run([*EVALUATE, *arguments], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "| said | babble:10 | demo |" in result.stdout


def test_tokens_of_the_reference(data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By reference: of the same weights in float32 all tokens are transformers'."""
    pytest.importorskip("transformers")
    from cohere_lite.export.__main__ import export

    checkpoint = CHECKOUT / "tools" / "demo" / "checkpoint"
    export(checkpoint, tmp_path / "fp32", "fp32")
    arguments = [
        str(tmp_path / "fp32"),
        f"reference:{checkpoint}",
        "--data",
        data,
        "--samples",
        "1",
        "--noise",
        "white:10",
    ]
    assert command.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "| 2 of 2 |" in capsys.readouterr().out
    hypotheses = {line["hypothesis"] for line in lines(tmp_path / "out") if line["condition"] == "clean"}
    assert hypotheses == {SAMPLE_TEXT}


@pytest.fixture
def wrong(tmp_path: Path) -> Iterator[Any]:
    """The command with these arguments, before any work: what it says."""

    def told(*arguments: str, code: int = 1) -> str:
        out = tmp_path / "out"
        command_line = [*EVALUATE, *arguments, *([] if "--out" in arguments else ["--out", str(out)])]
        result = subprocess.run(command_line, capture_output=True, text=True, cwd=tmp_path)
        assert (result.returncode, result.stdout) == (code, "")
        assert result.stderr.count("\n") == 1 or code == 2
        return result.stderr

    yield told
    assert not (tmp_path / "out" / "run.jsonl").exists()


@pytest.mark.parametrize(
    ("provider", "named"),
    [
        ("CPU", "cpu"),
        ("CPUExecutionProvider", "cpu"),
        ("CUDA:1,a=B", "cuda:1,a=B"),
        ("WebGpuExecutionProvider", "webgpu"),
    ],
)
def test_providers_as_the_command_has_them(provider: str, named: str) -> None:
    """In any capitals, and by onnxruntime's names: the same facts, so that a run goes on under either."""
    (model,), (other,) = (find_models([DEMO], each, 1, True) for each in (provider, named))
    assert model == other
    assert (model.facts["provider"], model.options["provider"]) == (named, named)


def test_wrong_models(wrong: Any, data: str, tmp_path: Path) -> None:
    assert wrong("nowhere", "--data", data).startswith("error: nowhere does not exist; a model is a folder with")
    assert wrong(DEMO, DEMO, "--data", data) == f"error: {DEMO} is named twice\n"
    assert wrong(f"{DEMO}:q4", "--data", data) == f"error: {DEMO} has no precision 'q4'; it has int8\n"
    assert "tmp is no folder with a checkpoint" in wrong("reference:/tmp", "--data", data)
    other = shutil.copytree(DEMO_FOLDER, tmp_path / "other")
    tokens = (other / "tokens.txt").read_text(encoding="utf-8")
    (other / "tokens.txt").write_text(tokens.replace("<|en|>", "<|english|>"), encoding="utf-8")
    assert "other knows de, es, fr" in wrong(str(other), "--data", data)
    (other / "tokens.txt").write_text("a 0\nb 1\n", encoding="utf-8")
    assert "tokens.txt has no language, such as '<|en|>'" in wrong(str(other), "--data", data)


def test_a_reference_of_another_vocabulary(wrong: Any, data: str, tmp_path: Path) -> None:
    """Its tokens mean something else."""
    checkpoint = shutil.copytree(CHECKOUT / "tools" / "demo" / "checkpoint", tmp_path / "checkpoint")
    tokens = (checkpoint / "tokens.txt").read_text(encoding="utf-8").replace("▁the ", "▁thee ")
    (checkpoint / "tokens.txt").write_text(tokens, encoding="utf-8")
    told = wrong(DEMO, f"reference:{checkpoint}", "--data", data)
    assert told == f"error: {DEMO} has another vocabulary than reference:{checkpoint}: tokens cannot be compared\n"


def test_wrong_data(wrong: Any, data: str, tmp_path: Path) -> None:
    assert wrong(DEMO, "--data", data, data) == f"error: {data} is named twice\n"
    assert "nowhere is neither" in wrong(DEMO, "--data", "nowhere")
    told = wrong(DEMO, "--data", data, "-l", "it")
    assert told == "error: said is in it; demo knows de, en, es, fr (--language: of data that does not say its own)\n"
    told = wrong(DEMO, "--data", data, "--samples", "1", "--noise", "babble:5")
    assert told == "error: babble is made of other utterances, and said has one alone: draw more --samples\n"


def test_wrong_options(wrong: Any, data: str, tmp_path: Path) -> None:
    assert wrong(DEMO, "--data", data, "--noise", "loud").startswith("error: --noise 'loud' is not known; known are")
    assert wrong(DEMO, "--data", data, "--provider", "gpu").startswith("error: unknown provider 'gpu'; known: cpu, ")
    assert "'none' is neither a number of utterances nor 'all'" in wrong(
        DEMO, "--data", data, "--samples", "none", code=2
    )
    (tmp_path / "file").touch()
    assert "is a file: name a folder" in wrong(DEMO, "--data", data, "--out", str(tmp_path / "file"))


def test_results_of_something_else(data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A file that is none of a run; a model that has been exported anew; other settings."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.jsonl").write_text('{"text": "mine"}\n', encoding="utf-8")
    model = shutil.copytree(DEMO_FOLDER, tmp_path / "model")
    arguments = [str(model), "--data", data, "--out", str(out)]
    assert command.main(arguments) == 1
    expected = f"error: {out / 'run.jsonl'}, line 1, is none of an evaluation: use another --out\n"
    assert capsys.readouterr().err == expected
    assert (out / "run.jsonl").read_text(encoding="utf-8") == '{"text": "mine"}\n'
    (out / "run.jsonl").unlink()
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--no-punctuation"]) == 1
    assert "holds results of " in (told := capsys.readouterr().err)
    assert told.endswith("with other punctuation: use another --out\n")
    (model / "decoder.int8.onnx").touch()
    assert command.main(arguments) == 1
    assert capsys.readouterr().err.endswith("with other files: use another --out\n")


def test_data_sets_of_one_name(data: str, tmp_path: Path) -> None:
    """Each is told by as much of its path as it takes."""
    (tmp_path / "other").mkdir()
    other = write_data(tmp_path / "other" / "said", {"a": "No."})
    assert command.main([DEMO, "--data", data, other, "--out", str(tmp_path / "out")]) == 0
    figures = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    names = [f"{tmp_path.name}/said", "other/said"]
    assert [about["name"] for about in figures["data"]] == names
    assert {rate["data"] for rate in figures["rates"]} == {*names, "all data sets"}


def test_names() -> None:
    """By hand."""
    assert distinct_ends(["/a/int8", "b/int4", "owner/name:q4"]) == ["int8", "int4", "name:q4"]
    assert distinct_ends(["/a/b/x", "/c/b/x", "y"]) == ["a/b/x", "c/b/x", "y"]
    assert distinct_ends(["x", "./x"]) == ["x", "./x"]
