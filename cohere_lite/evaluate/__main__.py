"""Word and character error rates, speed and size of models over data sets.

python -m cohere_lite.evaluate MODEL [MODEL ...] --data DATA [DATA ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..extras.languages import language_code

if TYPE_CHECKING:
    from .run import Plan
    from .utterances import Data

_EPILOG = """\
models:
  FOLDER, FOLDER:PRECISION      as --model of the command takes them
  OWNER/NAME, OWNER/NAME:q4     on the Hugging Face hub
  reference:FOLDER              the official checkpoint, through transformers;
                                in how many utterances each model has its tokens
  The first one is what the others are compared with.

noise: a list of white:DB, pink:DB, babble:DB (other utterances of the data set,
  talking at once), so many decibels below the speech; room:SECONDS (until an
  echo is gone); telephone. Each is a run of its own, beside the clean one.

word times: where they are noted, the errors of the models' are measured, and speed
  without that work: in CTM files (NAME CHANNEL START DURATION WORD [CONFIDENCE];
  NAME is an utterance's id, or a recording's), or in Praat's TextGrids beside the
  recordings, in the tier "words", or in the only one of intervals.

what comes out, in the folder --out:
  run.jsonl         a line for each utterance and model, as soon as it is there.
                    A run that was interrupted, or killed, goes on from it; so
                    does one with more data, models, noise or samples. What
                    failed is tried again, and so is a recording whose file has
                    changed since
  utterances.jsonl  the same, with the texts compared, word by word
  table.md          what is printed at the end
  figures.json      all figures
  report.html       with plots, and with the worst utterances to listen to

exit code: 0; 1 if models or data cannot be used, or no recording can be read;
2 if an option is wrong; 130 after Ctrl-C
"""


def main(argv: list[str] | None = None) -> int:
    """The command: 0, or 1 and one line on stderr that says what is wrong."""
    args = _parse(argv)
    try:
        from ..errors import CohereLiteError

        return _evaluate(args)
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # in the middle of a module in C
            return _interrupted()
        package = (__package__ or "").rpartition(".")[0]
        is_ours = (error.name or "").startswith(f"{package}.")
        needed = "it is not in this copy" if is_ours else "the evaluation needs: pip install 'cohere-lite[evaluate]'"
        print(f"error: {error}; {needed}", file=sys.stderr)
        return 1
    except (CohereLiteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    print("interrupted; the same command goes on from here", file=sys.stderr)
    return 130


def _parse(argv: list[str] | None) -> argparse.Namespace:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(
        prog="python -m cohere_lite.evaluate",
        description=about,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="folder, name on the hub, reference:FOLDER; see below")
    add("--data", nargs="+", required=True, metavar="DATA", help="folder, file or name on the hub")
    add("--samples", type=_count, default=30, metavar="N", help="utterances drawn of each, or 'all' (default: 30)")
    add("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    add(
        "-l",
        "--language",
        type=language_code,
        metavar="CODE",
        help="of data that does not say its own; of several, the one to take (default: en)",
    )
    add("--noise", default="", metavar="LIST", help="as white:10,babble:5; see below")
    add("--no-punctuation", action="store_true", help="ask the models for text without it, as the leaderboard does")
    add("--provider", default="cpu", metavar="NAME", help="what runs the models (default: cpu)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: the cores available)")
    add("-o", "--out", type=Path, default=Path("evaluation"), metavar="FOLDER", help="(default: evaluation)")
    return parser.parse_args(argv)


def _count(text: str) -> int | None:
    """None for "all"."""
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number of utterances nor 'all'")


def _evaluate(args: argparse.Namespace) -> int:
    from ..extras.prepared import alone_in
    from .errors import EvaluateError
    from .models import find_models
    from .noise import parse_conditions
    from .run import Plan

    conditions = parse_conditions(args.noise)
    models = find_models(args.models, args.provider, args.threads, not args.no_punctuation)
    plan = Plan(_open_all(args), conditions, models)
    _check(plan)
    if args.out.is_file():
        raise EvaluateError(f"--out {args.out} is a file: name a folder")
    args.out.mkdir(parents=True, exist_ok=True)
    with alone_in(args.out) as is_alone:
        if not is_alone:  # each would do what the other has done, and cut off what it is writing
            raise EvaluateError(f"another evaluation is at work in {args.out}: wait for it, or use another --out")
        return _work(args, plan)


def _work(args: argparse.Namespace, plan: Plan) -> int:
    from .figures import make_figures
    from .layouts.places import EVALUATED
    from .report import write_report
    from .run import open_state, run
    from .table import markdown
    from .tally import tally

    state = open_state(args.out / EVALUATED, plan.models)
    run(plan, state)
    tallies, peaks_mb = tally(plan, state.path, args.out / "utterances.jsonl")
    settings = {"seed": args.seed, "samples": args.samples, "punctuation": not args.no_punctuation}
    figures = make_figures(plan, state, tallies, peaks_mb, settings)
    table = markdown(figures)
    for name, text in (("table.md", table), ("figures.json", figures.as_json())):
        (args.out / name).write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    print(table)
    write_report(args.out / "report.html", plan, figures, args.out / "utterances.jsonl")
    return 0 if figures.rates else 1  # nothing could be read


def _open_all(args: argparse.Namespace) -> list[Data]:
    """The data sets, each by a name of its own."""
    from .errors import EvaluateError
    from .models import distinct_ends
    from .utterances import open_data

    if twice := {spec for spec in args.data if args.data.count(spec) > 1}:
        raise EvaluateError(f"{twice.pop()} is named twice")
    found = [open_data(spec, count=args.samples, seed=args.seed, language=args.language) for spec in args.data]
    if len({data.name for data in found}) < len(found):
        return [replace(data, name=name) for data, name in zip(found, distinct_ends(args.data), strict=True)]
    return found


def _check(plan: Plan) -> None:
    """Raises EvaluateError for what the work would stumble upon."""
    from .errors import EvaluateError

    for model in plan.models:
        for data in plan.data:
            if unknown := {utterance.language for utterance in data.utterances} - {*model.languages}:
                asked = f"{data.name} is in {', '.join(sorted(unknown))}"
                raise EvaluateError(
                    f"{asked}; {model.name} knows {', '.join(model.languages)} "
                    "(--language: of data that does not say its own)"
                )
    is_babble = any(condition.kind == "babble" for condition in plan.conditions)
    if alone := [data.name for data in plan.data if is_babble and len(data.utterances) < 2]:
        raise EvaluateError(f"babble is made of other utterances, and {alone[0]} has one alone: draw more --samples")


def _run() -> None:
    """The process's own entry."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # a C locale must not lose text
    code = main()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Threads of a data set that is read over the network may keep Python from ending (datasets 5.2, streamed parquet).
    os._exit(code)


if __name__ == "__main__":
    _run()
