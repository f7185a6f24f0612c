"""The README's examples, run word for word: every ```console block's commands, and what they print.

A ```python block that begins with "# NAME.py" is written to that file first. The blocks share a folder, in which
sample.wav lies at first; `python` is the one that runs the tests; the hub is on this machine and holds the embedded
model. Times and speeds, and the last digits of log-probabilities, are not compared.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from test_transcribe import SAMPLE

pytestmark = [
    pytest.mark.reference,
    pytest.mark.folder,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg"),
]
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(console|python)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
VARYING = [
    (r"in \d+\.\d s, [\d.]+x real time", "in N s, Nx real time"),
    (r'"seconds": [\d.]+, "speed": [\d.]+', '"seconds": N, "speed": N'),
    (r'(logprob"?:?) -0\.\d+', r"\1 -0.N"),
    (r'"onnxruntime": "[\d.]+"', '"onnxruntime": N'),
]


def commands(block: str) -> list[tuple[str, str]]:
    """(command, what it prints), of a block in which commands begin with "$ "."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert parts[0] == ""
    found = []
    for part in parts[1:]:
        lines = part.splitlines(keepends=True)
        n = 1 + next(i for i, line in enumerate(lines) if not line.endswith("\\\n"))
        found.append(("".join(lines[:n]), "".join(lines[n:])))
    return found


def masked(text: str) -> str:
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text)
    return text


def test_examples(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    shutil.copy(SAMPLE, tmp_path)
    demo = {path.name: path.read_bytes() for path in SAMPLE.parent.iterdir() if path.suffix != ".wav"}
    with HubServer(demo) as hub:
        env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }
        n_run = 0
        for kind, block in BLOCKS:
            if kind == "python" and (name := re.match(r"# (\w+\.py)\n", block)):
                (tmp_path / name[1]).write_text(block)
            for command, expected in commands(block) if kind == "console" else []:
                result = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
                assert masked(result.stdout) == masked(expected), f"{command}{result.stderr}"
                assert result.returncode == 0, command
                n_run += 1
        assert n_run >= 15
