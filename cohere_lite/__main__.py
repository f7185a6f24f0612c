"""The command line: text on stdout, everything else on stderr, an honest exit code.

0: every file was transcribed.  1: some file, or the model, was not usable, or some text could not be written.  2: wrong
arguments.  130: Ctrl-C.  141: whoever read the output is gone.
"""

from __future__ import annotations

import argparse
import glob
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from . import __version__
from .audio import RAW_FORMATS, open_audio, parse_raw
from .errors import AudioError, CohereLiteError, OptionError
from .interrupt import CtrlC
from .live import ReadAhead
from .model import PROVIDERS
from .output import FORMATS, output_paths, render
from .phrases import Pauses
from .progress import Progress, clock, spent_since
from .transcribe import Segment, Transcriber
from .wav import Audio, open_wav

DEMO_NOTICE = """\
This is the built-in demonstration model. It knows numbers up to 999, clock times, dates and simple commands
(lights, timers, music ...) in English, German, French and Spanish, one sentence at a time (for recordings of more:
--cut pauses), and nothing else.
For everything else use the full model: export it with tools/export (see the README), then --model FOLDER.
"""
STDIN = "-"
_SUBTITLES = ("srt", "vtt")
_logger = logging.getLogger("cohere_lite")


def main(argv: list[str] | None = None) -> int:
    """Transcribe the files named in argv (default: the command's); the exit code."""
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a C locale or a Windows console must not lose text, nor a file name that is no UTF-8
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    args = _parser().parse_args(argv)
    if sys.platform == "win32":  # where the shell leaves it to the program
        args.files = [found for file in args.files for found in _matching(file)]
    if sys.stdout is None and not args.output_dir:  # print would drop the text without a word
        _report("error: standard output is closed; there is nowhere to write the text")
        return 1
    level = logging.WARNING if args.quiet else logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(format="%(message)s")
    _logger.setLevel(level)
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
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        _report(f"error: {error}")
        return 1


def _matching(pattern: str) -> list[str]:
    """The files that match; a file's own name and a pattern without any match stand for themselves."""
    return [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern)) or [pattern]


def run() -> None:
    """The installed `cohere-lite` command."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cohere_lite",
        description="Print what is said in audio files.",
        epilog="Without --model, a small built-in demonstration model is used.",
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="WAV file; other kinds with ffmpeg or soundfile; - for a pipe")
    add("-l", "--language", default="en", metavar="CODE", help="language spoken (default: en)")
    add("--no-punctuation", action="store_true", help="without capitals and punctuation marks")
    add("--itn", action="store_true", help="numbers as digits, where the model has learnt it")
    add("--prompt", choices=["full", "short"], default="full", help="short: for exports that need it")
    add("--version", action="version", version=f"cohere_lite {__version__}")

    add = parser.add_argument_group("audio").add_argument
    add("--start", type=_seconds, default=0.0, metavar="TIME", help="begin there: seconds, or [H:]MM:SS")
    add("--end", type=_seconds, metavar="TIME", help="end there")
    add("--channel", type=int, metavar="N", help="transcribe this channel only, from 0 (default: the mean of all)")
    add("--channels", choices=["mean", "split"], default="mean", help="split: each channel as its own speaker")
    add(
        "--raw",
        metavar="RATE:FORMAT:CHANNELS",
        help=f"files are samples without a header, as 16000:s16le:1; formats: {', '.join(RAW_FORMATS)}",
    )

    add = parser.add_argument_group("where to cut").add_argument
    add(
        "--cut",
        choices=["chunks", "pauses"],
        help="every 30 to 35 s as the reference does, or where the speaker pauses "
        "(default: chunks; pauses for a pipe, for subtitles and for split channels)",
    )
    defaults = Pauses()
    add("--min-pause", type=float, metavar="S", help=f"a pause is so long (default: {defaults.min_pause_s})")
    add(
        "--max-phrase",
        type=float,
        metavar="S",
        help=f"cut after so long at the latest (default: {defaults.max_phrase_s:g})",
    )
    add(
        "--threshold",
        type=float,
        metavar="DB",
        help=f"speech is so much louder than the noise floor (default: {defaults.threshold_db:g})",
    )
    add("--keep-silence", action="store_true", help="ask the model even where nothing stands out from the noise")

    add = parser.add_argument_group("output").add_argument
    add("--format", choices=FORMATS, default="txt", help="(default: txt, a line per file)")
    add("--output-dir", type=Path, metavar="FOLDER", help="write a file per recording there, not to standard output")
    add("--force", action="store_true", help="overwrite files in the output folder")
    add("--quiet", action="store_true", help="nothing on stderr but warnings and errors")
    add("--verbose", action="store_true", help="more on stderr: the model, and every segment")

    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="FOLDER", help="with encoder, decoder (.onnx) and tokens.txt; or OWNER/NAME on the hub")
    add("--provider", default="cpu", metavar="NAME", help=f"{', '.join(PROVIDERS)} (default: cpu)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: the cores available)")
    add("--no-spin", action="store_true", help="threads sleep while they wait: for cores with other work")
    add("--batch-size", type=int, metavar="N", help="pieces of long audio decoded at once (default: 4)")
    add("--cache", metavar="FOLDER", help="for prepared copies of large models, or 'off' (default: the user's cache)")
    return parser


def _seconds(text: str) -> float:
    """ "90.5", "1:30.5" or "1:02:03" in seconds."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; expected seconds, MM:SS or H:MM:SS")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _transcribe_files(args: argparse.Namespace) -> int:
    _check(args)
    paths = _output_paths(args)
    options = [_options(args, file) for file in args.files]
    transcriber = _load(args)
    if transcriber is None:
        return 1
    if args.model is None and not args.quiet:
        _report(DEMO_NOTICE.removesuffix("\n"))
    shown = sys.stderr.isatty() and not args.quiet
    lengths_s = [_stretch_s(_wav_length_s(file), args.start, args.end) for file in args.files] if shown else []
    progress = Progress(args.files, lengths_s, shown)
    ctrl_c = CtrlC()
    with ctrl_c.handled():
        for file, path, how in zip(args.files, paths, options, strict=True):
            progress.n_begun += 1
            progress.n_failed += not _transcribe_file(transcriber, file, path, how, args, progress, ctrl_c)
            if ctrl_c.pressed:
                break
        if not args.quiet:
            _report(progress.summary())
        if ctrl_c.pressed:
            raise KeyboardInterrupt
    return int(progress.n_failed > 0)


def _check(args: argparse.Namespace) -> None:
    """Raises OptionError for what would otherwise show only once the model is loaded, or not at all."""
    if args.files.count(STDIN) > 1:
        raise OptionError("standard input can be read only once")
    if args.raw is not None:
        parse_raw(args.raw)
    if args.channel is not None and args.channels == "split":
        raise OptionError("--channel asks for one channel, --channels split for all of them: use one of the two")


def _output_paths(args: argparse.Namespace) -> list[Path | None]:
    if args.output_dir is None:
        if len(args.files) > 1 and args.format not in ("txt", "json"):
            raise OptionError(f"{args.format} of more than one file needs --output-dir: each is a file of its own")
        return [None] * len(args.files)
    paths = output_paths(args.files, args.output_dir, args.format)
    there = [path for path in paths if os.path.lexists(path)]
    for path in there:
        if any(os.path.exists(file) and path.exists() and path.samefile(file) for file in args.files):
            raise OptionError(f"{path} is one of the recordings: another --output-dir or --format")
    if there and not args.force:
        raise OptionError(
            f"{', '.join(map(str, there[:3]))}{' ...' if there[3:] else ''} exists already; --force overwrites"
        )
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--output-dir: {error}") from error
    return [*paths]


def _options(args: argparse.Namespace, file: str) -> dict[str, Any]:
    """For Transcriber.segments."""
    given = {"min_pause_s": args.min_pause, "max_phrase_s": args.max_phrase, "threshold_db": args.threshold}
    given = {name: value for name, value in given.items() if value is not None}
    piecemeal = file == STDIN or args.format in _SUBTITLES or args.channels == "split" or bool(given)
    cut = args.cut or ("pauses" if piecemeal else "chunks")
    if cut == "chunks" and given:
        raise OptionError("--min-pause, --max-phrase and --threshold belong to --cut pauses")
    return {
        "language": args.language,
        "punctuation": not args.no_punctuation,
        "itn": args.itn,
        "prompt": args.prompt,
        "start": args.start,
        "end": args.end,
        "channel": "split" if args.channels == "split" else args.channel,
        "pauses": Pauses(**given) if cut == "pauses" else None,
        "skip_silence": not args.keep_silence,
    }


def _load(args: argparse.Namespace) -> Transcriber | None:
    began = time.monotonic()
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
        return None
    facts = ", ".join(f"{name} {value}" for name, value in transcriber.facts.items())
    _logger.debug("%s, loaded in %.1f s", facts, time.monotonic() - began)
    return transcriber


def _transcribe_file(
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
    seen = _Seen()

    def facts() -> dict[str, Any]:
        spent_s = spent_since(began)
        return {
            "file": file,
            "duration": round(seen.duration_s, 3),
            "complete": not failures and not ctrl_c.pressed,
            "warnings": [*audio.warnings, *seen.warnings],
            "model": transcriber.facts,
            "timing": {"seconds": round(spent_s, 3), "speed": round(seen.duration_s / spent_s, 2)},
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
        segments = _watch(segments, name, args.start, seen)
        if first := next(segments, None):
            style = "lines" if args.format == "txt" and path is None and _is_read_live(file) else args.format
            text = render(style, chain([first], segments), args.language, facts)
            if path is None:
                for part in text:
                    print(part, end="", flush=True)
            else:
                kept = _write(text, path, args.force, failures)
        for warning in audio.warnings:
            _report(f"warning: {name}: {warning}")
    for failure in failures:
        _report_failure(name, failure)
    if kept and (failures or ctrl_c.pressed):
        _report(f"{path} holds what was recognised before")
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


@dataclass
class _Seen:
    """What the segments of a file have told so far."""

    duration_s: float = 0.0
    warnings: list[str] = field(default_factory=list)


def _watch(segments: Iterator[Segment], name: str, start_s: float, seen: _Seen) -> Iterator[Segment]:
    for segment in segments:
        seen.duration_s = max(seen.duration_s, segment.end - start_s)
        where = f"{clock(segment.start)} to {clock(segment.end)}"
        found = []
        if segment.truncated:
            found.append(f"{where}: the model reached its limit of tokens; words are missing")
        if segment.looped:
            found.append(f"{where}: the model repeated itself without end and was stopped; words may be missing")
        for warning in found:
            _report(f"warning: {name}: {warning}")
        seen.warnings += found
        told = "silent" if segment.silent else f"{len(segment.tokens)} tokens, logprob {segment.avg_logprob:.3f}"
        _logger.debug("%s: %.2f to %.2f s: %s", name, segment.start, segment.end, told)
        yield segment


def _wav_length_s(file: str) -> float | None:
    """What a WAV file's header says; None for all else, which to open would take long, and for pipes."""
    try:
        if os.path.isfile(file):
            with open(file, "rb") as opened:
                return open_wav(opened, file).duration
    except (OSError, AudioError):
        pass  # reported when its turn comes
    return None


def _stretch_s(length_s: float | None, start_s: float, end_s: float | None) -> float | None:
    """Of what is transcribed of so long a recording; None if only the end of the recording will tell."""
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
    _report(f"error: {told if name in told else f'{name}: {told}'}")


def _report(message: str) -> None:
    try:
        print(message, file=sys.stderr)
    except OSError:  # nobody listens: no reason to keep the text back
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    run()
