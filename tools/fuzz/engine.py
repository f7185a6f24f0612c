"""Run by __main__, as a process of its own, since libFuzzer ends the process in which it runs.

python -m tools.fuzz.engine TARGET FOLDER [options of libFuzzer]      FOLDER/corpus holds the seeds
"""

import importlib
import itertools
import pkgutil
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["cohere_lite"]):
    import cohere_lite.extras

    for extra in pkgutil.iter_modules(cohere_lite.extras.__path__):  # when they are needed it is too late
        importlib.import_module(f"cohere_lite.extras.{extra.name}")
    from . import targets

if __name__ == "__main__":
    target, folder, *options = sys.argv[1:]
    checks = itertools.cycle([targets.check_memory] + [targets.check] * 9)  # measuring is slow
    atheris.Setup(
        [sys.argv[0], *options, f"{folder}/corpus"], lambda data: next(checks)(target, data, Path(folder) / "input")
    )
    atheris.Fuzz()
