"""Fuzz a reader of untrusted bytes, guided by coverage, until something other than an answer or our error comes out.

    python -m tools.fuzz wav|graphfile|tokens [--runs N] [--seconds S] [--seed N]
    python -m tools.fuzz wav|graphfile|tokens FILE

Needs   the extra `test`, and atheris (in the group `dev`; wheels: Linux on x86-64, Python 3.11 and later)
Writes  a failing input to fuzz-TARGET-crash-... (timeout-..., oom-...) in the current folder, and prints its path. The
        second form tries such a file again, without atheris
Exits   with 0 if nothing was found
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import targets

MOST_BYTES = 1 << 13  # of an input: longer ones are slower and find nothing else
SLOW_S = 20  # what takes longer for so few bytes is a finding
# Two targets read a file: in memory that takes a tenth of the time.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=targets.TARGETS)
    parser.add_argument("file", nargs="?", type=Path, help="try this input alone")
    parser.add_argument("--runs", type=int, default=-1, help="inputs to try (default: no limit)")
    parser.add_argument("--seconds", type=int, default=0, help="time to take (default: no limit)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: by the clock)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        if args.file:
            targets.check_memory(args.target, args.file.read_bytes(), Path(folder) / "input")
            return 0
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for i, seed in enumerate(targets.seeds(args.target)):
            (corpus / f"{i:03}").write_bytes(seed)
        options = [
            *(f"-runs={args.runs}", f"-max_total_time={args.seconds}", f"-seed={args.seed}", "-print_final_stats=1"),
            *(f"-max_len={MOST_BYTES}", f"-timeout={SLOW_S}", f"-artifact_prefix=fuzz-{args.target}-"),
        ]
        return subprocess.call([sys.executable, "-m", "tools.fuzz.engine", args.target, folder, *options])


if __name__ == "__main__":
    sys.exit(main())
