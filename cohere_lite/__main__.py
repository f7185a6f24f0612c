"""The command line: text on stdout, everything else on stderr, an honest exit code.

0: every file was transcribed.  1: some file or the model was not usable.  2: wrong arguments.  130: Ctrl-C.
141: whoever read the output is gone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .transcribe import Segment

DEMO_NOTICE = """\
This is the built-in demonstration model. It knows numbers up to 999, clock times, dates and simple commands
(lights, timers, music ...) in English, German, French and Spanish, and nothing else. For everything else use
the full model: export it with tools/export (see the README), then --model FOLDER.
"""


def main(argv: list[str] | None = None) -> int:
    """Transcribe the files named in argv (default: the command's); the exit code."""
    from . import __version__

    args = _parser(__version__).parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")  # a C locale or a Windows console must not lose text
    try:
        return _transcribe_files(args)
    except KeyboardInterrupt:
        _report("interrupted", kind=None)
        return 130
    except OSError as error:  # of stdout: those of files have been dealt with
        # what is still buffered would fail again when Python flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        _report(error)
        return 1


def run() -> None:
    """The installed `cohere-lite` command."""
    sys.exit(main())


def _parser(version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cohere_lite",
        description="Print what is said in WAV files.",
        epilog="Without --model, a small built-in demonstration model is used.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="WAV file")
    parser.add_argument("-l", "--language", default="en", metavar="CODE", help="language spoken (default: en)")
    parser.add_argument("--model", metavar="FOLDER", help="folder with encoder, decoder (.onnx) and tokens.txt")
    parser.add_argument(
        "--provider", default="cpu", metavar="NAME", help="cpu (default), cuda, tensorrt, coreml, directml"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the cores available)")
    parser.add_argument(
        "--format", choices=["txt", "json"], default="txt", help="output, a line per file (default: txt)"
    )
    parser.add_argument("--no-punctuation", action="store_true", help="without capitals and punctuation marks")
    parser.add_argument("--itn", action="store_true", help="numbers as digits, where the model has learnt it")
    parser.add_argument("--prompt", choices=["full", "short"], default="full", help="short: for exports that need it")
    parser.add_argument("--version", action="version", version=f"cohere_lite {version}")
    return parser


def _transcribe_files(args: argparse.Namespace) -> int:
    from .errors import CohereLiteError
    from .output import render
    from .transcribe import Transcriber

    if args.model is None:
        sys.stderr.write(DEMO_NOTICE)
    try:
        transcriber = Transcriber(args.model, providers=[args.provider], threads=args.threads)
    except (CohereLiteError, OSError) as error:
        _report(error)
        return 1
    failed = False
    for file in args.files:
        try:
            transcript = transcriber.transcribe(
                file,
                language=args.language,
                punctuation=not args.no_punctuation,
                itn=args.itn,
                prompt=args.prompt,
                on_segment=_Progress(file) if sys.stderr.isatty() else None,
            )
        except (CohereLiteError, OSError) as error:
            _report(error)
            failed = True
            continue
        for warning in transcript.warnings:
            _report(f"{file}: {warning}", kind="warning")
        if transcript.truncated:
            _report(f"{file}: the model reached its limit of tokens; words are missing", kind="warning")
        print(render(transcript, file, args.format), flush=True)
    return int(failed)


def _report(message: object, kind: str | None = "error") -> None:
    print(f"{kind}: {message}" if kind else message, file=sys.stderr)


class _Progress:
    """One line on the terminal, rewritten as segments come; nothing for work of a few seconds."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._began = time.monotonic()

    def __call__(self, segment: Segment, duration: float) -> None:
        spent = time.monotonic() - self._began
        left = spent * (duration - segment.end) / segment.end
        if spent + left < 4:
            return
        if segment.end < duration:
            speed = segment.end / spent
            done = f"{segment.end:.0f} of {duration:.0f} s, {speed:.1f}x real time, {left:.0f} s left"
            sys.stderr.write(f"\r\033[K{self._file}: {done}")
        else:
            sys.stderr.write("\r\033[K")
        sys.stderr.flush()


if __name__ == "__main__":
    run()
