"""The command's options: what there is to say, and what that means for each recording."""

from __future__ import annotations

import argparse
import glob
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

from .. import __version__
from ..audio import RAW_FORMATS, check_stretch, parse_raw
from ..cut import Pauses
from ..errors import OptionError
from ..model import PROVIDERS
from ..output import FORMATS, output_paths

STDIN = "-"
_SUBTITLES = ("srt", "vtt")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """argv: None for the command's. Exits with code 2 where argparse can tell that something is wrong."""
    args = _parser().parse_args(argv)
    if sys.platform == "win32":  # where the shell leaves patterns to the program
        args.files = [found for file in args.files for found in _matching(file)]
    return args


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


def _matching(pattern: str) -> list[str]:
    """The files that match; a file's own name and a pattern without any match stand for themselves."""
    return [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern)) or [pattern]


def check(args: argparse.Namespace) -> None:
    """Raises OptionError for what would otherwise show only once the model is loaded, or not at all."""
    if args.files.count(STDIN) > 1:
        raise OptionError("standard input can be read only once")
    if args.raw is not None:
        parse_raw(args.raw)
    check_stretch(args.start, args.end)
    if args.channel is not None and args.channels == "split":
        raise OptionError("--channel asks for one channel, --channels split for all of them: use one of the two")


def destinations(args: argparse.Namespace) -> list[Path | None]:
    """What to write the transcript of each file to, in a folder that is there then; None for standard output."""
    if args.output_dir is None:
        if len(args.files) > 1 and args.format not in ("txt", "json"):
            raise OptionError(f"{args.format} of more than one file needs --output-dir: each is a file of its own")
        return [None] * len(args.files)
    paths = output_paths(args.files, args.output_dir, args.format)
    there = [path for path in paths if os.path.lexists(path)]
    recordings = {_identity(file) for file in args.files} - {None}
    taken: dict[tuple[int, int] | str, Path] = {}
    for path in paths:
        identity = _identity(path)
        if identity in recordings:
            raise OptionError(f"{path} is one of the recordings: another --output-dir or --format")
        if identity and (other := taken.setdefault(identity, path)) is not path:
            raise OptionError(f"{other} and {path} are one file: another --output-dir, or remove one of them")
    if there and not args.force:
        raise OptionError(
            f"{', '.join(map(str, there[:3]))}{' ...' if there[3:] else ''} exists already; --force overwrites"
        )
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--output-dir: {error}") from error
    return [*paths]


def _identity(path: str | Path) -> tuple[int, int] | str | None:
    """The same for all names of a file, there or not; None if it is none, or cannot be seen."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return os.path.realpath(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def segment_options(args: argparse.Namespace, file: str) -> dict[str, Any]:
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
