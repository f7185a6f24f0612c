"""Word and character error rates, speed and size of models over data sets.

    python -m cohere_lite.evaluate MODEL [MODEL ...] --data DATA [DATA ...]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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

what comes out, in the folder --out:
  run.jsonl         a line for each utterance and model, as soon as it is there.
                    A run that was interrupted, or killed, goes on from it; so
                    does one with more data, models, noise or samples
  utterances.jsonl  the same, with the texts compared, word by word
  table.md          what is printed at the end
  figures.json      all figures
  report.html       with plots, and with the worst utterances to listen to

exit code: 0; 1 if models or data cannot be used; 2 if an option is wrong;
130 after Ctrl-C
"""


def main(argv: list[str] | None = None) -> int:
    """The command: 0, or 1 and one line on stderr that says what is wrong."""
    args = _parse(argv)
    try:
        from ..errors import CohereLiteError
        from .run import run
        from .report import write_report
    except ImportError as error:
        print(f"error: {error}; the evaluation needs: pip install 'cohere-lite[evaluate]'", file=sys.stderr)
        return 1
    try:
        return _evaluate(args)
    except (CohereLiteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
