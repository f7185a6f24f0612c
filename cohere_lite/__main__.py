"""The command line: text on stdout, everything else on stderr, an honest exit code.

0: every file was transcribed.  1: some file, or the model, was not usable, or some text could not be written.  2: wrong
arguments.  130: Ctrl-C.  141: whoever read the output is gone.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import time

from .errors import CohereLiteError, OptionError, logger
from .interrupt import CtrlC
from .job import report, transcribe_file, wav_stretch_s
from .options import check, destinations, parse_arguments, segment_options
from .progress import Progress
from .transcribe import Transcriber

DEMO_NOTICE = """\
This is the built-in demonstration model. It knows numbers up to 999, clock times, dates and simple commands
(lights, timers, music ...) in English, German, French and Spanish, one sentence at a time (for recordings of more:
--cut pauses), and nothing else.
For everything else use the full model: export it with tools/export (see the README), then --model FOLDER.
"""


def main(argv: list[str] | None = None) -> int:
    """Transcribe the files named in argv (default: the command's); the exit code."""
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a C locale or a Windows console must not lose text, nor a file name that is no UTF-8
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    args = parse_arguments(argv)
    if sys.stdout is None and not args.output_dir:  # print would drop the text without a word
        report("error: standard output is closed; there is nowhere to write the text")
        return 1
    level = logging.WARNING if args.quiet else logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(format="%(message)s")
    logger.setLevel(level)
    try:
        return _transcribe_files(args)
    except OptionError as error:
        report(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        report("interrupted")
        return 130
    except OSError as error:  # of stdout: those of files and models have been dealt with
        # what is still buffered would fail again when Python flushes at exit
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL):
            return 141
        report(f"error: {error}")
        return 1


def run() -> None:
    """The installed `cohere-lite` command."""
    sys.exit(main())


def _transcribe_files(args: argparse.Namespace) -> int:
    check(args)
    options = [segment_options(args, file) for file in args.files]
    paths = destinations(args)
    try:
        transcriber = _load(args)
    except OptionError:
        raise
    except (CohereLiteError, OSError) as error:
        report(f"error: {error}")
        return 1
    if args.model is None and not args.quiet:
        report(DEMO_NOTICE.removesuffix("\n"))
    shown = sys.stderr.isatty() and not args.quiet
    lengths_s = [wav_stretch_s(file, args.start, args.end) for file in args.files] if shown else []
    progress = Progress(args.files, lengths_s, shown)
    ctrl_c = CtrlC()
    with ctrl_c.handled():
        for file, path, how in zip(args.files, paths, options, strict=True):
            progress.n_begun += 1
            progress.n_failed += not transcribe_file(transcriber, file, path, how, args, progress, ctrl_c)
            if ctrl_c.pressed:
                break
        if not args.quiet:
            report(progress.summary())
        if ctrl_c.pressed:
            raise KeyboardInterrupt
    return int(progress.n_failed > 0)


def _load(args: argparse.Namespace) -> Transcriber:
    began = time.monotonic()
    transcriber = Transcriber(
        args.model,
        providers=[args.provider],
        threads=args.threads,
        spin=not args.no_spin,
        cache=args.cache,
        batch_size=args.batch_size,
    )
    facts = ", ".join(f"{name} {value}" for name, value in transcriber.facts.items())
    logger.debug("%s, loaded in %.1f s", facts, time.monotonic() - began)
    return transcriber


if __name__ == "__main__":
    run()
