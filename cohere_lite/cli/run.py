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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..audio import open_audio
from ..errors import AudioError, CohereLiteError, OptionError, logger
from ..output import render, speaker
from ..transcribe import Segment, Transcriber
from ..wav import Audio, open_wav
from .interrupt import CtrlC
from .options import STDIN, check, destinations, parse_arguments, segment_options
from .stdin import ReadAhead
from .terminal import Progress, clock, spent_since

DEMO_NOTICE = """\
This is the built-in demonstration model. It knows numbers up to 999, clock times, dates and simple commands
(lights, timers, music ...) in English, German, French and Spanish, one sentence at a time (for recordings of more:
--cut pauses), and nothing else.
For everything else use the full model: export it with cohere_lite/export (see the README), then --model FOLDER.
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


def transcribe_file(
    transcriber: Transcriber,
    file: str,
    path: Path | None,
    options: dict[str, Any],
    args: argparse.Namespace,
    progress: Progress,
    ctrl_c: CtrlC,
) -> bool:
    """Whether nothing failed; Ctrl-C is no failure. What was recognised before either is kept."""
    began = time.monotonic()
    name = "standard input" if file == STDIN else file
    failures: list[Exception] = []
    kept = False  # whether there is a file with what was recognised
    warnings: list[str] = []

    def facts() -> dict[str, Any]:
        spent_s = spent_since(began)
        return {
            "file": file,
            "duration": round(progress.here_s, 3),
            "complete": not failures and not ctrl_c.pressed,
            "warnings": [*audio.warnings, *warnings],
            "model": transcriber.facts,
            "timing": {"seconds": round(spent_s, 3), "speed": round(progress.here_s / spent_s, 2)},
        }

    with ExitStack() as stack:
        try:
            with ctrl_c.raises():  # a pipe may never be written to
                audio = stack.enter_context(_source(file, args.raw, ctrl_c))
        except KeyboardInterrupt:
            return True
        except (CohereLiteError, OSError, MemoryError) as error:
            _report_failure(name, error)
            return False
        segments = _until_failure(transcriber.segments(audio, **options), failures, ctrl_c)
        segments = progress.watch(segments, args.start, _stretch_s(audio.duration, args.start, args.end))
        segments = _watch(segments, name, warnings)
        if file == STDIN:
            segments = _say_when_it_is_the_rest(segments, ctrl_c)
        if first := next(segments, None):
            style = "lines" if args.format == "txt" and path is None and _is_read_live(file) else args.format
            text = render(style, chain([first], segments), args.language, facts)
            if path is None:
                for part in text:
                    print(part, end="", flush=True)
            else:
                kept = _write(text, path, args.force, failures)
        for warning in audio.warnings:
            report(f"warning: {name}: {warning}")
    for failure in failures:
        _report_failure(name, failure)
    if kept and (failures or ctrl_c.pressed):
        report(f"{path} holds what was recognised before")
    return not failures


@contextmanager
def _source(file: str, raw: str | None, ctrl_c: CtrlC) -> Iterator[Audio]:
    """The file; or standard input, which Ctrl-C ends rather than breaks off, so that the last phrase is not lost."""
    if file != STDIN:
        with open_audio(file, raw) as audio:
            yield audio
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise AudioError("there is no pipe to read from; as in: arecord -f S16_LE -r 16000 -t wav | ... -")
    # Not sys.stdin.buffer: a thread that waits in it keeps Python from ending.
    stdin = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115 - nothing to close
    ahead = ReadAhead(stdin, "standard input")
    with ctrl_c.calls(ahead.end), open_audio(cast(BinaryIO, ahead), raw) as audio:
        yield audio


def _is_read_live(file: str) -> bool:
    """Whether somebody is waiting for each phrase: at the other end of a pipe, or in front of a terminal."""
    return file == STDIN or sys.stdout.isatty()


def _until_failure(segments: Iterator[Segment], failures: list[Exception], ctrl_c: CtrlC) -> Iterator[Segment]:
    """The segments up to a failure, which is noted, or to Ctrl-C: whoever writes them can then finish what is begun."""
    while True:
        try:
            with ctrl_c.raises():
                segment = next(segments, None)
        except (CohereLiteError, OSError, MemoryError) as failure:
            failures.append(failure)
            return
        except KeyboardInterrupt:
            return
        if segment is None:
            return
        yield segment


def _say_when_it_is_the_rest(segments: Iterator[Segment], ctrl_c: CtrlC) -> Iterator[Segment]:
    """Of a pipe, up to 32 MB may have been read when Ctrl-C ends it."""
    told = False
    for segment in segments:
        if ctrl_c.pressed and not told:
            logger.info("finishing what was recorded; Ctrl-C again to stop at once")
            told = True
        yield segment


def _watch(segments: Iterator[Segment], name: str, warnings: list[str]) -> Iterator[Segment]:
    """The segments; what is to be said of them is said, and added to the warnings."""
    for segment in segments:
        where = f"{speaker(segment.channel)}{clock(segment.start)} to {clock(segment.end)}"
        found = []
        if segment.truncated:
            found.append(f"{where}: the model reached its limit of tokens; words are missing")
        if segment.looped:
            found.append(f"{where}: the model repeated itself without end and was stopped; words may be missing")
        for warning in found:
            report(f"warning: {name}: {warning}")
        warnings += found
        told = "silent" if segment.silent else f"{len(segment.tokens)} tokens, logprob {segment.avg_logprob:.3f}"
        where = f"{speaker(segment.channel)}{segment.start:.2f} to {segment.end:.2f} s"
        logger.debug("%s: %s: %s", name, where, told)
        yield segment


def wav_stretch_s(file: str, start_s: float, end_s: float | None) -> float | None:
    """How much of it is transcribed, by a WAV file's header; None for all else, which to open would take long, and for
    pipes."""
    try:
        if os.path.isfile(file):
            with open(file, "rb") as opened:
                return _stretch_s(open_wav(opened, file).duration, start_s, end_s)
    except (OSError, AudioError):
        pass  # reported when its turn comes
    return None


def _stretch_s(length_s: float | None, start_s: float, end_s: float | None) -> float | None:
    """Of a recording so long; None if only its end will tell."""
    return None if length_s is None else max(0.0, min(length_s, length_s if end_s is None else end_s) - start_s)


def _write(text: Iterable[str], path: Path, overwrite: bool, failures: list[Exception]) -> bool:
    """Every part as it comes, so that what is done stays done. Whether there is a file; its errors are failures."""
    opened = False
    try:
        # as on stdout: a file name that is no UTF-8 must not keep the text from being written
        with open(path, "w" if overwrite else "x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            opened = True
            for part in text:
                file.write(part)
                file.flush()
    except OSError as error:
        failures.append(error)
    return opened


def _report_failure(name: str, failure: Exception) -> None:
    told = str(failure) or type(failure).__name__
    is_named = told.startswith((f"{name}: ", f"{name} ")) or getattr(failure, "filename", None) == name
    report(f"error: {told if is_named else f'{name}: {told}'}")


def report(message: str) -> None:
    """On stderr, if anybody listens there: that nobody does is no reason to keep the text back."""
    try:
        print(message, file=sys.stderr)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
