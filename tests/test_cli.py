"""The command line, in a process of its own: what goes to stdout, what to stderr, and the exit code."""

import errno
import inspect
import io
import json
import logging
import os
import platform
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import CHECKOUT, COMMAND, until
from scripted import END, A, B, C, write_model
from scripted_contracts import write_merged
from test_transcribe import SAMPLE, SAMPLE_TEXT, beep, phrase, wav

from cohere_lite import OptionError, Pauses, Transcriber, __version__, recording
from cohere_lite.cli.options import output_paths, parse_arguments
from cohere_lite.cli.run import DEMO_NOTICE, main
from cohere_lite.cut import MAX_CHUNK_S, SEARCH_S
from cohere_lite.devices.providers import PROVIDERS
from cohere_lite.extras.raw import RAW_FORMATS
from cohere_lite.transcribe import BATCH_SIZE

pytestmark = pytest.mark.usefixtures("sigint")

posix = pytest.mark.skipif(os.name != "posix", reason="signals, descriptors and messages as POSIX has them")
dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is full")
SUMMARY = r"(?:\d+ of )?\d+ files?(?: \(\d+ failed\))?, \d+\.\d s of audio in \d+\.\d s, \d+\.\dx real time\n"


def run(*args: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, **options)  # type: ignore[call-overload]


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16)


def test_the_first_command() -> None:
    """Text on stdout, the notice of the demonstration model once on stderr."""
    result = run(SAMPLE, SAMPLE)
    assert result.stdout == f"{SAMPLE_TEXT}\n" * 2
    assert re.fullmatch(re.escape(f"{DEMO_NOTICE}\n") + SUMMARY, result.stderr)
    assert "2 files, 5.0 s of audio in" in result.stderr  # 2.48 s each
    assert result.returncode == 0


def test_word_times() -> None:
    """In JSON, and before each word of vtt but the first."""
    (segment,) = json.loads(run("-q", "--word-times", "-f", "json", SAMPLE).stdout)["segments"]
    assert " ".join(word["text"] for word in segment["words"]) == SAMPLE_TEXT
    karaoke = run("-q", "--karaoke", "-f", "vtt", SAMPLE).stdout
    assert re.sub(r"<00:00:0\d\.\d{3}>", "", karaoke) == run("-q", "--word-times", "-f", "vtt", SAMPLE).stdout
    assert karaoke.count("<00:00:0") == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--karaoke",), "--karaoke is for --format vtt"),
        (("--karaoke", "-f", "srt"), "--karaoke is for --format vtt"),
        (("--word-times",), "--word-times is for json, srt and vtt"),
        (("--word-times", "-f", "json"), "own export: python -m cohere_lite.export "),
    ],
)
def test_word_times_that_cannot_be(options: tuple[str, ...], message: str, scripted: Path) -> None:
    result = run("-m", scripted, *options, SAMPLE)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_quiet(scripted: Path) -> None:
    result = run("--model", scripted, "--quiet", SAMPLE)
    assert (result.returncode, result.stdout, result.stderr) == (0, "a b\n", "")
    assert run("--quiet", SAMPLE).stderr == ""


def test_verbose(scripted: Path) -> None:
    """By hand: the sample is one segment of 2.48 s; the script's logits are 1 for the answer, -1 for 17 others."""
    machine, model, segment, summary = run("--model", scripted, "--verbose", SAMPLE).stderr.splitlines()
    assert machine.startswith(
        f"cohere_lite {__version__}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"onnxruntime {onnxruntime.__version__}, {platform.platform()}, {os.cpu_count()} processors, "
    )
    facts = f"name {scripted}, contract static, precision fp32, provider cpu, onnxruntime {onnxruntime.__version__}"
    assert f"{facts}, loaded in" in model
    assert segment == f"{SAMPLE}: 0.00 to 2.48 s: 2 tokens, logprob {-np.log(1 + 17 * np.exp(-2)):.3f}"
    assert re.fullmatch(SUMMARY, summary + "\n")
    alone = run("--model", scripted, "--verbose", "--threads", "1")
    assert (alone.returncode, alone.stdout, alone.stderr.count("\n")) == (0, "", 2)
    assert " processors, 1 threads\n" in alone.stderr


def test_a_model_that_could_be_faster(scripted: Path) -> None:
    """Said once, whatever the number of files, with the command; not of our own export, which names its contract."""
    for path in [*scripted.glob("*coder.onnx")]:
        path.rename(path.with_suffix(".int8.onnx"))
    hint = f"python -m cohere_lite.export {scripted} NEW_FOLDER makes it fast"
    chosen = f"python -m cohere_lite.export '{scripted}/a folder' NEW_FOLDER --from int8 makes it fast"
    result = run("--model", scripted, SAMPLE, SAMPLE)
    assert result.stderr.count(hint) == 1
    assert hint in result.stderr.splitlines()[0]
    assert hint not in run("--model", scripted, "--quiet", SAMPLE).stderr
    shutil.copytree(scripted, scripted / "a folder")
    assert chosen in run("--model", scripted / "a folder", "--precision", "int8", SAMPLE).stderr
    encoder = onnx.load(scripted / "encoder.int8.onnx")
    encoder.metadata_props.add(key="contract", value="static")
    onnx.save(encoder, scripted / "encoder.int8.onnx")
    assert hint not in run("--model", scripted, SAMPLE).stderr


def test_a_precision(tmp_path: Path) -> None:
    folder = write_merged(tmp_path / "model", [C] * 9 + [A, B, END])
    for path in [*folder.glob("onnx/*.onnx")]:
        path.with_name(f"{path.stem}_q4.onnx").write_bytes(path.read_bytes())
    for asked, used in ((), "q4"), (("--precision", "fp32"), "fp32"):
        result = run("--model", folder, *asked, "--verbose", SAMPLE)
        assert (result.stdout, f"contract merged, precision {used}, " in result.stderr) == ("a b\n", True)
    result = run("--model", folder, "--precision", "int8", SAMPLE)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {folder} has no precision 'int8'; it has fp32, q4\n"


def test_json(scripted: Path) -> None:
    result = run("--model", scripted, "--format", "json", "-l", "fr", SAMPLE)
    record = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert (record["version"], record["text"], record["language"]) == (1, "a b", "fr")
    assert (record["file"], record["duration"], record["complete"], record["warnings"]) == (str(SAMPLE), 2.48, True, [])
    assert record["model"] == {
        "name": str(scripted),
        "contract": "static",
        "precision": "fp32",
        "provider": "cpu",
        "onnxruntime": onnxruntime.__version__,
    }
    # seconds have 3 decimals
    assert 2.48 / record["timing"]["speed"] == pytest.approx(record["timing"]["seconds"], abs=0.001)
    assert record["segments"] == [
        {"start": 0.0, "end": 2.48, "text": "a b", "tokens": [A, B], "channel": None}
        | {"avg_logprob": round(-np.log(1 + 17 * np.exp(-2)), 4), "silent": False, "truncated": False, "looped": False}
        | {"language": "fr", "language_probability": None}
    ]


def test_json_of_a_recording_that_was_cut_short(scripted: Path, tmp_path: Path) -> None:
    """Half of its samples are there: 1.24 s."""
    (tmp_path / "half.wav").write_bytes(SAMPLE.read_bytes()[: 44 + 39680])
    result = run("-q", "-m", scripted, "-f", "json", tmp_path / "half.wav")
    record = json.loads(result.stdout)
    assert (record["text"], record["duration"], record["complete"]) == ("a b", 1.24, False)
    (warning,) = record["warnings"]
    assert warning.startswith("data chunk promises 79360 bytes (2.48 s), the file holds 39680 (1.24 s)")
    assert result.stderr == f"warning: {tmp_path / 'half.wav'}: {warning}\n"


@posix
def test_goes_on_after_a_bad_file(scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    result = run("--model", scripted, tmp_path / "missing.wav", tmp_path / "text.wav", tmp_path, SAMPLE)
    assert result.stdout == "a b\n"
    assert result.returncode == 1
    missing, text, folder, summary = result.stderr.splitlines()
    assert summary.startswith("4 files (3 failed), 2.5 s of audio in")
    assert missing.startswith("error: ")
    assert "missing.wav" in missing
    assert f"error: {tmp_path / 'text.wav'}: a text file, beginning 'not audio'" in text
    assert "Is a directory" in folder


def test_warnings_go_to_stderr(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", [A] * 12, max_positions=12)
    (tmp_path / "cut.wav").write_bytes(wav(32767 * beep(16000))[:-2001])
    result = run("--quiet", "--model", model, tmp_path / "cut.wav")
    assert result.stdout == "a a a\n"
    assert result.returncode == 0
    limit, cut = result.stderr.splitlines()
    assert cut.startswith(
        f"warning: {tmp_path / 'cut.wav'}: data chunk promises 32000 bytes (1.00 s), the file holds 29999"
    )
    assert limit.endswith("cut.wav: 0:00 to 0:01: the model reached its limit of tokens; words are missing")
    split = run("--quiet", "--model", model, "--channels", "split", tmp_path / "cut.wav").stderr.splitlines()
    assert split[0].endswith("cut.wav: [0] 0:00 to 0:01: the model reached its limit of tokens; words are missing")


NO_DIRECTML = "error: directml is not installed; this onnxruntime"
if not hasattr(onnxruntime.InferenceSession, "get_input_memory_infos"):  # before 1.24
    NO_DIRECTML = f"error: onnxruntime {onnxruntime.__version__} does not tell which memory directml uses: pip install"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "nowhere", "a.wav"], "error: nowhere does not exist; a model is a folder"),
        (["--provider", "directml", "a.wav"], NO_DIRECTML),
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
    result = run("--quiet", "--model", scripted, tmp_path / "slow.wav")
    assert (
        result.stderr
        == f"error: {tmp_path / 'slow.wav'}: sampling rate 500 Hz; supported: 1000 to 1000000 Hz, whole numbers\n"
    )


def test_a_model_that_fails_while_running(tmp_path: Path) -> None:
    """By construction: cross keys of 2 channels, which the encoder's graph does not tell, for a decoder that takes 3.
    The next file is still tried."""
    model = write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16)
    write_model(tmp_path / "other", [C] * 9 + [A, B, END], max_positions=16, decoder_width=3)
    (model / "decoder.onnx").write_bytes((tmp_path / "other" / "decoder.onnx").read_bytes())
    encoder = onnx.load(model / "encoder.onnx")
    for output in encoder.graph.output:
        output.type.tensor_type.shape.dim[3].dim_param = "width"
    for node in encoder.graph.node:
        node.input[:] = ["unforeseen" if name == "full" else name for name in node.input]
    unforeseen = [("Size", ["mel"], "n"), ("Sub", ["n", "n"], "zero"), ("Add", ["full", "zero"], "unforeseen")]
    for i, (operator, inputs, output) in enumerate(unforeseen):  # onnxruntime infers what does not depend on the input
        encoder.graph.node.insert(i, onnx.helper.make_node(operator, inputs, [output]))
    onnx.save(encoder, model / "encoder.onnx")
    result = run("--model", model, SAMPLE, SAMPLE)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("failed to run decoder.onnx") == 2
    assert "Traceback" not in result.stderr


@posix
def test_stdout_closed(scripted: Path) -> None:
    """Text that nobody can get is no success."""
    command = f"{shlex.join(COMMAND)} --quiet --model {scripted} {SAMPLE} >&-"
    result = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: standard output is closed; there is nowhere to write the text\n"


@posix
def test_stderr_closed(scripted: Path) -> None:
    command = f"{shlex.join(COMMAND)} --quiet --model {scripted} {SAMPLE} 2>&-"
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout == "a b\n"


def test_usage() -> None:
    assert "error: name a FILE, or - for a pipe" in run().stderr
    assert run().returncode == 2
    assert run("--format", "docx", SAMPLE).returncode == 2
    assert run("--version").stdout == f"cohere_lite {__version__}\n"


def test_help_opens_no_model() -> None:
    """By construction: with a model that cannot be opened, the help still comes; no notice either."""
    result = run("--model", "nowhere", "--help")
    assert result.returncode == 0
    assert "--language" in result.stdout
    assert result.stderr == ""


@pytest.mark.folder
@pytest.mark.parametrize("option", ["--help", "--version", "--format=docx"])
def test_answers_that_need_no_model_do_not_wait_for_numpy(option: str) -> None:
    code = """
import sys
from cohere_lite.cli.run import main
try:
    main(sys.argv[1:])
finally:
    print({"numpy", "onnxruntime"} & set(sys.modules), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code, option, "a.wav"], capture_output=True, text=True)
    assert result.returncode == (2 if "=" in option else 0)
    assert result.stderr.endswith("set()\n")


def test_help_says_what_is_so() -> None:
    """By reference: the names and numbers in it are those of the files that it must not import."""
    text = " ".join(run("--help").stdout.split())
    pauses = Pauses()
    for known in (
        f"formats: {', '.join(RAW_FORMATS)} where to cut:",
        f"length of a pause (default: {pauses.min_pause_s:g})",
        f"at the latest (default: {pauses.max_phrase_s:g})",
        f"than the noise floor (default: {pauses.threshold_db:g})",
        f"--provider NAME {', '.join(PROVIDERS)} (default: cpu);",
        f"decoded at once (default: {BATCH_SIZE})",
        f"every {MAX_CHUNK_S - SEARCH_S:g} to {MAX_CHUNK_S:g} s as the reference does",
    ):
        assert known in text


@pytest.mark.folder
def test_the_way_to_the_full_model() -> None:
    """Of the two commands that are shown, pip's extra is in the metadata, and the other one answers."""
    text = run("--help").stdout
    (extra,) = re.findall(r"^ +pip install 'cohere-lite\[(\w+)\]'$", text, re.MULTILINE)
    (options,) = re.findall(r"^ +python (-m cohere_lite\.export --help)$", text, re.MULTILINE)
    assert f"\n{extra} = [" in (CHECKOUT / "pyproject.toml").read_text()
    result = subprocess.run([sys.executable, *options.split()], capture_output=True, text=True)
    assert result.stdout.startswith("usage: python -m cohere_lite.export")


@pytest.mark.folder
def test_the_command_needs_some_of_the_extras(tmp_path: Path) -> None:
    """In a copy of the runtime, cli, a model, and five files of extras/."""
    extras = {path.name for path in (CHECKOUT / "cohere_lite" / "extras").glob("*.py")}
    needed = {"__init__.py", "formats.py", "languages.py", "loudness.py", "phrases.py", "raw.py"}
    skipped = shutil.ignore_patterns("export", "__pycache__", *extras - needed)
    shutil.copytree(CHECKOUT / "cohere_lite", tmp_path / "speech", ignore=skipped)
    command = [sys.executable, "-m", "speech", "--quiet", SAMPLE]
    for options in ([], ["--cut", "pauses"], ["--raw", "8000:s16le:1"]):
        result = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, ""), options
        assert result.stdout == f"{SAMPLE_TEXT}\n" or "--raw" in options
    result = subprocess.run([*command, "--format", "srt"], cwd=tmp_path, capture_output=True, text=True)
    message = "srt needs cohere_lite/extras/subtitles.py, which is not in this copy"
    assert (result.returncode, result.stderr) == (2, f"error: {message}\n")


def test_an_option_is_not_abbreviated(scripted: Path, tmp_path: Path) -> None:
    """ "--output result.txt" is no folder of that name."""
    result = run("--model", scripted, "--output", "result.txt", SAMPLE, cwd=tmp_path)
    assert result.returncode == 2
    assert "unrecognized arguments: --output; did you mean --output-dir?" in result.stderr
    assert not (tmp_path / "result.txt").exists()
    assert "did you mean --output-dir?" in run("--out", "x", SAMPLE).stderr
    for option in "--out", "--lang", "--form", "--mod", "--ver":
        assert run("--model", scripted, option, "en", SAMPLE).returncode == 2


def test_files_and_options_in_any_order() -> None:
    """By hand; what follows -- is a file, whatever it looks like."""
    args = parse_arguments(["a.wav", "-f", "json", "-", "-q", "c.wav", "--", "-d.wav", "--", "-f"])
    assert args.files == ["a.wav", "-", "c.wav", "-d.wav", "--", "-f"]
    assert (args.format, args.quiet) == ("json", True)
    assert parse_arguments(["--", "-a.wav"]).files == ["-a.wav"]


def test_short_options_and_capitals(scripted: Path, tmp_path: Path) -> None:
    assert run("-q", "-m", scripted, "-f", "SRT", "-l", "fr", "-o", tmp_path, SAMPLE).stderr == ""
    assert (tmp_path / "sample.srt").read_text() == "1\n00:00:00,000 --> 00:00:02,480\na b\n\n"
    assert run("-m", scripted, "-v", "--provider", "CPU", "--cut", "Pauses", SAMPLE).stderr.count("\n") == 4


@pytest.mark.parametrize(
    "said", ["fr", "FR", "fr_CA", "fr-CA", "fr_FR.UTF-8", "French", "fra", "français", "franc\u0327ais"]
)
def test_what_people_call_a_language(scripted: Path, said: str) -> None:
    assert json.loads(run("-m", scripted, "-f", "json", "-l", said, SAMPLE).stdout)["language"] == "fr"


def test_a_language_that_the_model_does_not_have(scripted: Path) -> None:
    for said, hint in ("Old-Norse", "'Old-Norse'"), ("xx", "'xx'"), ("german", "'de'"):
        result = run("-q", "-m", scripted, "-l", said, SAMPLE)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"error: language {hint} is not among this model's: " in result.stderr
    with pytest.raises(OptionError, match="did you mean 'fr'"):
        Transcriber(scripted).transcribe(SAMPLE, language="french")


@pytest.mark.parametrize("option", ["--output-dir", "--model", "--cache"])
def test_an_empty_name_is_not_the_current_folder(scripted: Path, option: str, tmp_path: Path) -> None:
    """As from a variable of the shell that was never set."""
    result = run("--model", scripted, option, "", SAMPLE, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "it is empty; for the current folder write ." in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_looks_like_a_file(scripted: Path, tmp_path: Path) -> None:
    """ "-o result.txt" is how other programs are told the name of a file."""
    result = run("-q", "-m", scripted, "-o", "result.txt", SAMPLE, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "result.txt looks like a file; it must be a folder (for one file: > result.txt)" in result.stderr
    (tmp_path / "result.txt").mkdir()
    assert run("-q", "-m", scripted, "-o", "new.TXT", SAMPLE, cwd=tmp_path).returncode == 2
    assert run("-q", "-m", scripted, "-o", "result.txt", SAMPLE, cwd=tmp_path).returncode == 0
    assert (tmp_path / "result.txt" / "sample.txt").read_text() == "a b\n"


def test_it_is_told_where_the_demonstration_is_not_sure(tmp_path: Path, scripted: Path) -> None:
    """By construction: the sample played backwards is nothing that it has learnt; another model is not judged."""
    file = tmp_path / "backwards.wav"
    file.write_bytes(SAMPLE.read_bytes()[:44] + np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")[::-1].tobytes())
    hint = "the demonstration model is not sure of this: "
    result = run(file)
    assert f"{file}: {hint}{result.stdout.strip() or '(no text)'}\n" in result.stderr
    assert hint not in run("--quiet", file).stderr + run(SAMPLE).stderr + run("--model", scripted, file).stderr


def test_the_short_prompt_is_not_for_the_demonstration() -> None:
    assert "warning: the demonstration model has not learnt the short prompt" in run("--prompt", "short", SAMPLE).stderr


@posix
def test_a_name_is_no_command_for_the_terminal(scripted: Path, tmp_path: Path) -> None:
    """By hand: an escape that clears the screen, a carriage return, one that turns the direction; not a wide space."""
    names = ["\x1b[2J", "\r", "\u202e", "\u3000"]
    for name in names:
        (tmp_path / f"{name}.wav").write_bytes(b"no sound")
    result = run("-q", "-m", scripted, *(tmp_path / f"{name}.wav" for name in names))
    for shown in "\\x1b[2J.wav: ", "\\r.wav: ", "\\u202e.wav: ", "\u3000.wav: ":
        assert f"error: {tmp_path}/{shown}" in result.stderr
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "\x1b[2J").touch()
    assert "it holds \\x1b[2J\n" in run("-q", "-m", tmp_path / "folder", SAMPLE).stderr


# In another program


def state() -> tuple[object, ...]:
    """What main() could leave changed behind."""
    root, ours = logging.getLogger(), logging.getLogger("cohere_lite")
    descriptors = [os.fstat(descriptor)[:3] for descriptor in (0, 1, 2)]
    streams = [(stream, getattr(stream, "encoding", None)) for stream in (sys.stdin, sys.stdout, sys.stderr)]
    logs = [(log.level, log.propagate, log.handlers[:]) for log in (root, ours)]
    return descriptors, streams, logs, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


class Full(io.StringIO):
    """A stdout without a descriptor, that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Gone(Full):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize(
    ("stdout", "expected", "message"),
    [
        (io.StringIO(), 0, ""),
        (Full(), 1, "error: [Errno 28] No space left on device\n"),
        (Gone(), 141, ""),
        (io.TextIOWrapper(io.BytesIO(), "ascii"), 1, "error: 'ascii' codec can't encode characters in position 2-3"),
        (None, 1, "error: standard output is closed; there is nowhere to write the text\n"),
    ],
)
def test_main_leaves_no_trace(stdout, expected: int, message: str, scripted: Path, monkeypatch, capsys) -> None:
    tokens = (scripted / "tokens.txt").read_text(encoding="utf-8").replace("▁a ", "▁größe ")
    (scripted / "tokens.txt").write_text(tokens, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stdout)
    before = state()
    assert main(["--quiet", "--model", str(scripted), str(SAMPLE)]) == expected
    assert state() == before
    assert main(["--quiet", "--model", "nowhere", str(SAMPLE)]) == 1
    assert state() == before
    assert capsys.readouterr().err.startswith(message)
    if expected == 0:
        assert stdout.getvalue() == "größe b\n"


class Writer:
    """What a program puts in place of stdout: something to write to, and no more."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


NO_BYTES = "what this program gives as standard input is no file of bytes"


class Odd(Writer):
    """Says that it is a terminal, but not which one."""

    def isatty(self) -> bool:
        return True


def test_a_stderr_that_is_no_terminal_after_all(scripted: Path, two: Path, monkeypatch, capsys) -> None:
    for stderr in Odd(), Writer(), None:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert main(["--model", str(scripted), str(two)]) == 0
        assert "a b\n" in capsys.readouterr().out
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert main(["--model", str(scripted), str(SAMPLE)]) == 0
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdout", closed)
    assert main(["--model", str(scripted), str(SAMPLE)]) == 1


@pytest.mark.parametrize("closed", [False, True])
def test_streams_of_a_host_program(closed: bool, scripted: Path, monkeypatch, capsys) -> None:
    """A stdin of bytes, or of text over bytes, without a descriptor, and text alone; a stdin that is closed."""
    data = SAMPLE.read_bytes()
    for stdin, told in (
        (io.BytesIO(data), ""),
        (io.TextIOWrapper(io.BytesIO(data)), ""),
        (io.StringIO("sound"), f"error: standard input: {NO_BYTES}\n"),
        (Writer(), f"error: standard input: {NO_BYTES}\n"),
    ):
        stdout = Writer()
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stdin", stdin)
        if closed and hasattr(stdin, "close"):
            stdin.close()
            told = "error: standard input: there is no pipe to read from"
        assert main(["--quiet", "--model", str(scripted), "-"]) == (1 if told else 0)
        assert stdout.text == ("" if told else "a b\n")
        assert capsys.readouterr().err.startswith(told)


def test_main_does_not_redirect_a_full_stdout(scripted: Path) -> None:
    """Descriptor 1 is the calling program's."""
    code = """
import os, sys
from cohere_lite.cli.run import main
before = os.fstat(1).st_rdev
code = main(sys.argv[1:])
print(code, os.fstat(1).st_rdev == before, file=sys.stderr)
"""
    command = [sys.executable, "-c", code, "--quiet", "--model", scripted, SAMPLE]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.stderr.startswith("error: [Errno 28] No space left on device\n1 True\n")


def test_main_logs_nowhere_else(scripted: Path, caplog: pytest.LogCaptureFixture, capsys) -> None:
    """A program that logs to the same terminal would show everything twice."""
    assert main(["--verbose", "--model", str(scripted), str(SAMPLE)]) == 0
    assert "contract static" in capsys.readouterr().err
    assert caplog.records == []


# The process


@posix
def test_text_survives_a_console_without_utf8(tmp_path: Path) -> None:
    model = write_model(tmp_path, [C] * 9 + [A, END], max_positions=16)
    tokens = (model / "tokens.txt").read_text(encoding="utf-8").replace("▁a ", "▁größe ")
    (model / "tokens.txt").write_text(tokens, encoding="utf-8")
    env = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run([*COMMAND, "--model", model, SAMPLE], capture_output=True, env=env)
    assert result.stdout.decode() == "größe\n"


@posix
def test_a_closed_pipe_ends_quietly(scripted: Path) -> None:
    """By the shell's rule, 128 + SIGPIPE (13); with far more to do than fits into the pipe."""
    (scripted / "a").write_bytes(SAMPLE.read_bytes())
    command = [*COMMAND, "--quiet", "--model", str(scripted), *["a"] * 20_000]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=scripted) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a b\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


@dev_full
def test_full_disk(scripted: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*COMMAND, "--quiet", "--model", scripted, SAMPLE], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert result.stderr == "error: [Errno 28] No space left on device\n"


@posix
def test_ctrl_c(scripted: Path) -> None:
    """After the first text: it stays, one line says so, no traceback."""
    command = [*COMMAND, "--model", str(scripted), *[str(SAMPLE)] * 5000]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a b\n"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert rest.replace("a b\n", "") == ""
    assert re.fullmatch(SUMMARY + "interrupted\n", errors)
    assert re.match(r"\d+ of 5000 files, ", errors)
    assert process.returncode == 130


# between the opening of a file and the next instruction, there is nobody yet to close it
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_every_moment(scripted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Raised at every 61st line that is run after the options are read, towards the end at more of them: what was
    printed before is whole, nothing follows, and no file is called a failure."""
    arguments = ["--model", str(scripted), str(SAMPLE), str(SAMPLE)]
    folder = str(Path(inspect.getfile(Transcriber)).parent)  # and all in it
    outcomes = set()
    n_lines = 0

    def press_at(line: float) -> Callable[..., object]:
        def trace(frame: FrameType, event: str, _: object) -> object:
            nonlocal n_lines
            if not frame.f_code.co_filename.startswith(folder):
                return None
            if event == "line":
                n_lines += 1
                if n_lines == line:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGINT)
            return trace

        return trace

    def outcome(line: float) -> tuple[int, str, str]:
        nonlocal n_lines
        n_lines = 0
        sys.settrace(press_at(line))
        try:
            return (main(arguments), *capsys.readouterr())
        finally:
            sys.settrace(None)

    assert outcome(inf)[:2] == (0, "a b\n" * 2)
    for line in [*range(200, n_lines, 61), *range(n_lines - 200, n_lines, 11)]:
        code, text, errors = outcome(line)
        summary = errors.removesuffix("interrupted\n")
        if code == 130:
            assert errors == f"{summary}interrupted\n"
        else:  # when all is said
            assert (code, text) == (0, "a b\n" * 2)
        assert re.fullmatch(f"(?:{SUMMARY})?", summary)
        assert "failed" not in summary
        outcomes.add((text, summary[:7]))
    assert outcomes >= {("", ""), ("", "1 of 2 "), ("a b\n", "2 files"), ("a b\n" * 2, "2 files")}


def test_progress_on_a_terminal_only(scripted: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """By hand: 90 s of silence in three segments of 30 s, each after 10 s by the clock; then a file of 30 s; before
    them one that cannot be read."""
    (tmp_path / "none.wav").write_text("not audio")
    paths = [tmp_path / "none.wav", tmp_path / "long.wav", tmp_path / "short.wav"]
    for path, seconds in zip(paths[1:], (90, 30), strict=True):
        path.write_bytes(wav(np.zeros(seconds * 16000)))
    now_s = 0.0
    decode = recording.decode

    def slow_decode(*args: object) -> object:
        nonlocal now_s
        now_s += 10
        return decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(recording, "decode", slow_decode)
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--model", str(scripted), "--keep-silence", *map(str, paths)]) == 1
    error, *shown, summary, _ = re.split(r"\r *\r|(?<=\n)", capsys.readouterr().err)
    assert "none.wav: a text file" in error
    assert [line for line in shown if line] == [
        f"2/3 {paths[1]}: 0:30 of 1:30, 3.0x real time, 0:20 left, 0:30 for all",
        f"2/3 {paths[1]}: 1:00 of 1:30, 3.0x real time, 0:10 left, 0:20 for all",
        f"2/3 {paths[1]}: 1:30 of 1:30, 3.0x real time, 0:00 left, 0:10 for all",
    ]
    assert re.fullmatch(SUMMARY, summary)
    assert main(["--model", str(scripted), "--keep-silence", "--end", "60", *map(str, paths)]) == 1
    assert f"2/3 {paths[1]}: 0:30 of 1:00, 3.0x real time, 0:10 left, 0:20 for all" in capsys.readouterr().err
    assert run("--quiet", "--model", scripted, *paths[1:]).stderr == ""


def read_screen(screen: BinaryIO, count: int) -> str:
    """The next characters of a terminal, which may come in parts."""
    text = b""
    while len(text) < count:
        text += os.read(screen.fileno(), count - len(text))
    return text.decode()


def test_progress_fits_the_terminal(scripted: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """By hand: of a name of two lines as much as leaves 39 columns, and the last one free; stdout is no terminal."""
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    path = tmp_path / "a\nb.wav"
    path.write_bytes(wav(np.zeros(60 * 16000)))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    now_s = 0.0
    decode = recording.decode

    def slow_decode(*args: object) -> object:
        nonlocal now_s
        now_s += 10
        return decode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(recording, "decode", slow_decode)
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with open(master, "rb") as screen, open(slave, "w") as terminal:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            assert main(["--model", str(scripted), "--keep-silence", str(path)]) == 0
        line = f"{tmp_path}/a b.wav: 0:30 of 1:00, 3.0x real time, 0:10 left"
        expected = f"{line[-39:]}\r{' ' * 39}\r"
        assert read_screen(screen, len(expected)) == expected
    assert capsys.readouterr().out == "a b a b\n"


def test_a_line_for_each_piece_on_a_terminal(scripted: Path, two: Path) -> None:
    """And one for the whole file elsewhere."""
    pty = pytest.importorskip("pty")
    command = [*COMMAND, "--quiet", "--model", str(scripted), "--cut", "pauses", str(two)]
    master, slave = pty.openpty()
    with open(master, "rb") as screen:
        with open(slave, "w") as terminal:
            assert subprocess.run(command, stdout=terminal).returncode == 0
        assert read_screen(screen, 10) == "a b\r\n" * 2
    assert subprocess.run(command, capture_output=True).stdout == b"a b a b\n"


@dev_full
def test_an_error_names_the_file_though_its_name_is_a_word_of_it(scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(SAMPLE.read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").symlink_to("/dev/full")
    command = ["--model", scripted, "--force", "--output-dir", "out", "a"]
    error, held, summary = run(*command, cwd=tmp_path).stderr.splitlines()
    assert error == "error: a: [Errno 28] No space left on device"
    assert held == f"{Path('out', 'a.txt')} holds what was recognised before"
    assert summary.startswith("1 file (1 failed), 2.5 s of audio in ")


def test_options_of_speed(scripted: Path) -> None:
    """Whatever they are, the text is the same."""
    for options in ([], ["--no-spin"], ["--cache", "off"], ["--threads", "1"], ["--batch-size", "1"]):
        result = run("--quiet", "--model", scripted, *options, SAMPLE)
        assert (result.returncode, result.stdout, result.stderr) == (0, "a b\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "error: batch_size is 0; it must be 1 or more"),
        (["--batch-size", "2"], 'error: batch_size is 2, but only exports of the "fast" contract'),
        (["--threads", "0"], "error: threads is 0; it must be 1 to "),
        (["--start", "3", "--end", "2"], "error: from 3.0 to 2.0 is no stretch"),
    ],
)
def test_options_that_cannot_be(scripted: Path, options: list[str], message: str) -> None:
    result = run("--model", scripted, *options, SAMPLE)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)


@pytest.mark.folder
def test_preparing_a_model_is_said_once(tmp_path: Path) -> None:
    """With the limit for small models taken away: a message at the first start, none at the second."""
    code = "import cohere_lite.extras.prepared as p; p.MIN_BYTES = 0; from cohere_lite.cli.run import run; run()"
    for expected in (2, 0):
        result = subprocess.run(
            [sys.executable, "-c", code, "--cache", str(tmp_path / "cache"), str(SAMPLE)],
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stdout) == (0, f"{SAMPLE_TEXT}\n")
        assert result.stderr.count("for this machine, once; kept in") == expected


# Formats, files, stretches, channels


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Stereo: the sample on the left, then on the right; 1 s of silence after each."""
    path = tmp_path / "two.wav"
    path.write_bytes(wav(np.stack([phrase(0, 16000 + 55680), phrase(16000 + 39680, 16000)], axis=1)))
    return path


def test_srt_and_split_channels(two: Path) -> None:
    """By hand: 2.48 s of speech, 1 s of silence, the same again. Half of the pause (0.3 s) belongs to the phrase."""
    result = run("--quiet", "--channels", "split", "--format", "srt", two)
    first, second = result.stdout.strip().split("\n\n")
    assert first.split("\n")[0::2] == ["1", f"[0] {SAMPLE_TEXT}"]
    assert second.split("\n")[0::2] == ["2", f"[1] {SAMPLE_TEXT}"]
    assert run("--quiet", "--channels", "split", two).stdout == f"[0] {SAMPLE_TEXT}\n[1] {SAMPLE_TEXT}\n"
    assert run("--quiet", "--channel", "1", "--cut", "pauses", two).stdout == f"{SAMPLE_TEXT}\n"
    assert run("--quiet", "--cut", "pauses", two).stdout == f"{SAMPLE_TEXT} {SAMPLE_TEXT}\n"


def test_start_and_end(two: Path) -> None:
    assert run("--quiet", "--start", "0:03.2", two).stdout == f"{SAMPLE_TEXT}\n"
    record = json.loads(run("--quiet", "--format", "json", "--start", "3", "--end", "0:00:06", two).stdout)
    assert (record["segments"][0]["start"], record["segments"][-1]["end"], record["duration"]) == (3, 6, 3)


def test_raw(tmp_path: Path) -> None:
    path = tmp_path / "sample.raw"
    path.write_bytes(SAMPLE.read_bytes()[44:])
    for raw in "16000:s16le:1", "16000:S16LE:1":
        assert run("--quiet", "--raw", raw, path).stdout == f"{SAMPLE_TEXT}\n"


def test_output_dir(scripted: Path, tmp_path: Path) -> None:
    """Nothing on stdout; nothing written over, without --force; what cannot be transcribed leaves no file."""
    folder = tmp_path / "new" / "out"
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    command = ["--quiet", "--model", scripted, "--output-dir", folder, "--format", "vtt"]
    result = run(*command, SAMPLE, tmp_path / "bad.wav")
    assert (result.returncode, result.stdout) == (1, "")
    assert [path.name for path in folder.iterdir()] == ["sample.vtt"]
    text = (folder / "sample.vtt").read_text()
    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:02.480\na b\n\n"
    (folder / "sample.vtt").write_text("mine")
    result = run(*command, SAMPLE)
    assert result.returncode == 2
    assert result.stderr == f"error: {folder / 'sample.vtt'} exists already: use another --output-dir, or --force\n"
    assert (folder / "sample.vtt").read_text() == "mine"
    assert run(*command, "--force", SAMPLE).returncode == 0
    assert (folder / "sample.vtt").read_text() == text


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.wav", "b"], ["a", "b"]),
        (["talks/my talk.2024.wav", ".wav", "dir/c.wav/"], ["my talk.2024", ".wav", "c"]),
        (["-", "~/stdout.wav"], ["stdin", "stdout"]),
    ],
)
def test_output_paths(files: list[str], names: list[str], tmp_path: Path) -> None:
    """By hand."""
    folder = tmp_path / "a" / "b"
    assert output_paths(files, folder, "srt", force=False) == [folder / f"{name}.srt" for name in names]
    assert folder.is_dir()


@posix
def test_what_a_killed_process_left_is_written_over(scripted: Path, tmp_path: Path) -> None:
    """An empty file; not a link, whatever it leads to, nor a pipe."""
    (tmp_path / "sample.txt").touch()
    assert run("-q", "-m", scripted, "-o", tmp_path, SAMPLE).returncode == 0
    assert (tmp_path / "sample.txt").read_text() == "a b\n"
    (tmp_path / "sample.txt").unlink()
    (tmp_path / "sample.txt").symlink_to("nowhere")
    assert run("-q", "-m", scripted, "-o", tmp_path, SAMPLE).returncode == 2
    (tmp_path / "sample.txt").unlink()
    os.mkfifo(tmp_path / "sample.txt")  # somebody else may read from it
    assert run("-q", "-m", scripted, "-o", tmp_path, SAMPLE).returncode == 2


@posix
def test_outputs_that_cannot_be_are_told_before_the_work(scripted: Path, tmp_path: Path) -> None:
    """Of names, the last letters go where the format's would be too many: 251 + 5 is one more than 255 bytes."""
    long = tmp_path / ("ä" * 125 + "b.wav")
    long.write_bytes(SAMPLE.read_bytes())
    assert run("-q", "-m", scripted, "-f", "json", "-o", tmp_path, long).returncode == 0
    assert [path.name for path in tmp_path.glob("*.json")] == ["ä" * 125 + ".json"]
    folder = tmp_path / "folder"
    folder.mkdir()
    removed = f"cd {shlex.quote(str(folder))} && rmdir {shlex.quote(str(folder))} && "
    for where, before in ("/proc/self", ""), ("out", removed):
        command = shlex.join([*COMMAND, "-m", "nowhere", "-o", where, str(SAMPLE)])
        result = subprocess.run(["bash", "-c", before + command], capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("error: --output-dir: ")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.wav", "a.mp3"),
        ("x/a.wav", "y/a.wav"),
        ("a.wav", "a.wav"),
        ("A.wav", "a.WAV"),
        ("straße", "STRASSE"),
        ("-", "stdin.wav"),
    ],
)
def test_recordings_that_would_share_a_file(first: str, second: str, tmp_path: Path) -> None:
    """Before the model is opened, which is not there."""
    result = run("--model", "nowhere", "--output-dir", tmp_path / "out", "--force", "b.wav", first, second)
    path = tmp_path / "out" / f"{Path(second).stem}.txt"
    expected = f"error: {first} and {second} would both be written to {path}: use an --output-dir for each\n"
    assert (result.returncode, result.stderr) == (2, expected)
    assert not (tmp_path / "out").exists()


def test_every_output_is_utf8_with_plain_line_ends(scripted: Path, tmp_path: Path) -> None:
    tokens = (scripted / "tokens.txt").read_text(encoding="utf-8").replace("▁a ", "▁größe ")
    (scripted / "tokens.txt").write_text(tokens, encoding="utf-8")
    run("--model", scripted, "--output-dir", tmp_path, SAMPLE, env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert (tmp_path / "sample.txt").read_bytes() == "größe b\n".encode()


def test_a_failure_in_the_middle_keeps_what_is_done(scripted: Path, tmp_path: Path) -> None:
    """Float WAV, NaN at 70 s: two chunks of 30 s of silence, and what is there of the third."""
    samples = np.zeros(100 * 16000, "<f4")
    samples[70 * 16000] = np.nan
    fmt = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes()
    path = tmp_path / "bad.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    command = ["--quiet", "--model", scripted, "--keep-silence"]
    result = run(*command, path)
    assert (result.returncode, result.stdout) == (1, "a b a b a b\n")
    assert result.stderr == f"error: {path}: NaN, infinity or a number beyond 1e15 at 70.000 s\n"
    result = run(*command, "--format", "json", "--output-dir", tmp_path, path)
    record = json.loads((tmp_path / "bad.json").read_text())
    assert (record["complete"], record["text"], record["duration"]) == (False, "a b a b a b", 70)
    assert result.stderr.endswith(f"at 70.000 s\n{tmp_path / 'bad.json'} holds what was recognised before\n")


@posix
def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    """By construction: an hour of the sample recording with pauses, stopped after the first subtitles are written."""
    path = tmp_path / "long.wav"
    path.write_bytes(wav(np.tile(phrase(0, 16000), 1000)))
    command = [*COMMAND, "--quiet", "--format", "srt", "--output-dir", str(tmp_path), str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: (tmp_path / "long.srt").exists() and (tmp_path / "long.srt").stat().st_size > 1000)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == f"{tmp_path / 'long.srt'} holds what was recognised before\ninterrupted\n"
    cues = (tmp_path / "long.srt").read_text().removesuffix("\n\n").split("\n\n")
    assert len(cues) > 10
    assert [cue.split("\n")[0] for cue in cues] == [str(i + 1) for i in range(len(cues))]
    assert {cue.split("\n", 2)[2] for cue in cues[:-1]} == {SAMPLE_TEXT}


@posix
def test_ctrl_c_finishes_the_json(tmp_path: Path) -> None:
    """By construction: an hour of the sample recording, stopped once the model is at work."""
    path = tmp_path / "long.wav"
    path.write_bytes(wav(np.tile(phrase(0, 16000), 1000)))
    command = [*COMMAND, "--verbose", "--format", "json", "--cut", "pauses", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while " tokens, " not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    record = json.loads(text)
    assert record["complete"] is False
    assert record["text"].startswith(SAMPLE_TEXT)
    assert record["duration"] < 3480


@dev_full
def test_a_disk_that_fills_up(scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "sample.txt").symlink_to("/dev/full")
    result = run("--quiet", "--model", scripted, "--output-dir", tmp_path, "--force", SAMPLE)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {SAMPLE}: [Errno 28] No space left on device\n"
        f"{tmp_path / 'sample.txt'} holds what was recognised before\n"
    )


@posix
def test_output_without_stdout(scripted: Path, tmp_path: Path) -> None:
    """Nothing is written there, so it may be closed."""
    command = shlex.join([*COMMAND, "--quiet", "--model", str(scripted), "--output-dir", str(tmp_path), str(SAMPLE)])
    assert subprocess.run(["bash", "-c", f"{command} >&-"]).returncode == 0
    assert (tmp_path / "sample.txt").read_text() == "a b\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "srt", SAMPLE], "srt of more than one file needs --output-dir"),
        (["--channel", "0", "--channels", "split"], "--channel asks for one channel, --channels split for all of them"),
        (["--cut", "chunks", "--min-pause", "1"], "--min-pause, --max-phrase and --threshold belong to --cut pauses"),
        (["--min-pause", "0"], "min_pause_s is 0"),
        (["--max-phrase", "100"], "max_phrase_s is 100"),
        (["--threshold", "-3"], "threshold_db is -3"),
        (["--raw", "16000:s16le"], "raw is '16000:s16le'; expected RATE:FORMAT:CHANNELS"),
        (["--output-dir", SAMPLE], "--output-dir: "),
        (["--start", "3", "--end", "2"], "from 3.0 to 2.0 is no stretch"),
        (["-", "-"], "standard input can be read only once"),
    ],
)
def test_options_that_contradict(scripted: Path, options: list[object], message: str) -> None:
    result = run("--model", scripted, *options, SAMPLE)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "message"), [("--start=1:x", "'1:x' is no time; expected seconds, MM:SS")])
def test_times_that_are_none(option: str, message: str) -> None:
    result = run(option, SAMPLE)
    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_a_recording_is_not_written_over(link, tmp_path: Path) -> None:
    """By whatever name; and before the model is opened, which is not there."""
    recording = tmp_path / ("b.txt" if link is None else "b.wav")
    recording.write_bytes(b"mine")
    if link:
        link(recording, tmp_path / "b.txt")
    result = run("--model", "nowhere", "--output-dir", tmp_path, "--force", "a.wav", recording)
    message = f"{tmp_path / 'b.txt'} is one of the recordings: use another --output-dir or --format"
    assert (result.returncode, result.stderr) == (2, f"error: {message}\n")
    assert recording.read_bytes() == b"mine"


@posix
def test_one_output_that_cannot_be_written(scripted: Path, tmp_path: Path) -> None:
    """A folder in its place is told before any work. A dangling link is one to a file that can be made, with --force,
    or not: the others are still written."""
    (tmp_path / "folder.json").mkdir()
    for name in ("folder.wav", "good.wav"):
        (tmp_path / name).write_bytes(SAMPLE.read_bytes())
    files = sorted(tmp_path.glob("*.wav"))
    command = ["--quiet", "--force", "--format", "json", "--model", scripted, "--output-dir", tmp_path, *files]
    result = run(*command)
    assert (result.returncode, result.stderr) == (
        2,
        f"error: {tmp_path / 'folder.json'} is a folder: use another --output-dir\n",
    )
    (tmp_path / "folder.json").rmdir()
    for leads_to, code in ("/nowhere/x", 1), ("new", 0):
        (tmp_path / "folder.json").unlink(missing_ok=True)
        (tmp_path / "folder.json").symlink_to(leads_to)
        assert run(*command).returncode == code
        assert json.loads((tmp_path / "good.json").read_text())["text"] == "a b"
    assert json.loads((tmp_path / "new").read_text())["text"] == "a b"


@dev_full
def test_stderr_that_cannot_be_written_to(scripted: Path) -> None:
    """The text does not depend on it."""
    with open("/dev/full", "w") as full:
        result = subprocess.run([*COMMAND, "--model", scripted, SAMPLE], stdout=subprocess.PIPE, stderr=full)
    assert (result.returncode, result.stdout) == (0, b"a b\n")


def test_pauses_for_a_pipe_are_for_the_pipe(tmp_path: Path) -> None:
    """By hand: 3 s of silence before the sample. Cut at pauses it is a segment of its own."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(phrase(48000, 0)))
    with open(path) as file:
        result = run("--quiet", "--format", "json", "-", path, stdin=file)
    piped, opened = map(json.loads, result.stdout.splitlines())
    assert [len(record["segments"]) for record in (piped, opened)] == [2, 1]


@pytest.mark.parametrize(
    ("options", "message"), [(["--start", "3"], "ends at 2.48 s"), (["--channel", "1"], "only channel 0")]
)
def test_what_one_recording_does_not_have(scripted: Path, options: list[str], message: str) -> None:
    """Another may: the next file is tried."""
    result = run("--quiet", "--model", scripted, *options, SAMPLE, SAMPLE)
    assert result.returncode == 1
    assert result.stderr.count("error: ") == result.stderr.count(message) == 2


def test_windows_leaves_patterns_to_the_program(scripted: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """By hand: two files match, one pattern matches nothing and is an error with its own name."""
    for name in ("b.wav", "a.wav", "c.txt"):
        (tmp_path / name).write_bytes(SAMPLE.read_bytes())
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.chdir(tmp_path)
    assert main(["--quiet", "--model", str(scripted), "--format", "json", "*.wav", "*.mp3"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["a.wav", "b.wav"]
    assert "'*.mp3'" in err
    (tmp_path / "a[1].wav").write_bytes(SAMPLE.read_bytes())
    (tmp_path / "a1.wav").write_bytes(SAMPLE.read_bytes())
    assert main(["--quiet", "--model", str(scripted), "--format", "json", "a[1].wav"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == "a[1].wav"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_name_that_is_no_utf8(scripted: Path, tmp_path: Path) -> None:
    """In JSON it stands as Python has it, escaped: a valid string, from which the name can be had again."""
    name = os.fsencode(tmp_path) + b"/\xff\xe9.wav"
    Path(os.fsdecode(name)).write_bytes(SAMPLE.read_bytes())
    command = [*COMMAND, "--quiet", "--model", scripted, "--format", "json", name]
    result = subprocess.run(command, capture_output=True, check=True)
    assert os.fsencode(json.loads(result.stdout)["file"]) == name
    assert subprocess.run([*command, "--output-dir", tmp_path], capture_output=True).returncode == 0
    written = Path(os.fsdecode(name)).with_suffix(".json").read_text(encoding="utf-8")
    assert os.fsencode(json.loads(written)["file"]) == name


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """In an empty home: neither a cache, as the model is small, nor onnxruntime's telemetry, which since 1.29 has a
    database there."""
    env = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")}
    result = run("--quiet", SAMPLE, env=env | {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"})
    assert (result.stdout, result.stderr) == (f"{SAMPLE_TEXT}\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_does_not_tick(scripted: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    assert main(["--model", str(scripted), "--format", "json", str(SAMPLE), "missing.wav"]) == 1
    assert json.loads(capsys.readouterr().out)["timing"] == {"seconds": 0.001, "speed": 2480.0}
