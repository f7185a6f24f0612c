"""The documents: what the README's examples print, and that every document leads where it says.

Every ```console block's commands are run word for word. A ```python block that begins with "# NAME.py" is written to
that file first. The blocks share a folder, in which sample.wav lies at first; `python` is the one that runs the tests.
Times and speeds, and the last digits of log-probabilities, are not compared.
"""

import os
import pydoc
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CHECKOUT, COMMAND
from test_transcribe import SAMPLE, SAMPLE_TEXT

pytestmark = pytest.mark.folder
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(console|python|sh)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
VARYING = [
    (r'"seconds": [\d.]+, "speed": [\d.]+', '"seconds": N, "speed": N'),
    (r'"avg_logprob": -0\.\d+', '"avg_logprob": N'),
    (r'"onnxruntime": "[\d.]+"', '"onnxruntime": N'),
]
DOCUMENTS = ("README.md", "CHANGELOG.md", *(f".github/{path.name}" for path in (CHECKOUT / ".github").glob("*.md")))
EXTRAS, GROUPS = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8").split("\n[dependency-groups]\n")
SOURCES = [path for folder in ("cohere_lite", "tools") for path in (CHECKOUT / folder).rglob("*.py")]
OPTIONS = {option for path in SOURCES for option in re.findall(r'"(--[a-z-]+)"', path.read_text(encoding="utf-8"))}
OPTIONS |= {"--help", "--group", "--collect-data"}  # argparse's, pip's, PyInstaller's
OWNERS = "onnx-community|Masterx|tristanripke|gn64|cstr|csukuangfj2|eschmidbauer"  # of models on the hub
PLACEHOLDERS = re.compile(rf"\b(NAME|OWNER|FOLDER)\b|^talks/|^onnx/$|^({OWNERS})/")


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


@pytest.mark.reference
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_examples(tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    n_run = 0
    for kind, block in BLOCKS:
        if kind == "python" and (name := re.match(r"# (\w+\.py)\n", block)):
            (tmp_path / name[1]).write_text(block)
        for command, expected in commands(block) if kind == "console" else []:
            result = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
            )
            assert masked(result.stdout) == masked(expected), f"{command}{result.stderr}"
            assert result.returncode == 0, command
            n_run += 1
    assert n_run == README.count("\n$ ")


@pytest.mark.skipif(shutil.which("awk") is None, reason="needs the program awk")
def test_the_gate_runs_the_two_commands() -> None:
    """By reference: the text that .ci/run evaluates is what the README shows, and there is no third block of it."""
    gate = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    program = re.findall(r"""awk -v n="\$1" '(.+)' README\.md""", gate)[0]
    taken = [
        subprocess.run(["awk", "-v", f"n={n}", program, CHECKOUT / "README.md"], capture_output=True, text=True).stdout
        for n in (1, 2, 3)
    ]
    assert taken == [*(block for kind, block in BLOCKS if kind == "sh"), ""]
    assert re.findall(r'eval "\$\(readme_command (\d)\)"', gate) == ["1", "2"]
    assert taken[0].endswith(".venv/bin/python -m cohere_lite cohere_lite/demo/sample.wav\n")
    assert f"{taken[0]}```\n\n    {SAMPLE_TEXT}\n" in README
    assert taken[1].endswith(".venv/bin/python -m pytest -q\n")


def leads_nowhere(text: str, folder: Path) -> Iterator[str]:
    """What a document in this folder names in vain: links, headings, files, modules, options, extras, names."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    headings = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", text):
        there = target[1:] in headings if target.startswith("#") else (folder / target).exists()
        yield from [] if there else [target]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for word in " ".join(re.findall(r"`([^`\n]+)`", prose)).split():
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|[\w.-]+(/|\.py|\.md|\.toml)", word) and not PLACEHOLDERS.search(word):
            places = [root / f"{word}{end}" for root in (CHECKOUT, CHECKOUT / "cohere_lite") for end in ("", ".py")]
            yield from [] if any(place.exists() for place in places) else [word]
    yield from (name for name in re.findall(r"-m ((?:cohere_lite|tools)(?:\.\w+)*)", text) if not is_command(name))
    yield from (option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text) if option not in OPTIONS)
    extras = ",".join(re.findall(r"(?:cohere-lite|'\.)\[([\w,]+)\]", text))
    yield from (extra for extra in filter(None, extras.split(",")) if f"\n{extra} = [" not in EXTRAS)
    yield from (group for group in re.findall(r"--group (\w+)", text) if f"\n{group} = [" not in GROUPS)
    yield from (name for name in re.findall(r"pydoc (cohere_lite[\w.]*)", text) if pydoc.locate(name) is None)


def is_command(name: str) -> bool:
    """Whether `python -m` finds the module, or the package's __main__."""
    try:
        spec = find_spec(name)
        if spec and spec.submodule_search_locations:
            spec = find_spec(f"{name}.__main__")
        return spec is not None
    except ModuleNotFoundError:  # of a package around it
        return False


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_lead_where_they_say(name: str) -> None:
    path = CHECKOUT / name
    assert [*leads_nowhere(path.read_text(encoding="utf-8"), path.parent)] == []


def test_the_help_leads_where_it_says() -> None:
    help_text = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, encoding="utf-8").stdout
    assert [*leads_nowhere(help_text, CHECKOUT)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[x](nowhere.md)", "nowhere.md"),
        ("# A, b\n[x](#a-b) [x](#a)", "#a"),
        ("`tools/export`, `cli/run.py`", "tools/export"),
        ("`phrases.py`, `cut.py`", "phrases.py"),
        ("`telepathy/`, `contracts/`", "telepathy/"),
        ("python -m tools.export, python -m cohere_lite.export.", "tools.export"),
        ("python -m cohere_lite.contracts", "cohere_lite.contracts"),
        ("--layout fast --contract fast", "--layout"),
        ("pip install '.[test,reference]' --group dev", "reference"),
        ("pip install 'cohere-lite[hub,telepathy]'", "telepathy"),
        ("pip install . --group bench", "bench"),
        ("pydoc cohere_lite.Segment, pydoc cohere_lite.Piece", "cohere_lite.Piece"),
    ],
)
def test_what_leads_nowhere_is_found(text: str, found: str) -> None:
    assert [*leads_nowhere(text, CHECKOUT)] == [found]
