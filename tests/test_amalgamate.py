"""The package as one file: that it runs however it is started, and what cannot become one file. (.ci/run runs the whole
suite against it.)"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_transcribe import SAMPLE, SAMPLE_TEXT

from tools.amalgamate import amalgamate, main

pytestmark = pytest.mark.folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "new"
    assert main([str(folder), "--demo"]) == 0
    return folder


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("how", [["cohere_lite.py"], ["-m", "cohere_lite"]])
def test_runs(folder: Path, how: list[str]) -> None:
    result = run(*how, "--quiet", SAMPLE, cwd=folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{SAMPLE_TEXT}\n", "")


def test_imports_numpy_and_onnxruntime_only(folder: Path, tmp_path: Path) -> None:
    """In a folder of its own, under another name, as a module that was vendored."""
    vendor = tmp_path / "app" / "_vendor"
    vendor.mkdir(parents=True)
    shutil.copy(folder / "cohere_lite.py", vendor / "speech.py")
    shutil.copytree(folder / "demo", vendor / "demo")
    code = """
import sys
from app._vendor import speech
print(speech.Transcriber().transcribe(sys.argv[1]).text, {"cohere_lite", "onnx", "torch"} & set(sys.modules))
"""
    assert run("-c", code, SAMPLE, cwd=tmp_path).stdout == f"{SAMPLE_TEXT} set()\n"


def test_without_the_demonstration_model(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "cohere_lite.py", tmp_path)
    result = run("cohere_lite.py", SAMPLE, cwd=tmp_path)
    assert result.returncode == 1
    assert "comes without the demonstration model" in result.stderr
    shutil.copytree(folder / "demo", tmp_path / "model")
    assert run("cohere_lite.py", "--model", "model", SAMPLE, cwd=tmp_path).stdout == f"{SAMPLE_TEXT}\n"


def test_it_says_everything_the_package_says(folder: Path) -> None:
    """By construction: every line of the package but imports and docstrings at the top of files, in one place."""
    text = (folder / "cohere_lite.py").read_text(encoding="utf-8")
    for path in (Path(__file__).parents[1] / "cohere_lite").glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith((" ", "class ", "def ", "@", "#")):
                assert f"\n{line}\n" in text or f"\n# {line}\n" in text or line.startswith("    from "), line
    assert text.count("import numpy as np") == 1
    assert text.index("ORT_DISABLE_TELEMETRY") < text.index("import onnxruntime") == text.rindex("import onnxruntime")


def test_one_file_by_hand() -> None:
    sources = {
        "__init__": '"""Doc."""\n\nfrom .b import two\n\n__version__ = "1"\n',
        "a": '"""First."""\nimport os\n\nos.x = 1\n\nimport sys\n\n\ndef one():\n    """One."""\n    return os.sep\n',
        "b": '"""Second,\n\nlong."""\nfrom os import path\n\nfrom .a import one\n\n# two\ntwo = one() + path.sep\n',
        "__main__": '"""Run."""\nfrom . import __version__\nprint(__version__)\n',
    }
    assert amalgamate(sources).split("\n") == [
        *('"""Doc."""', ""),
        *("# Made by tools/amalgamate of cohere_lite (Apache-2.0): to change something, change the package.", ""),
        *("from __future__ import annotations", "", "import os", "from os import path", "", ""),
        *('__version__ = "1"', "", ""),
        *(
            "# ---- a.py",
            "# First.",
            "",
            "",
            "os.x = 1",
            "",
            "import sys",
            "",
            "",
            "def one():",
            '    """One."""',
            "    return os.sep",
            "",
            "",
        ),
        *("# ---- b.py", "# Second,", "#", "# long.", "", "", "# two", "two = one() + path.sep", "", ""),
        *("# ---- __main__.py", "# Run.", "", "", "print(__version__)", ""),
    ]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("x = 1", "def x(): ...", r"x is defined in a\.py and defined in b\.py"),
        ("if True:\n    x = 1", "", r"a\.py, line 1: a statement at the top that may define names"),
        ("import time", "from time import time", r"time is import time and from time import time"),
        ("import json", "json = 1", r"json is import json and defined in b\.py"),
        ("", "from .a import x as y", r"b\.py, line 1: a relative import that renames, or not at the top"),
        ("", "def f():\n    from .a import x", r"b\.py, line 2: a relative import that renames, or not at the top"),
    ],
)
def test_what_cannot_share_a_file(a: str, b: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        amalgamate({"__init__": '"""Doc."""', "a": a, "b": b, "__main__": ""})
