"""tools/serve: the unit and the image name a command that there is."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cohere_lite.serve.__main__ import _parser

TOOLS = Path(__file__).parents[1] / "tools/serve"
pytestmark = pytest.mark.folder


def options(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[1:3] == ["-m", "cohere_lite.serve"]
    return words[3:]


def test_the_unit_starts_what_there_is() -> None:
    text = (TOOLS / "cohere-lite.service").read_text(encoding="utf-8")
    (command,) = [line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart=")]
    assert _parser().parse_args(options(command)).host == "127.0.0.1"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    """With a program that exists in place of the one that would be installed."""
    text = (TOOLS / "cohere-lite.service").read_text(encoding="utf-8")
    unit = tmp_path / "cohere-lite.service"
    unit.write_text(text.replace("/opt/cohere-lite/bin/python", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_image_starts_what_there_is() -> None:
    lines = (TOOLS / "Dockerfile").read_text(encoding="utf-8").splitlines()
    entry, arguments = (
        next(line.partition("[")[2].rstrip("]") for line in lines if line.startswith(word)) for word in ("ENTRY", "CMD")
    )
    command = " ".join([*shlex.split(entry.replace(",", " ")), *shlex.split(arguments.replace(",", " "))])
    args = _parser().parse_args(options(command))
    assert (args.host, args.port, args.model) == ("0.0.0.0", 8000, "/model")
