"""The suite runs against the package; with COHERE_LITE_ONE_FILE=PATH against the file that tools/amalgamate made of it.

Then every module that it holds is that file, the others (export/) are the checkout's and import from it, and tests of
the package as a folder are skipped (marker `folder`).
"""

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tools.amalgamate import module_paths

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
    folder = str(CHECKOUT / "cohere_lite")
    spec = importlib.util.spec_from_file_location("cohere_lite", ONE_FILE, submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cohere_lite"] = module
    spec.loader.exec_module(module)
    for path in module_paths():
        parts = Path(path.removesuffix("/__init__.py")).with_suffix("").parts
        sys.modules[".".join(["cohere_lite", *parts])] = module
        # `from cohere_lite.extras import hub` looks here: the module that it is given for extras is named cohere_lite.
        sys.modules[f"cohere_lite.{parts[-1]}"] = module


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
