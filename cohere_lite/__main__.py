"""The command line: text on stdout, everything else on stderr, an honest exit code.

0: every file was transcribed.  1: some file, or the model, was not usable.  2: wrong arguments.  130: Ctrl-C.
141: whoever read the output is gone.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import __version__
from .errors import CohereLiteError, OptionError
from .model import PROVIDERS
from .output import render
from .transcribe import Segment, Transcriber

DEMO_NOTICE = """\
This is the built-in demonstration model. It knows numbers up to 999, clock times, dates and simple commands
(lights, timers, music ...) in English, German, French and Spanish, one sentence per recording, and nothing else.
For everything else use the full model: export it with tools/export (see the README), then --model FOLDER.
"""
SHORT_WORK_S = 4  # seconds; work that takes less shows no progress


def main(argv: list[str] | None = None) -> int:
    """Transcribe the files named in argv (default: the command's); the exit code."""
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:  # print would drop the text without a word
        _report("error: standard output is closed; there is nowhere to write the text")
        return 1
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a C locale or a Windows console must not lose text, nor a file name that is no UTF-8
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)  # of the preparation of a model
    try:
        return _transcribe_files(args)
    except OptionError as error:
        _report(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _report("interrupted")
        return 130
    except OSError as error:  # of stdout: those of files have been dealt with
        # what is still buffered would fail again when Python flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        _report(f"error: {error}")
        return 1


def run() -> None:
    """The installed `cohere-lite` command."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cohere_lite",
        description="Print what is said in WAV files.",
        epilog="Without --model, a small built-in demonstration model is used.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="WAV file")
    parser.add_argument("-l", "--language", default="en", metavar="CODE", help="language spoken (default: en)")
    parser.add_argument("--model", metavar="FOLDER", help="folder with encoder, decoder (.onnx) and tokens.txt")
    parser.add_argument("--provider", default="cpu", metavar="NAME", help=f"{', '.join(PROVIDERS)} (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the cores available)")
    parser.add_argument(
        "--no-spin", action="store_true", help="threads sleep while they wait: for cores with other work"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="pieces of long audio decoded at once (default: 4)")
    parser.add_argument(
        "--cache", metavar="FOLDER", help="for prepared copies of large models, or 'off' (default: the user's cache)"
    )
    parser.add_argument(
        "--format", choices=["txt", "json"], default="txt", help="output, a line per file (default: txt)"
    )
    parser.add_argument("--no-punctuation", action="store_true", help="without capitals and punctuation marks")
    parser.add_argument("--itn", action="store_true", help="numbers as digits, where the model has learnt it")
    parser.add_argument("--prompt", choices=["full", "short"], default="full", help="short: for exports that need it")
    parser.add_argument("--version", action="version", version=f"cohere_lite {__version__}")
    return parser


def _transcribe_files(args: argparse.Namespace) -> int:
    try:
        transcriber = Transcriber(
            args.model,
            providers=[args.provider],
            threads=args.threads,
            spin=not args.no_spin,
            cache=args.cache,
            batch_size=args.batch_size,
        )
    except OptionError:
        raise
    except (CohereLiteError, OSError) as error:
        _report(f"error: {error}")
        return 1
    if args.model is None:
        sys.stderr.write(DEMO_NOTICE)
    failed = False
    for file in args.files:
        try:
            with _progress(file) as show:
                transcript = transcriber.transcribe(
                    file,
                    language=args.language,
                    punctuation=not args.no_punctuation,
                    itn=args.itn,
                    prompt=args.prompt,
                    on_segment=show,
                )
        except OptionError:  # the same for every file
            raise
        except (CohereLiteError, OSError, MemoryError) as error:
            _report(f"error: {error}" if file in str(error) else f"error: {file}: {error or type(error).__name__}")
            failed = True
            continue
        for warning in transcript.warnings:
            _report(f"warning: {file}: {warning}")
        if transcript.truncated:
            _report(f"warning: {file}: the model reached its limit of tokens; words are missing")
        print(render(transcript, file, args.format), flush=True)
    return int(failed)


def _report(message: str) -> None:
    print(message, file=sys.stderr)


@contextmanager
def _progress(file: str) -> Iterator:
    """A function to call as segments come: one line on the terminal, rewritten each time and erased at the end."""
    began = time.monotonic()
    shown = False

    def show(segment: Segment, duration: float) -> None:
        nonlocal shown
        spent = time.monotonic() - began
        speed = segment.end / spent
        left = (duration - segment.end) / speed
        if sys.stderr.isatty() and left > 0 and spent + left > SHORT_WORK_S:
            done = f"{segment.end:.0f} of {duration:.0f} s, {speed:.1f}x real time, {left:.0f} s left"
            print(f"\r\033[K{file}: {done}", end="", file=sys.stderr, flush=True)
            shown = True

    try:
        yield show
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run()
