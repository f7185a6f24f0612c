"""The command line, in a process of its own: what goes to stdout, what to stderr, and the exit code."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripted import END, A, B, C, write_model
from test_transcribe import SAMPLE, SAMPLE_TEXT, wav

from cohere_lite import __version__
from cohere_lite.__main__ import DEMO_NOTICE, main

COMMAND = [sys.executable, "-m", "cohere_lite"]


def run(*args: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, **options)  # type: ignore[call-overload]


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16)


def test_the_first_command() -> None:
    """Text on stdout, the notice of the demonstration model once on stderr."""
    result = run(SAMPLE, SAMPLE)
    assert result.stdout == f"{SAMPLE_TEXT}\n" * 2
    assert result.stderr == DEMO_NOTICE
    assert result.returncode == 0


def test_a_named_model_is_quiet(scripted: Path) -> None:
    result = run("--model", scripted, SAMPLE)
    assert (result.returncode, result.stdout, result.stderr) == (0, "a b\n", "")


def test_json(scripted: Path) -> None:
    result = run("--model", scripted, "--format", "json", "-l", "fr", SAMPLE)
    record = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert (record["file"], record["text"], record["language"]) == (str(SAMPLE), "a b", "fr")
    assert record["segments"][0]["tokens"] == [A, B]
    assert record["segments"][0]["end"] == record["duration"]


def test_goes_on_after_a_bad_file(scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    result = run("--model", scripted, tmp_path / "missing.wav", tmp_path / "text.wav", tmp_path, SAMPLE)
    assert result.stdout == "a b\n"
    assert result.returncode == 1
    missing, text, folder = result.stderr.splitlines()
    assert missing.startswith("error: ")
    assert "missing.wav" in missing
    assert f"error: {tmp_path / 'text.wav'}: a text file, beginning 'not audio'" in text
    assert "Is a directory" in folder


def test_warnings_go_to_stderr(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", [A] * 12, max_positions=12)
    (tmp_path / "cut.wav").write_bytes(wav(np.zeros(16000))[:-2001])
    result = run("--model", model, tmp_path / "cut.wav")
    assert result.stdout == "a a a\n"
    assert result.returncode == 0
    cut, limit = result.stderr.splitlines()
    assert cut.startswith(
        f"warning: {tmp_path / 'cut.wav'}: data chunk promises 32000 bytes (1.00 s), the file holds 29999"
    )
    assert limit.endswith("the model reached its limit of tokens; words are missing")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "nowhere", "a.wav"], "error: nowhere does not exist; a model is a folder"),
        (["--provider", "directml", "a.wav"], "has no DmlExecutionProvider; it has"),
    ],
)
def test_a_model_that_cannot_be_used(args: list[str], message: str) -> None:
    result = run(*args)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--provider", "gpu"], "error: unknown provider 'gpu'; known: cpu"),
        (["--threads", "0"], "error: threads is 0"),
        (["-l", "klingon"], "error: language 'klingon' is not among this model's: en, fr"),
        (["--prompt", "short", "--itn"], 'error: the "short" prompt cannot ask for itn'),
    ],
)
def test_wrong_options_are_said_once(scripted: Path, args: list[str], message: str) -> None:
    result = run("--model", scripted, *args, SAMPLE, SAMPLE)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_an_error_names_its_file(scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.wav").write_bytes(wav(np.zeros(16000), rate=500))
    result = run("--model", scripted, tmp_path / "slow.wav")
    assert result.stderr == f"error: {tmp_path / 'slow.wav'}: sampling rate 500 Hz; supported: 1000 to 1000000 Hz\n"


def test_a_model_that_fails_while_running(tmp_path: Path) -> None:
    """By construction: cross keys of 2 channels for a decoder whose graph says 3. The next file is still tried."""
    model = write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16)
    write_model(tmp_path / "other", [C] * 9 + [A, B, END], max_positions=16, decoder_width=3)
    (model / "decoder.onnx").write_bytes((tmp_path / "other" / "decoder.onnx").read_bytes())
    result = run("--model", model, SAMPLE, SAMPLE)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("failed to run the model") == 2
    assert "Traceback" not in result.stderr


def test_stdout_closed(scripted: Path) -> None:
    """Text that nobody can get is no success."""
    command = f"{sys.executable} -m cohere_lite --model {scripted} {SAMPLE} >&-"
    result = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: standard output is closed; there is nowhere to write the text\n"


def test_stderr_closed(scripted: Path) -> None:
    command = f"{sys.executable} -m cohere_lite --model {scripted} {SAMPLE} 2>&-"
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout == "a b\n"


def test_usage() -> None:
    assert run().returncode == 2
    assert run("--format", "docx", SAMPLE).returncode == 2
    assert run("--version").stdout == f"cohere_lite {__version__}\n"


def test_help_opens_no_model() -> None:
    """By construction: with a model that cannot be opened, the help still comes; no notice either."""
    result = run("--model", "nowhere", "--help")
    assert result.returncode == 0
    assert "--language" in result.stdout
    assert result.stderr == ""


def test_text_survives_a_console_without_utf8(tmp_path: Path) -> None:
    model = write_model(tmp_path, [C] * 9 + [A, END], max_positions=16)
    tokens = (model / "tokens.txt").read_text(encoding="utf-8").replace("▁a ", "▁größe ")
    (model / "tokens.txt").write_text(tokens, encoding="utf-8")
    env = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run([*COMMAND, "--model", model, SAMPLE], capture_output=True, env=env)
    assert result.stdout.decode() == "größe\n"


def test_a_closed_pipe_ends_quietly(scripted: Path) -> None:
    files = " ".join([str(SAMPLE)] * 50)
    command = f"{sys.executable} -m cohere_lite --model {scripted} {files} 2>{scripted}/err | head -n 1"
    result = subprocess.run(["bash", "-c", command + "; echo ${PIPESTATUS[0]}"], capture_output=True, text=True)
    assert result.stdout == "a b\n141\n"
    assert (scripted / "err").read_text() == ""


def test_full_disk(scripted: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([*COMMAND, "--model", scripted, SAMPLE], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: [Errno 28] No space left on device\n"


def test_ctrl_c(scripted: Path) -> None:
    """After the first text: it stays, one line says so, no traceback."""
    command = [*COMMAND, "--model", str(scripted), *[str(SAMPLE)] * 5000]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a b\n"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert rest.replace("a b\n", "") == ""
    assert errors == "interrupted\n"
    assert process.returncode == 130


def test_progress_on_a_terminal_only(scripted: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """By hand: 90 s of silence in three segments of 30 s, each after 10 s by the clock."""
    path = tmp_path / "long.wav"
    path.write_bytes(wav(np.zeros(90 * 16000)))
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr("cohere_lite.__main__.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["--model", str(scripted), str(path)]) == 0
    shown = capsys.readouterr().err.split("\r\033[K")
    assert shown == [
        "",
        f"{path}: 30 of 90 s, 3.0x real time, 20 s left",
        f"{path}: 60 of 90 s, 3.0x real time, 10 s left",
        "",
    ]
    assert run("--model", scripted, path).stderr == ""


def test_options_of_speed(scripted: Path) -> None:
    """Whatever they are, the text is the same."""
    for options in ([], ["--no-spin"], ["--cache", "off"], ["--threads", "1"], ["--batch-size", "1"]):
        result = run("--model", scripted, *options, SAMPLE)
        assert (result.returncode, result.stdout, result.stderr) == (0, "a b\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "error: batch_size is 0; it must be 1 or more"),
        (["--batch-size", "2"], "error: batch_size is 2, but only exports in the fast layout"),
        (["--threads", "0"], "error: threads is 0; it must be 1 or more"),
    ],
)
def test_options_that_cannot_be(scripted: Path, options: list[str], message: str) -> None:
    result = run("--model", scripted, *options, SAMPLE)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)


def test_preparing_a_model_is_said_once(tmp_path: Path) -> None:
    """With the limit for small models taken away: a message at the first start, none at the second."""
    code = "import cohere_lite.prepare as p; p.MIN_BYTES = 0; from cohere_lite.__main__ import run; run()"
    for expected in (2, 0):
        result = subprocess.run(
            [sys.executable, "-c", code, "--cache", str(tmp_path / "cache"), str(SAMPLE)],
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stdout) == (0, f"{SAMPLE_TEXT}\n")
        assert result.stderr.count("for this machine, once; kept in") == expected
