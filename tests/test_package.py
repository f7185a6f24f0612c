"""The promises of the package: two dependencies, installation by copying, and the rule of the house: a file at the top
is the runtime; a folder is optional, and the runtime works without it (contracts/ is the one folder that it needs)."""

import ast
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from conftest import CHECKOUT
from scripted import END, A, write_model
from test_transcribe import SAMPLE, SAMPLE_TEXT

import cohere_lite

pytestmark = pytest.mark.folder
PACKAGE = CHECKOUT / "cohere_lite"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
MAX_RUNTIME_LINES = 3530
THIRD_PARTY = {"numpy", "onnxruntime"}
NO_DEMO = shutil.ignore_patterns("demo", "__pycache__")

# IMA ADPCM at 8 kHz in blocks of 4 bytes, of one sample each.
FORMAT = struct.pack("<4sIHHIIHHHH", b"fmt ", 20, 0x11, 1, 8000, 32000, 4, 4, 2, 1)
ADPCM_WAV = struct.pack("<4sI4s", b"RIFF", 44, b"WAVE") + FORMAT + struct.pack("<4sI4x", b"data", 4)
# What the runtime alone cannot do, and the file that could.
LACKING = [
    ("Transcriber('owner/name')", "extras/hub.py"),
    ("Transcriber('model').transcribe(b'ID3' + bytes(1000))", "extras/convert.py"),
    (f"Transcriber('model').transcribe({ADPCM_WAV})", "extras/adpcm.py"),
    ("open_audio(b'', raw='8000:u8:1').__enter__()", "extras/raw.py"),
    ("Transcriber('model', providers=['cuda'])", "devices/providers.py"),
    ("Transcriber('model', self_check=True)", "devices/selfcheck.py"),
    ("Transcriber('model').recording(16000, language='auto')", "extras/detect.py"),
    ("Transcriber('model').transcribe(b'', word_times=True)", "extras/word_times.py"),
]


def run(code: str, cwd: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_subprocesses_run_this_checkout(tmp_path: Path) -> None:
    """From any folder, even with another copy installed, as a module and as the installed command does."""
    expected = f"{PACKAGE / '__init__.py'}\n"
    assert run("import cohere_lite; print(cohere_lite.__file__)", tmp_path) == expected
    code = "import runpy; print(runpy.run_module('cohere_lite', run_name='')['__file__'])"
    assert run(code, tmp_path) == f"{PACKAGE / '__main__.py'}\n"
    assert f"{cohere_lite.__file__}\n" == expected


def is_runtime(path: str) -> bool:
    folder = PurePosixPath(path).parent.as_posix()
    return folder in (".", "contracts")


def broken_rules(sources: dict[str, str]) -> list[str]:
    """Where the package breaks the rule of the house, as "path:line: what". sources: by path in the package."""
    found = []
    for path, source in sources.items():
        for node, in_function, guarded in imports(ast.parse(source)):
            for module in imported(path, node):
                if module.startswith("cohere_lite"):
                    what = "the package by its name: it must also work under another"
                elif not is_runtime(path) or is_allowed(path, module, sources, in_function and guarded):
                    continue
                elif module.startswith("."):
                    what = f"{module[1:]}, which is optional: only in a function, in a try that catches ImportError"
                else:
                    what = f"{module}, which is neither numpy, onnxruntime nor the standard library's"
                found.append(f"{path}:{node.lineno}: imports {what}")
    return found


def imports(node: ast.AST, in_function: bool = False, guarded: bool = False) -> Iterator[tuple]:
    """Every import, whether it stands in a function, and whether in a `try` that catches ImportError. One for type
    checkers alone counts as both: it is never run."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, in_function, guarded
    in_function |= isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for name, value in ast.iter_fields(node):
        catches = isinstance(node, ast.Try) and name == "body" and any(map(catches_import_error, node.handlers))
        unrun = isinstance(node, ast.If) and name == "body" and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from imports(child, in_function or unrun, guarded or catches or unrun)


def catches_import_error(handler: ast.ExceptHandler) -> bool:
    return handler.type is not None and "ImportError" in {getattr(n, "id", "") for n in ast.walk(handler.type)}


def imported(path: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """Names of modules; of the package's own ".", and their path: ".extras/hub"."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not node.level:
        return [str(node.module)]
    folder = PurePosixPath(path).parents[node.level - 1]
    return [f".{folder.joinpath(*(node.module or '').split('.'))}".replace("..", ".")]


def is_allowed(path: str, module: str, sources: dict[str, str], optional: bool) -> bool:
    """Whether the runtime may import it; `optional`: in a function, in a try."""
    if not module.startswith("."):
        return module.partition(".")[0] in THIRD_PARTY | sys.stdlib_module_names
    of_runtime = module in (".", ".contracts") or (is_runtime(f"{module[1:]}.py") and f"{module[1:]}.py" in sources)
    return of_runtime or optional or (path == "__main__.py" and module.startswith(".cli/"))  # is the command


def test_the_rule_of_the_house() -> None:
    assert broken_rules(SOURCES) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("audio.py", "import soundfile"),
        ("audio.py", "def f():\n    import soundfile"),
        ("contracts/fast.py", "from torch.nn import Module"),
        ("audio.py", "from .extras.hub import x"),
        ("audio.py", "from .extras import hub"),
        ("contracts/fast.py", "from ..extras.hub import x"),
        ("audio.py", "from .cli.run import x"),
        ("audio.py", "def f():\n    from .extras.hub import x"),
        ("audio.py", "try:\n    from .extras.hub import x\nexcept ImportError:\n    x = None"),
        ("audio.py", "def f():\n    try:\n        from .extras.hub import x\n    except ValueError:\n        pass"),
        ("audio.py", "def f():\n    try:\n        pass\n    except ImportError:\n        from .extras.hub import x"),
        ("audio.py", "if TYPE_CHECKING:\n    import torch"),
        ("audio.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from .extras.hub import x"),
        ("audio.py", "from cohere_lite.wav import x"),
        ("extras/hub.py", "def f():\n    import cohere_lite"),
    ],
)
def test_what_breaks_the_rule(path: str, source: str) -> None:
    sources = {"__init__.py": "", "wav.py": "", "contracts/__init__.py": "", "extras/hub.py": "", path: source}
    assert [place.partition(": ")[0] for place in broken_rules(sources)] in (
        [f"{path}:{n}"] for n in range(1, source.count("\n") + 2)
    )


def test_what_keeps_the_rule() -> None:
    guarded = "def f():\n    try:\n        from {}extras.hub import x\n    except (OSError, ImportError):\n        pass"
    sources = {
        "__init__.py": "import os.path\nimport numpy as np\nfrom .wav import x\nfrom .contracts import x",
        "__main__.py": "from .cli.run import run",
        "wav.py": "from onnxruntime import OrtValue\n\n\n" + guarded.format("."),
        "mel.py": "if TYPE_CHECKING:\n    from .extras.hub import x",
        "contracts/__init__.py": "from .fast import x",
        "contracts/fast.py": "from ..wav import x\nfrom .. import x\n\n\n" + guarded.format(".."),
        "extras/hub.py": "import huggingface_hub\nfrom ..wav import x\nfrom ..cli.run import run",
    }
    assert broken_rules(sources) == []


def test_the_runtime_is_small() -> None:
    lines = {path: source.count("\n") for path, source in SOURCES.items() if is_runtime(path)}
    assert sum(lines.values()) <= MAX_RUNTIME_LINES, lines


def test_every_promised_name_exists() -> None:
    for name in cohere_lite.__all__:
        assert hasattr(cohere_lite, name), name


def test_every_public_function_and_class_has_a_docstring() -> None:
    undocumented = []
    for path, source in SOURCES.items():
        tree = ast.parse(source)
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        for node in (node for parent in (tree, *classes) for node in parent.body):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                undocumented += [] if ast.get_docstring(node) else [f"{path}:{node.lineno}: {node.name}"]
    assert undocumented == []


def test_importing_loads_nothing_but_numpy_and_onnxruntime(tmp_path: Path) -> None:
    """By formula: what a process loads for the package, less what it loads for numpy and onnxruntime, is the standard
    library's and our own."""
    shutil.copytree(PACKAGE, tmp_path / "cohere_lite")
    code = "import sys; {}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ours = set(run(code.format("from cohere_lite import *; import cohere_lite.__main__"), tmp_path).split())
    theirs = set(run(code.format("import numpy.random, onnxruntime"), tmp_path).split())
    assert ours - theirs - set(sys.stdlib_module_names) == {"cohere_lite"}


def vendored(tmp_path: Path) -> Path:
    """The folder of a package in another project, for a copy."""
    vendor = tmp_path / "app" / "vendor"
    vendor.mkdir(parents=True)
    (vendor.parent / "__init__.py").touch()
    (vendor / "__init__.py").touch()
    return vendor / "speech"


def test_vendored_copy(tmp_path: Path) -> None:
    """Copied into another project under another name, it imports and transcribes."""
    shutil.copytree(PACKAGE, vendored(tmp_path), ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import sys
from app.vendor.speech import Transcriber
assert "cohere_lite" not in sys.modules
from app.vendor.speech.model import DEMO_FOLDER
print(Transcriber().transcribe(DEMO_FOLDER / "sample.wav").text)
"""
    assert run(code, tmp_path).strip() == SAMPLE_TEXT


@pytest.mark.parametrize("missing", ["opening", "masked", "on_device", "side_by_side"])
def test_the_file_that_a_provider_lacks_is_named(missing: str, tmp_path: Path) -> None:
    """In a copy that has the others."""
    copy = shutil.copytree(PACKAGE, vendored(tmp_path), ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "devices" / f"{missing}.py").unlink()
    code = """
from app.vendor.speech import ProviderError, Transcriber
for options in {"providers": ["cuda"]}, {"self_check": True}:
    try:
        Transcriber(**options)
    except ProviderError as error:
        print(error)
"""
    assert f"app.vendor.speech.devices.{missing}'" in run(code, tmp_path)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a copy of the runtime alone, app/vendor/speech, and a model."""
    project = tmp_path_factory.mktemp("project")
    speech = vendored(project)
    for path, source in SOURCES.items():
        if is_runtime(path):
            (speech / path).parent.mkdir(parents=True, exist_ok=True)
            (speech / path).write_text(source, encoding="utf-8")
    shutil.copytree(PACKAGE / "demo", project / "model")
    return project


# Nothing but the runtime's two dependencies, with what they load, and the standard library can be imported.
ALONE = f"""
import sys
import numpy, onnxruntime
ALLOWED = {THIRD_PARTY} | set(sys.stdlib_module_names) | {{"app"}}

class Alone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Alone())
from app.vendor.speech import CohereLiteError, Transcriber, open_audio
"""


def test_the_runtime_alone_transcribes(runtime: Path) -> None:
    code = f"{ALONE}print(Transcriber('model').transcribe({str(SAMPLE)!r}).text)"
    assert run(code, runtime) == f"{SAMPLE_TEXT}\n"


@pytest.mark.parametrize(("call", "missing"), LACKING, ids=[missing for _, missing in LACKING])
def test_the_runtime_alone_says_what_it_lacks(runtime: Path, call: str, missing: str) -> None:
    said = run(f"{ALONE}try: {call}\nexcept CohereLiteError as error: print(error)", runtime)
    assert f"cohere_lite/{missing}, which is not in this copy" in said
    assert said.count("\n") == 1


def test_the_runtime_alone_reads_no_json_vocabulary(runtime: Path, tmp_path: Path) -> None:
    shutil.copytree(runtime / "model", tmp_path / "model")
    (tmp_path / "model" / "tokens.txt").rename(tmp_path / "model" / "vocab.json")
    call = f"try: Transcriber({str(tmp_path / 'model')!r})\nexcept CohereLiteError as error: print(error)"
    said = run(f"{ALONE}{call}", runtime)
    missing = "cohere_lite/extras/tokenizer.py, which is not in this copy"
    assert said == f"{tmp_path / 'model' / 'vocab.json'} needs {missing}\n"


@pytest.mark.parametrize(("rest", "told"), [("data", True), ("b'LIST' + bytes(4) + data", True), ("b'LIST'", False)])
def test_the_runtime_alone_tells_what_follows_a_recording(runtime: Path, rest: str, told: bool) -> None:
    """Another recording, behind a chunk, too; and a chunk."""
    code = f"{ALONE}data = open({str(SAMPLE)!r}, 'rb').read()\nt = Transcriber('model').transcribe(data + {rest})\n"
    missing = "another recording follows, which is left out: it needs cohere_lite/extras/chained.py, which is not in "
    warnings = (f"{missing}this copy",) if told else ()
    assert run(f"{code}print((t.text, t.complete, t.warnings))", runtime) == f"{(SAMPLE_TEXT, not told, warnings)}\n"


def test_the_runtime_alone_leaves_misfits_to_onnxruntime(runtime: Path, tmp_path: Path) -> None:
    """An encoder and a decoder of different widths: extras/misfits.py would say so."""
    folder = write_model(tmp_path / "model", [A, END], max_positions=16, decoder_width=3)
    call = f"Transcriber({str(folder)!r}).transcribe({str(SAMPLE)!r})"
    said = run(f"{ALONE}try: {call}\nexcept CohereLiteError as error: print(type(error).__name__, error)", runtime)
    assert re.match(r"ModelError onnxruntime \S+ failed to run decoder\.onnx: .* Got: 2 Expected: 3", said), said


def test_the_runtime_alone_has_names_that_need_more(runtime: Path) -> None:
    code = f"{ALONE}from app.vendor import speech\nprint(hasattr(speech, 'Pauses'))\n"
    code += "try: speech.Pauses\nexcept AttributeError as error: print(error)"
    assert run(code, runtime) == (
        "False\nPauses needs a file that is not in this copy: No module named 'app.vendor.speech.extras'\n"
    )


def test_the_runtime_alone_is_no_command(runtime: Path) -> None:
    command = [sys.executable, "-m", "app.vendor.speech", "any.wav"]
    result = subprocess.run(command, cwd=runtime, capture_output=True, text=True)
    expected = "error: this copy lacks what the command needs: No module named 'app.vendor.speech.cli'\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


def test_the_runtime_alone_asks_the_model_about_silence(runtime: Path) -> None:
    """As the reference does."""
    code = f"{ALONE}import numpy as np\nt = Transcriber('model').transcribe(np.zeros(16000), rate=16000)\n"
    assert run(f"{code}print(t.segments[0].silent, repr(t.text))", runtime) == "False ''\n"


def test_the_runtime_alone_makes_no_prepared_copies(runtime: Path, tmp_path: Path) -> None:
    """Not even where the caller names a folder for them: they only make the next start quicker."""
    code = f"{ALONE}print(Transcriber('model', cache={str(tmp_path / 'cache')!r}).transcribe({str(SAMPLE)!r}).text)"
    assert run(code, runtime) == f"{SAMPLE_TEXT}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_copy_without_the_demonstration_model(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "cohere_lite", ignore=NO_DEMO)
    command = [sys.executable, "-m", "cohere_lite", "any.wav"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "error: this copy of the package comes without the demonstration model: name a model folder\n"
    )


def test_onnxruntime_is_imported_in_one_place() -> None:
    """Else its telemetry would be on (session.py)."""
    places = [path for path, source in SOURCES.items() if re.search(r"(import|from) onnxruntime", source)]
    assert places == ["session.py"]


def test_the_export_without_devices(tmp_path: Path) -> None:
    """Of a checkpoint it needs none of it; what needs a part of the package that is left out is not told to pip."""
    pytest.importorskip("safetensors")
    copy = shutil.copytree(PACKAGE, vendored(tmp_path), ignore=shutil.ignore_patterns("__pycache__", "devices"))
    assert not (copy / "devices").exists()
    code = """
import sys
from app.vendor.speech.export.__main__ import main
print(main(["CHECKPOINT", "ordinary"]), main(["CHECKPOINT", "standard", "--contract", "static", "--precision", "fp32"]))
sys.stderr = sys.stdout
print(main(["CHECKPOINT", "masked", "--precision", "fp32", "--operators", "standard"]))
print(main(["standard", "converted", "--precision", "fp32", "--operators", "standard"]))
""".replace("CHECKPOINT", str(CHECKOUT / "tools" / "demo" / "checkpoint"))
    assert run(code, tmp_path).splitlines() == [
        "0 0",
        "0",
        "error: No module named 'app.vendor.speech.devices'; it is not in this copy",
        "1",
    ]
