"""`python -m cohere_lite.batch`: the options. --help needs nothing but the standard library."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from pathlib import Path

from ..cli.options import _named
from ..errors import CohereLiteError, OptionError
from ..extras.languages import language_code

_EPILOG = """\
recordings:
  FILE             any kind that python -m cohere_lite reads
  FOLDER           all recordings in it and in its folders, also behind links
  LIST.txt         a path in a line
  TABLE.parquet    a column of paths (path, file or audio); if it has them, id
                   (default: the path) and language (default: --language)
  'PATTERN'        with * and **, of any of these; of lists, if it ends in .txt
  Paths begin in the folder of the list that holds them. Each recording is done
  once, however often it is named; in two languages it needs two ids.

what comes out, in the folder --out:
  transcripts.jsonl    an object in a line per recording, of short ones a group
                       at a time, in no order: id, error, what --format json of the
                       command has. `error` is null, or what kept the recording
                       from being transcribed to its end. A run that was
                       interrupted, or killed, goes on from this file; the same
                       command also tries again what failed, whose old line
                       stays until there is another
  transcripts.parquet  --format parquet: the same as a table, at the end
  summary.json         how many, how long, how fast

clusters: every node needs this package, and the recordings and the model under
  the same paths. Start it on a node of the cluster; what it writes stays there.
  The prepared copy of the model is made once on each node.

exit code: 0; 1 if a recording failed, or the model or the cluster cannot be
used; 2 if an option is wrong; 130 after Ctrl-C, 143 after SIGTERM
"""


def main(argv: list[str] | None = None) -> int:
    """The command: its exit code, and on stderr one line for what is wrong."""
    args = _parser().parse_args(argv)
    # Read when Ray is imported: nothing is reported to its makers; and what its C++ code writes to stderr, of actors'
    # arguments and of nodes that die, is for its developers; errors come as exceptions.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    received: list[int] = [signal.SIGINT]

    def terminate(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        return _run(args)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + received[-1]
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: argparse.Namespace) -> int:
    """The exit code; errors are told."""
    try:
        from ray.exceptions import RayError

        from .run import Plan, run
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # in the middle of a module in C
            raise error.__cause__ from None
        print(f"error: {error}; this needs: pip install 'cohere-lite[ray]'", file=sys.stderr)
        return 2
    model = os.path.abspath(args.model) if args.model and os.path.isdir(args.model) else args.model
    settings = {"model": model, "precision": args.precision, "language": args.language}
    settings |= {"punctuation": not args.no_punctuation}
    as_table = args.format == "parquet"
    plan = Plan(args.recordings, args.out, as_table, settings, args.address, args.actors, args.threads, args.tries)
    try:
        return int(run(plan).failed > 0)
    except (CohereLiteError, OSError, RayError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        # Ray's are tracebacks, whose last line says what went wrong
        print(f"error: {lines[-1 if isinstance(error, RayError) else 0]}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cohere_lite.batch",
        description="Transcribe many recordings on this machine, or on a Ray cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recordings", nargs="+", metavar="RECORDINGS", help="file, folder, list, table or pattern; see below")
    add("-o", "--out", type=Path, required=True, metavar="FOLDER", help="for the transcripts")
    add(
        "-f",
        "--format",
        choices=["jsonl", "parquet"],
        default="jsonl",
        help="parquet: beside the lines, too (default: jsonl)",
    )
    add(
        "-l",
        "--language",
        type=language_code,
        default="en",
        metavar="CODE",
        help="spoken; en,de or auto: found (default: en)",
    )
    add("--no-punctuation", action="store_true", help="without capitals and punctuation marks")
    add("-m", "--model", type=_named, metavar="FOLDER", help="as of python -m cohere_lite (default: a demonstration)")
    add("--precision", metavar="NAME", help="of several: int8, q4, fp16, ...")

    add = parser.add_argument_group("machines").add_argument
    add(
        "--address",
        type=_address,
        metavar="HOST:PORT",
        help="of a running cluster, or auto (default: none)",
    )
    add("--actors", type=_positive, metavar="N", help="models that work at once (default: CPUs / --threads)")
    add("--threads", type=_positive, default=1, metavar="N", help="CPUs of each (default: 1, for the most work done)")
    add("--tries", type=_positive, default=3, metavar="N", help="of a recording that kills its process (default: 3)")
    return parser


def _address(text: str) -> str:
    if not re.fullmatch(r"auto|[^/]+:\d{1,5}", text):  # ray:// is of Ray's clients, which have no Ray Data
        raise argparse.ArgumentTypeError(f"{text!r} is neither HOST:PORT nor auto")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
