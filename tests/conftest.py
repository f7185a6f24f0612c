"""The suite runs against the package; with COHERE_LITE_ONE_FILE=PATH against the file that tools/amalgamate made of it.

Then `import cohere_lite` gives that file (one_file/sitecustomize.py), and tests of the package as a folder are skipped
(marker `folder`).
"""

import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ONE_FILE = os.environ.get("COHERE_LITE_ONE_FILE")
COMMAND = [sys.executable, ONE_FILE] if ONE_FILE else [sys.executable, "-m", "cohere_lite"]

# What a test starts in another folder is this checkout, too, and not a copy that happens to be installed.
CHECKOUT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = str(CHECKOUT)
os.environ.pop("PYTHONUNBUFFERED", None)  # or a text that is not flushed would not show
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests may import onnxruntime before the package does

settings.register_profile("any machine", deadline=None)  # under load an example may take a while
settings.load_profile("any machine")

if ONE_FILE:
    hook = Path(__file__).parent / "one_file"
    os.environ["PYTHONPATH"] = f"{hook}{os.pathsep}{CHECKOUT}"
    runpy.run_path(str(hook / "sitecustomize.py"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ONE_FILE and item.get_closest_marker("folder"):
            item.add_marker(pytest.mark.skip(reason="of the package as a folder"))


@pytest.fixture(scope="module")
def sigint() -> Iterator[None]:
    """Ctrl-C as Python has it, here and in child processes, though the suite was started with SIGINT ignored (&)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def until(condition: Callable[[], bool]) -> None:
    """Waits; fails the test after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
