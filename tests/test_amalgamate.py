"""The package as one file: that it runs however it is started, and what cannot become one file. (.ci/run runs the whole
suite against it.)"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT
from test_package import LACKING
from test_transcribe import SAMPLE, SAMPLE_TEXT

from tools.amalgamate import amalgamate, main, module_paths

pytestmark = pytest.mark.folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With extras and command, and the demonstration model."""
    folder = tmp_path_factory.mktemp("one") / "new"
    assert main([str(folder), "--demo"]) == 0
    return folder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """The runtime alone, with a model beside it."""
    runtime = tmp_path_factory.mktemp("runtime")
    assert main([str(runtime), "--runtime"]) == 0
    shutil.copytree(folder / "demo", runtime / "model")
    return runtime


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    """Without the checkout on the path: what runs is the file in `cwd`, or in a folder of it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("how", [["cohere_lite.py"], ["-m", "cohere_lite"]])
def test_runs(folder: Path, how: list[str]) -> None:
    result = run(*how, "--quiet", SAMPLE, cwd=folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{SAMPLE_TEXT}\n", "")


@pytest.mark.parametrize("form", ["folder", "runtime"])
def test_imports_numpy_and_onnxruntime_only(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a folder of its own, under another name, as a module that was vendored."""
    made = request.getfixturevalue(form)
    vendor = tmp_path / "app" / "_vendor"
    vendor.mkdir(parents=True)
    shutil.copy(made / "cohere_lite.py", vendor / "speech.py")
    code = """
import sys
from app._vendor import speech
model, audio = sys.argv[1:]
print(speech.Transcriber(model).transcribe(audio).text, {"cohere_lite", "onnx", "torch"} & set(sys.modules))
"""
    model = made / ("demo" if form == "folder" else "model")
    assert run("-c", code, model, SAMPLE, cwd=tmp_path).stdout == f"{SAMPLE_TEXT} set()\n"


def test_without_the_demonstration_model(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "cohere_lite.py", tmp_path)
    result = run("cohere_lite.py", SAMPLE, cwd=tmp_path)
    assert result.returncode == 1
    assert "comes without the demonstration model" in result.stderr
    shutil.copytree(folder / "demo", tmp_path / "model")
    assert run("cohere_lite.py", "--model", "model", SAMPLE, cwd=tmp_path).stdout == f"{SAMPLE_TEXT}\n"


@pytest.mark.parametrize(("call", "missing"), LACKING, ids=[missing for _, missing in LACKING])
def test_the_runtime_alone_says_what_it_lacks(runtime: Path, call: str, missing: str) -> None:
    code = f"""
from cohere_lite import CohereLiteError, Transcriber, open_audio
try:
    {call}
except CohereLiteError as error:
    print(error)
"""
    result = run("-c", code, cwd=runtime)
    assert f"cohere_lite/{missing}, which is not in this copy" in result.stdout, result.stderr


@pytest.mark.parametrize("how", [["cohere_lite.py"], ["-m", "cohere_lite"]])
def test_the_runtime_alone_says_that_it_is_no_command(runtime: Path, how: list[str]) -> None:
    result = run(*how, SAMPLE, cwd=runtime)
    expected = "error: this copy lacks what the command needs: cohere_lite/cli/run.py is not in this file\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


def test_it_says_everything_the_package_says(folder: Path) -> None:
    """By construction: every line of the package but imports and docstrings at the top of files, in one place."""
    text = (folder / "cohere_lite.py").read_text(encoding="utf-8")
    for path in module_paths():
        source = (CHECKOUT / "cohere_lite" / path).read_text(encoding="utf-8")
        gone = {n for node in ast.walk(ast.parse(source)) if is_dropped(node) for n in lines_of(node)}
        for n, line in enumerate(source.splitlines(), 1):
            if n not in gone and line.startswith((" ", "class ", "def ", "@", "#")):
                assert f"\n{line}\n" in text or f"\n# {line}\n" in text, f"{path}: {line}"
    assert text.count("from dataclasses import") == 1
    assert text.index("ORT_DISABLE_TELEMETRY") < text.index("import onnxruntime") == text.rindex("import onnxruntime")


def is_dropped(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")


def lines_of(node: ast.AST) -> range:
    return range(node.lineno, node.end_lineno + 1)  # type: ignore[attr-defined]


LAZY = "if TYPE_CHECKING:\n    from .b import one\nelse:\n    def __getattr__(name): ...\n"


def test_one_file_by_hand() -> None:
    sources = {
        "__init__.py": '"""Doc."""\n\nfrom .b import two\n\n__version__ = "1"\n\n' + LAZY,
        "a.py": '"""First."""\nimport os\n\nos.x = 1\n\nimport sys\n\n\ndef one():\n    """1"""\n    return os.sep\n',
        "b.py": '"""Second,\n\nlong."""\nfrom os import path\n\nfrom .a import one\n\n# two\ntwo = one() + path.sep\n',
        "rooms/__init__.py": "",
        "rooms/c.py": "from .. import __version__\nfrom ..b import (\n    two,\n)\n\nthree = two + __version__\n",
        "__main__.py": '"""Run."""\nfrom .rooms.c import three\n\nprint(three)\n',
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
            '    """1"""',
            "    return os.sep",
            "",
            "",
        ),
        *("# ---- b.py", "# Second,", "#", "# long.", "", "", "# two", "two = one() + path.sep", "", ""),
        *("# ---- rooms/c.py", "", "", "three = two + __version__", "", ""),
        *("# ---- __main__.py", "# Run.", "", "", "print(three)", ""),
    ]


INNER = """
if TYPE_CHECKING:
    from .extras.typed import Typed
    import torch


def inner():
    from .rooms.here import here

    try:
        from .rooms.here import here
    except ImportError:
        raise
    try:
        from .extras.gone import (
            gone,
        )
    except ImportError as error:
        return str(error)
    return here
"""


def test_imports_inside_functions() -> None:
    """Of a module that is there, it is dropped; of one that is left out, it fails as it would in a folder."""
    sources = {"__init__.py": '"""Doc."""', "a.py": INNER, "rooms/here.py": "here = 1", "__main__.py": ""}
    text = amalgamate(sources)
    assert text.partition("# ---- a.py\n\n\n")[2].split("\n\n\n# ")[0].split("\n") == [
        "def inner():",
        "    try:",
        "        pass",
        "    except ImportError:",
        "        raise",
        "    try:",
        '        raise ImportError("cohere_lite/extras/gone.py is not in this file")',
        "    except ImportError as error:",
        "        return str(error)",
        "    return here",
    ]
    names: dict = {}
    exec(text, names)
    assert names["inner"]() == "cohere_lite/extras/gone.py is not in this file"
    with_it = amalgamate(sources | {"extras/gone.py": "gone = 2"})
    exec(with_it, names)
    assert names["inner"]() == 1


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("x = 1", "def x(): ...", r"x is defined in a\.py and defined in rooms/b\.py"),
        ("if True:\n    x = 1", "", r"a\.py, line 1: a statement at the top that may define names"),
        ("if TYPE_CHECKING: x = 1\nelse: x = 2", "", r"a\.py, line 1: a statement at the top that may define names"),
        ("import time", "from time import time", r"time is import time and from time import time"),
        ("import json", "json = 1", r"json is import json and defined in rooms/b\.py"),
        ("", "from ..a import x as y", r"rooms/b\.py, line 1: a relative import that renames x"),
        ("", "def f():\n    from ..a import x as y", r"rooms/b\.py, line 2: a relative import that renames x"),
        ("from .rooms import b", "", r"a\.py, line 1: imports the module b, not names of it"),
        ("from .extras.hub import x", "", r"a\.py, line 1: needs extras/hub\.py, which is left out"),
        ("from .rooms.b import x", "from ..a import y\nx = 1", "cycle"),
        ("def f():\n    from .rooms.b import x\n    x = 1", "", r"a\.py, line 1: imports and assigns x"),
    ],
)
def test_what_cannot_share_a_file(a: str, b: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        amalgamate({"__init__.py": '"""Doc."""', "a.py": a, "rooms/b.py": b, "__main__.py": ""})
