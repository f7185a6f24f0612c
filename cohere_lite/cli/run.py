"""The command: text on standard output, everything else on standard error, an honest exit code (options.py lists them).

--help and --version must not wait for numpy and onnxruntime: what needs them is imported in the function that does.
"""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from unicodedata import category

from .. import __version__
from ..errors import AudioError, CohereLiteError, OptionError, logger
from ..extras.formats import render, render_json, speaker
from ..extras.languages import language_name
from .options import STDIN, Job, is_pipe, jobs, parse_arguments
from .terminal import CtrlC, Progress, is_terminal, spent_since, stretch_s, wav_stretch_s

if TYPE_CHECKING:
    from ..transcribe import Transcriber
    from ..transcript import Segment
    from ..wav import Audio

DEMO_NOTICE = (
    "this is the small demonstration model: numbers, times, dates, prices, greetings and simple commands in en, de, fr "
    "and es; of digits that people say it gets 12 in 100 wrong; --help says how to get the full one"
)
# Mean log-probability of a token below which the demonstration model is not sure: all of 54 sentences that it has not
# learnt, 69 % of 32 that it heard wrongly, 1 % of 368 that it heard rightly (espeak-ng's held-out voices); of what
# people said to it 85 % of 120 and 9 % of 185.
DEMO_SURE = -0.2


def run() -> None:
    """The process's own entry: `python -m cohere_lite` and the installed command. Only it may change the streams."""
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    for stream in filter(None, (sys.stdout, sys.stderr)):
        if hasattr(stream, "reconfigure"):
            # a C locale or a Windows console must not lose text, nor a file name that is not UTF-8
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        sys.exit(main())
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except OSError:  # reported already; Python would flush again at exit, and fail
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main(argv: list[str] | None = None) -> int:
    """Transcribe the files named in argv (None: the process's), and return the exit code.

    May be called by another program: streams, logging and signal handlers are as before when it returns. Exits like
    argparse (SystemExit) after --help, --version and options that it does not know.
    """
    args = parse_arguments(argv)
    level = logging.WARNING if args.quiet else logging.DEBUG if args.verbose else logging.INFO
    with CtrlC() as ctrl_c, _messages_to_stderr(level):
        try:
            return _transcribe_files(args, ctrl_c)
        except OptionError as error:
            logger.error("error: %s", error)
            return 2
        except KeyboardInterrupt:
            logger.warning("interrupted")
            return 128 + (ctrl_c.pressed or signal.SIGINT)
        except BrokenPipeError:
            return 141
        except (CohereLiteError, OSError, UnicodeError) as error:  # of the model or of stdout
            if sys.platform == "win32" and getattr(error, "errno", None) == errno.EINVAL:  # a broken pipe, there
                return 141
            logger.error("error: %s", error)
            return 1


@contextmanager
def _messages_to_stderr(level: int) -> Iterator[None]:
    """What is logged goes to standard error, and nowhere else."""
    # A stream handler raises nothing if stderr cannot be written to, unless that is closed: the text still comes.
    handler = logging.NullHandler() if _is_closed(sys.stderr) else logging.StreamHandler()
    handler.format = _printable  # type: ignore[method-assign]
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _is_closed(stream: object) -> bool:
    return stream is None or getattr(stream, "closed", False)


def _printable(record: logging.LogRecord) -> str:
    """The message; of names, which may hold anything, nothing that a terminal would obey."""
    message = record.getMessage()
    return "".join(c if c.isprintable() or c == "\n" or category(c) == "Zs" else repr(c)[1:-1] for c in message)


def _transcribe_files(args: argparse.Namespace, ctrl_c: CtrlC) -> int:
    if _is_closed(sys.stdout) and not args.output_dir:  # print would drop the text without a word
        raise OSError("standard output is closed; there is nowhere to write the text")
    with ctrl_c.raises():
        todo = jobs(args)
        transcriber = _load(args)
    if args.model is None:
        logger.info(DEMO_NOTICE)
        if args.prompt == "short":
            logger.warning("warning: the demonstration model has not learnt the short prompt")
    if not todo:
        return 0
    shown = not args.quiet and is_terminal(sys.stderr)
    lengths_s = [wav_stretch_s(file, args.start, args.end) for file in args.files] if shown else []
    progress = Progress(args.files, lengths_s, shown)
    for job in todo:
        progress.n_begun += 1
        progress.n_failed += not _transcribe(job, transcriber, progress, ctrl_c, is_demo=args.model is None)
        if ctrl_c.pressed:
            break
    logger.info(progress.summary())
    if ctrl_c.pressed:
        raise KeyboardInterrupt
    return int(progress.n_failed > 0)


def _load(args: argparse.Namespace) -> Transcriber:
    import numpy

    from ..session import ort, session_options
    from ..transcribe import Transcriber

    threads = session_options(args.threads, spin=True, stop=True).intra_op_num_threads
    logger.debug(
        "cohere_lite %s, Python %s, numpy %s, onnxruntime %s, %s, %s processors, %s threads",
        *(__version__, platform.python_version(), numpy.__version__, ort.__version__, platform.platform()),
        *(os.cpu_count(), threads or "onnxruntime's number of"),
    )
    began = time.monotonic()
    transcriber = Transcriber(
        args.model,
        providers=[args.provider],
        threads=args.threads,
        spin=not args.no_spin,
        cache=args.cache,
        batch_size=args.batch_size,
        precision=args.precision,
        self_check=args.self_check,
    )
    facts = ", ".join(f"{name} {value}" for name, value in transcriber.facts.items() if isinstance(value, str))
    logger.debug("%s, loaded in %.1f s", facts, time.monotonic() - began)
    with suppress(ImportError):  # in a copy without it
        from ..extras.faster import hint

        if faster := hint(transcriber, args.precision):
            logger.info(faster)
    return transcriber


def _transcribe(job: Job, transcriber: Transcriber, progress: Progress, ctrl_c: CtrlC, is_demo: bool) -> bool:
    """Returns whether nothing failed; Ctrl-C is no failure. What was recognised before either is written."""
    from ..transcript import Transcript

    began = time.monotonic()
    start_s, end_s = job.options["start"], job.options["end"]
    language = job.options["language"] if job.options["language"] in transcriber.languages else None  # to be found
    failures: list[Exception] = []
    is_kept = False  # whether there is a file with what was recognised

    def as_json(segments: Iterable[Segment]) -> Iterator[str]:
        found = [*segments]
        complete = not (failures or ctrl_c.pressed or audio.missing)
        warnings = [*audio.missing, *audio.warnings]
        transcript = Transcript.of(found, language, warnings=warnings, complete=complete)
        yield render_json(transcript, file=job.file, model=transcriber.facts, seconds=spent_since(began))

    with ExitStack() as stack:
        try:
            with ctrl_c.raises():  # opening a pipe waits until somebody writes to it
                audio = stack.enter_context(_recording_of(job, ctrl_c))
        except KeyboardInterrupt:
            return True
        except (CohereLiteError, OSError, MemoryError) as error:
            _report_failure(job.name, error)
            return False
        segments = _until_failure(ctrl_c.ends(transcriber.segments(audio, **job.options)), failures)
        segments = progress.watch(segments, start_s, stretch_s(audio.duration, start_s, end_s))
        segments = _reported(segments, job.name)
        if is_demo:
            segments = _doubted(segments, job.name)
        if language is None:
            segments = _language_told(segments, job.name, transcriber)
        if first := next(segments, None):
            segments = chain([first], segments)
            # somebody waits for each phrase, behind a pipe or in front of a terminal
            is_live = job.path is None and (is_pipe(job.file) or is_terminal(sys.stdout))
            style = "lines" if job.style == "txt" and is_live else job.style
            text = as_json(segments) if style == "json" else render(style, segments, language)
            if job.path is None:
                for part in text:
                    print(part, end="")
                    if hasattr(sys.stdout, "flush"):  # not of everything that a program puts in its place
                        sys.stdout.flush()
            else:
                is_kept = _write(text, job.path, job.overwrite, failures)
        for warning in [*audio.missing, *audio.warnings]:
            logger.warning("warning: %s: %s", job.name, warning)
    for failure in failures:
        _report_failure(job.name, failure)
    if is_kept and (failures or ctrl_c.pressed):
        logger.warning("%s holds what was recognised before", job.path)
    return not failures


@contextmanager
def _recording_of(job: Job, ctrl_c: CtrlC) -> Iterator[Audio]:
    """The file, opened; or a pipe, which Ctrl-C ends rather than breaks off, to keep the last phrase."""
    from ..audio import open_audio
    from .stdin import ReadAhead

    if not is_pipe(job.file):
        with open_audio(job.file, job.raw, job.track) as audio:
            yield audio
        return
    pipe = _standard_input() if job.file == STDIN else open(job.file, "rb", buffering=0)  # noqa: SIM115 - read ahead
    ahead = ReadAhead(pipe, job.name)
    with open_audio(cast(BinaryIO, ahead), job.raw, job.track) as audio:
        ctrl_c.end_pipe = ahead.end
        try:
            yield audio
        finally:
            ctrl_c.end_pipe = None


def _standard_input() -> Any:
    if _is_closed(sys.stdin) or is_terminal(sys.stdin):
        raise AudioError("there is no pipe to read from; as in: arecord -f S16_LE -r 16000 -t wav | ... -")
    stdin: Any = sys.stdin
    try:
        # Not sys.stdin.buffer: a thread that waits in it keeps Python from ending.
        return open(stdin.fileno(), "rb", buffering=0, closefd=False)
    except (AttributeError, TypeError, ValueError, NotImplementedError):  # what a program puts there, text or bytes
        stdin = getattr(stdin, "buffer", stdin)
    if isinstance(stdin, io.TextIOBase) or not hasattr(stdin, "read"):
        raise AudioError("what this program gives as standard input is no file of bytes")
    return stdin


def _until_failure(segments: Iterator[Segment], failures: list[Exception]) -> Iterator[Segment]:
    """The segments up to a failure, which is added to `failures`, so that the output can still be finished."""
    try:
        yield from segments
    except (CohereLiteError, OSError, MemoryError) as failure:
        failures.append(failure)


def _reported(segments: Iterable[Segment], name: str) -> Iterator[Segment]:
    """The segments, their warnings and details reported."""
    from ..transcript import segment_warnings

    for segment in segments:
        for warning in segment_warnings(segment):
            logger.warning("warning: %s: %s", name, warning)
        details = "silent" if segment.silent else f"{len(segment.tokens)} tokens, logprob {segment.avg_logprob:.3f}"
        where = f"{speaker(segment.channel)}{segment.start:.2f} to {segment.end:.2f} s"
        logger.debug("%s: %s: %s", name, where, details)
        yield segment


def _doubted(segments: Iterable[Segment], name: str) -> Iterator[Segment]:
    """The segments; told where the demonstration model is not sure, as of all that it has not learnt."""
    for segment in segments:
        if segment.avg_logprob is not None and segment.avg_logprob < DEMO_SURE:
            logger.info("%s: the demonstration model is not sure of this: %s", name, segment.text or "(no text)")
        yield segment


def _language_told(segments: Iterable[Segment], name: str, transcriber: Transcriber) -> Iterator[Segment]:
    """The segments, the language that was found reported, and another one after it."""
    from ..extras.detect import calibration

    uncalibrated = "" if calibration(transcriber._model) else ", not calibrated for this model"
    told, n_segments = None, 0
    for segment in segments:
        n_segments += 1
        if segment.language not in (None, told):
            told = str(segment.language)
            if segment.language_probability is not None:  # None: of one candidate only
                how_sure = f"{segment.language_probability:.2f}{uncalibrated}"
                logger.info("%s: language: %s (%s)", name, language_name(told), how_sure)
        yield segment
    if n_segments and told is None:
        logger.info("%s: language: unknown, nothing was heard", name)


def _write(text: Iterable[str], path: Path, overwrite: bool, failures: list[Exception]) -> bool:
    """Writes each part as it comes, so that nothing written is lost later; returns whether the file could be opened.
    An OSError is added to `failures`."""
    is_open = False
    try:
        # errors as on stdout: a file name that is not UTF-8 must not keep the text from being written
        with open(path, "w" if overwrite else "x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            is_open = True
            for part in text:
                file.write(part)
                file.flush()
    except OSError as error:
        failures.append(error)
    return is_open


def _report_failure(name: str, failure: Exception) -> None:
    message = str(failure) or type(failure).__name__
    is_named = getattr(failure, "name", None) or getattr(failure, "filename", None) == name
    logger.error("error: %s", message if is_named else f"{name}: {message}")
