"""The suite runs against the package; with COHERE_LITE_ONE_FILE=PATH against the file that tools/amalgamate made of it.

Then every module of the package is that file, and tests of the package as a folder are skipped (marker `folder`).
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ONE_FILE = os.environ.get("COHERE_LITE_ONE_FILE")
COMMAND = [sys.executable, ONE_FILE] if ONE_FILE else [sys.executable, "-m", "cohere_lite"]

# What a test starts in another folder is this checkout, too, and not a copy that happens to be installed.
CHECKOUT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = str(CHECKOUT)
os.environ.pop("PYTHONUNBUFFERED", None)  # or a text that is not flushed would not show
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests may import onnxruntime before the package does

if ONE_FILE:
    spec = importlib.util.spec_from_file_location("cohere_lite", ONE_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cohere_lite"] = module
    spec.loader.exec_module(module)
    for path in (CHECKOUT / "cohere_lite").rglob("*.py"):
        name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        sys.modules[name.removesuffix(".__init__")] = module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ONE_FILE and item.get_closest_marker("folder"):
            item.add_marker(pytest.mark.skip(reason="of the package as a folder"))


def until(condition: Callable[[], bool]) -> None:
    """Waits; fails the test after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
