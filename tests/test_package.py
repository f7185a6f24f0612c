"""The promises of the package: two dependencies, and installation by copying."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_transcribe import SAMPLE_TEXT

import cohere_lite

pytestmark = pytest.mark.folder
PACKAGE = Path(cohere_lite.__file__).parent


def run(code: str, cwd: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_importing_loads_nothing_but_numpy_and_onnxruntime(tmp_path: Path) -> None:
    """By formula: what a process loads for the package, less what it loads for numpy and onnxruntime, is the standard
    library's and our own."""
    shutil.copytree(PACKAGE, tmp_path / "cohere_lite")
    code = "import sys, {}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ours = set(run(code.format("cohere_lite, cohere_lite.__main__"), tmp_path).split())
    theirs = set(run(code.format("numpy.random, onnxruntime"), tmp_path).split())
    assert ours - theirs - set(sys.stdlib_module_names) == {"cohere_lite"}


def test_vendored_copy(tmp_path: Path) -> None:
    """Copied into another project under another name, it imports and transcribes."""
    vendor = tmp_path / "app" / "_vendor"
    vendor.mkdir(parents=True)
    (vendor.parent / "__init__.py").touch()
    (vendor / "__init__.py").touch()
    shutil.copytree(PACKAGE, vendor / "speech", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import sys
from app._vendor.speech import Transcriber
assert "cohere_lite" not in sys.modules
from app._vendor.speech.model import DEMO_FOLDER
print(Transcriber().transcribe(DEMO_FOLDER / "sample.wav").text)
"""
    assert run(code, tmp_path).strip() == SAMPLE_TEXT


def test_a_copy_without_the_demonstration_model(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "cohere_lite", ignore=shutil.ignore_patterns("demo", "__pycache__"))
    command = [sys.executable, "-m", "cohere_lite", "any.wav"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "error: this copy of the package comes without the demonstration model: name a model folder\n"
    )


def test_onnxruntime_is_imported_in_one_place() -> None:
    """Else its telemetry would be on (runtime.py)."""
    places = [path.name for path in PACKAGE.glob("*.py") if re.search(r"(import|from) onnxruntime", path.read_text())]
    assert places == ["runtime.py"]
