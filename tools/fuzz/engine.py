"""Run by __main__, as a process of its own, since libFuzzer ends the process in which it runs.

python -m tools.fuzz.engine TARGET FOLDER [options of libFuzzer]      FOLDER/corpus holds the seeds
"""

import itertools
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["cohere_lite"]):
    import cohere_lite.extras.adpcm  # noqa: F401 - wav.py imports it when it is needed, which is too late

    from . import targets

if __name__ == "__main__":
    target, folder, *options = sys.argv[1:]
    checks = itertools.cycle([targets.check_memory] + [targets.check] * 9)  # measuring is slow
    atheris.Setup(
        [sys.argv[0], *options, f"{folder}/corpus"], lambda data: next(checks)(target, data, Path(folder) / "input")
    )
    atheris.Fuzz()
