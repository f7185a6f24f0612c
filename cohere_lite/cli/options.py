"""The command's options, and what they mean for each recording.

--help and --version must not wait for numpy and onnxruntime: what needs them is imported in the function that does.
"""

from __future__ import annotations

import argparse
import difflib
import glob
import os
import re
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import OptionError
from ..extras.formats import FORMATS
from ..extras.languages import language_code

STDIN = "-"
_SUBTITLES = ("srt", "vtt")

_EPILOG = """\
what goes where:
  The text goes to standard output, everything else to standard error: warnings
  and errors, on a terminal the progress, at the end a summary.

  txt       a line per recording; on a terminal and for "-", a line per piece of
            it; with --channels split, lines "[channel] text"
  json      an object in a line per recording: text, language, segments with
            times, tokens and log-probabilities, warnings, model
            (pydoc cohere_lite.Segment)
  srt, vtt  subtitles: two lines of 42 columns at most, never overlapping
  tsv       start and end in milliseconds, and text, of each piece

  --output-dir writes talks/a.wav to FOLDER/a.txt (.json, ...), and "-" to
  FOLDER/stdin.txt. Refused before any work begins: two recordings that would
  get the same file, a file that exists (unless --force is given), and a file
  that is one of the recordings.

  Ctrl-C, SIGTERM, SIGHUP and failures leave what was recognised before, in
  valid files. For "-" they end the recording: what was said last is still
  printed. A second Ctrl-C ends everything at once, and so does SIGTERM that
  comes again after 2 seconds.

exit code:
  0    every recording was transcribed
  1    a recording, the model or an output failed; the other recordings were
       still tried
  2    an option is wrong
  130  Ctrl-C; after SIGTERM and SIGHUP the process ends by that signal
  141  whoever read the output is gone

examples:
  python -m cohere_lite --model FOLDER -l fr *.wav
  python -m cohere_lite --model FOLDER -l auto --format json call.mp3
  python -m cohere_lite --model FOLDER --format srt --output-dir subs talk.mp4
  arecord -q -f S16_LE -r 16000 -t wav | python -m cohere_lite --model FOLDER -

Without --model, a small built-in demonstration model is used. To make the full
one:
  pip install 'cohere-lite[export]'
  python -m cohere_lite.export --help
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """argv: None for the process's. Exits with code 2 where argparse can tell that something is wrong."""
    parser = _parser()
    argv = sys.argv[1:] if argv is None else argv
    n_mixed = argv.index("--") if "--" in argv else len(argv)  # only files follow: argparse would look for options
    args, unknown = parser.parse_known_intermixed_args(argv[:n_mixed])  # files and options, in any order
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        name = unknown[0].partition("=")[0]
        close = [option for option in known if option.startswith(name)] or difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    args.files += argv[n_mixed + 1 :]
    if not args.files and not args.verbose:
        parser.error("name a FILE, or - for a pipe (--help for more)")
    if sys.platform == "win32":  # where the shell leaves patterns to the program
        args.files = [found for file in args.files for found in _matching(file)]
    return args


def _parser() -> argparse.ArgumentParser:
    # Numbers and names that are written out here are those of other files; tests/test_cli.py compares them.
    parser = argparse.ArgumentParser(
        prog="python -m cohere_lite",
        usage="%(prog)s [option ...] FILE ...",
        description="Print what is said in audio files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # "--output a.txt" would make a folder of that name
    )
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="WAV file; other kinds with ffmpeg or soundfile; - for a pipe")
    add(
        *("-l", "--language"),
        type=language_code,
        default="en",
        metavar="CODE",
        help="language spoken (default: en); en,de,fr: whichever of these it is; auto: of all that the model knows",
    )
    add(
        "--language-per",
        type=str.lower,
        choices=["recording", "phrase"],
        default="recording",
        help="find the language once, or for each piece that is cut (default: recording)",
    )
    add("--no-punctuation", action="store_true", help="without capitals and punctuation marks")
    add("--itn", action="store_true", help="numbers as digits, where the model has learnt it")
    add("--prompt", type=str.lower, choices=["full", "short"], default="full", help="short: for exports that need it")
    add("--version", action="version", version=f"cohere_lite {__version__}")

    add = parser.add_argument_group("audio").add_argument
    add("--start", type=_seconds, default=0.0, metavar="TIME", help="begin there: seconds, or [H:]MM:SS")
    add("--end", type=_seconds, metavar="TIME", help="end there")
    add("--channel", type=int, metavar="N", help="transcribe this channel only, from 0 (default: the mean of all)")
    add(
        "--channels",
        type=str.lower,
        choices=["mean", "split"],
        default="mean",
        help="split: each channel as its own speaker",
    )
    add("--track", type=int, metavar="N", help="of several audio tracks, this one, from 0 (default: the file's)")
    add(
        "--raw",
        metavar="RATE:FORMAT:CHANNELS",
        help="files are samples without a header, as 16000:s16le:1; "
        "formats: u8, s16le, s16be, s24le, s24be, s32le, s32be, f32le, f32be, f64le, f64be, alaw, mulaw",
    )

    add = parser.add_argument_group("where to cut").add_argument
    add(
        "--cut",
        type=str.lower,
        choices=["chunks", "pauses"],
        help="every 30 to 35 s as the reference does, or where the speaker pauses "
        "(default: chunks; pauses for a pipe, subtitles, split channels and --language-per phrase)",
    )
    add("--min-pause", type=float, metavar="S", help="length of a pause (default: 0.6)")
    add("--max-phrase", type=float, metavar="S", help="cut after so long at the latest (default: 30)")
    add("--threshold", type=float, metavar="DB", help="speech is so much louder than the noise floor (default: 4.5)")
    add("--keep-silence", action="store_true", help="ask the model even where nothing stands out from the noise")

    add = parser.add_argument_group("output").add_argument
    add("-f", "--format", type=str.lower, choices=FORMATS, default="txt", help="see below (default: txt)")
    add("-o", "--output-dir", type=_folder, metavar="FOLDER", help="a file per recording there, not standard output")
    add(
        "--word-times",
        action="store_true",
        help="when each word was said, in json and for cues of srt and vtt (experimental; for models of our exporter)",
    )
    add("--karaoke", action="store_true", help="vtt with a time at each word, to be coloured as it is said")
    add("--force", action="store_true", help="overwrite files in the output folder")
    add("-q", "--quiet", action="store_true", help="nothing on standard error but warnings and errors")
    add(
        *("-v", "--verbose"),
        action="store_true",
        help="more on standard error: versions, machine, model and every segment; please add it to a bug report "
        "(without a FILE: versions, machine and model alone)",
    )

    add = parser.add_argument_group("model").add_argument
    add("-m", "--model", type=_named, metavar="FOLDER", help="encoder, decoder, tokens.txt; or OWNER/NAME on the hub")
    add("--precision", metavar="NAME", help="of several: int8, q4, fp16, ... (default: the best one for the provider)")
    add(
        "--provider",
        type=_provider,
        default="cpu",
        metavar="NAME",
        help="cpu, cuda, tensorrt, directml, coreml, openvino, webgpu, mlx, qnn, nv_tensorrt_rtx (default: cpu); "
        "cuda:1 is the second device; NAME:KEY=VALUE,... and cuda:1,KEY=VALUE,... set the provider's own options",
    )
    add("--self-check", action="store_true", help="test what the CPU computes, too, as any other provider is at load")
    add("--threads", type=int, metavar="N", help="CPU threads (default: the cores available)")
    add("--no-spin", action="store_true", help="threads sleep while they wait: for cores with other work")
    add("--batch-size", type=int, metavar="N", help="pieces of long audio decoded at once (default: 4)")
    add(
        "--cache",
        type=_named,
        metavar="FOLDER",
        help="for prepared copies of large models, or 'off' (default: the user's cache)",
    )
    return parser


def _seconds(text: str) -> float:
    """ "90.5", "1:30.5" or "1:02:03" in seconds."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; expected seconds, MM:SS or H:MM:SS")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _provider(text: str) -> str:
    """Names in any case; the options after them are as they are."""
    name, separator, options = text.partition(":")
    return f"{name.lower()}{separator}{options}"


def _named(text: str) -> str:
    """Not "": what a variable of the shell is that was never set would stand for the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; for the current folder write .")
    return text


def _folder(text: str) -> Path:
    path = Path(_named(text))
    if path.suffix[1:].lower() in FORMATS and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} looks like a file; it must be a folder (for one file: > {text})")
    return path


def _matching(pattern: str) -> list[str]:
    """The files that match; a file's own name and a pattern without any match stand for themselves."""
    return [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern)) or [pattern]


@dataclass(frozen=True)
class Job:
    """What to do with one recording.

    file, raw, track: what to read;  options: of Transcriber.segments;  style: of the text;  path: where to write it,
    None for standard output;  overwrite: whether `path` may exist
    """

    file: str
    raw: str | None
    track: int | None
    options: dict[str, Any]
    style: str
    path: Path | None
    overwrite: bool

    @property
    def name(self) -> str:
        """Of the recording, for messages."""
        return "standard input" if self.file == STDIN else self.file


def jobs(args: argparse.Namespace) -> list[Job]:
    """One for each file. Raises OptionError for all that can be known to be wrong before the model is loaded."""
    from ..audio import check_stretch
    from ..extras.raw import parse_raw

    if args.files.count(STDIN) > 1:
        raise OptionError("standard input can be read only once")
    if args.raw is not None:
        parse_raw(args.raw)
        if args.track is not None:
            raise OptionError("--track is for files of several audio tracks, --raw for samples: use one of the two")
    check_stretch(args.start, args.end)
    if args.channel is not None and args.channels == "split":
        raise OptionError("--channel asks for one channel, --channels split for all of them: use one of the two")
    if args.karaoke and args.format != "vtt":
        raise OptionError("--karaoke is for --format vtt, whose cues can hold times")
    if args.word_times and args.format in ("txt", "tsv"):
        raise OptionError(f"--word-times is for json, srt and vtt: {args.format} has no place for them")
    if args.output_dir is None and len(args.files) > 1 and args.format not in ("txt", "json"):
        raise OptionError(f"{args.format} of more than one file needs --output-dir: each is a file of its own")
    options = [_segment_options(args, file) for file in args.files]
    paths: list[Path] | list[None] = [None] * len(args.files)
    if args.output_dir is not None:
        paths = output_paths(args.files, args.output_dir, args.format, args.force)
    style = "karaoke" if args.karaoke else args.format
    return [
        Job(file, args.raw, args.track, how, style, path, overwrite=path is not None and os.path.lexists(path))
        for file, how, path in zip(args.files, options, paths, strict=True)
    ]


def is_pipe(file: str) -> bool:
    """Standard input, or the name of a pipe, as in <(...): what comes may be live."""
    return file == STDIN or (os.path.exists(file) and stat.S_ISFIFO(os.stat(file).st_mode))


def _segment_options(args: argparse.Namespace, file: str) -> dict[str, Any]:
    from ..extras.phrases import Pauses

    given = {"min_pause_s": args.min_pause, "max_phrase_s": args.max_phrase, "threshold_db": args.threshold}
    given = {name: value for name, value in given.items() if value is not None}
    piecemeal = is_pipe(file) or args.format in _SUBTITLES or args.channels == "split" or bool(given)
    piecemeal |= args.language_per == "phrase"
    cut = args.cut or ("pauses" if piecemeal else "chunks")
    if cut == "chunks" and given:
        raise OptionError("--min-pause, --max-phrase and --threshold belong to --cut pauses")
    return {
        "language": args.language,
        "language_per": args.language_per,
        "punctuation": not args.no_punctuation,
        "itn": args.itn,
        "prompt": args.prompt,
        "start": args.start,
        "end": args.end,
        "channel": "split" if args.channels == "split" else args.channel,
        "pauses": Pauses(**given) if cut == "pauses" else None,
        "skip_silence": not args.keep_silence,
        "word_times": args.word_times or args.karaoke,
    }


def output_paths(files: Sequence[str], folder: Path, suffix: str, force: bool) -> list[Path]:
    """A file for each recording, in a folder that exists then: talks/a.wav -> FOLDER/a.txt.

    Raises OptionError if two would be the same (also where capitals make no difference), if one is a recording, if one
    exists, has something in it, and force does not allow to overwrite it, or if nothing can be written there.
    """
    paths = [folder / _file_name("stdin" if file == STDIN else Path(file).stem, suffix) for file in files]
    users: dict[str, str] = {}
    for file, path in zip(files, paths, strict=True):
        if other := users.get(path.name.casefold()):
            raise OptionError(f"{other} and {file} would both be written to {path}: use an --output-dir for each")
        users[path.name.casefold()] = file
    recordings = {_file_id(file) for file in files} - {None}
    if one := next((path for path in paths if _file_id(path) in recordings), None):
        raise OptionError(f"{one} is one of the recordings: use another --output-dir or --format")
    existing = [str(path) for path in paths if _would_be_lost(path)]
    if existing and not force:
        more = " ..." if existing[3:] else ""
        raise OptionError(f"{', '.join(existing[:3])}{more} exists already: use another --output-dir, or --force")
    if one := next((path for path in paths if path.is_dir()), None):
        raise OptionError(f"{one} is a folder: use another --output-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in paths:
            with suppress(FileNotFoundError):
                path.lstat()  # a name that the file system does not take
    except OSError as error:
        raise OptionError(f"--output-dir: {error}") from error
    return paths


def _file_name(stem: str, suffix: str) -> str:
    """At most 255 bytes, which is what file systems take."""
    while len(os.fsencode(f"{stem}.{suffix}")) > 255:
        stem = stem[:-1]
    return f"{stem}.{suffix}"


def _would_be_lost(path: Path) -> bool:
    """Whether there is something that must not be overwritten: not an empty file, as a killed process leaves it."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return not (stat.S_ISREG(found.st_mode) and found.st_size == 0)


def _file_id(path: str | Path) -> tuple[int, int] | None:
    """The same for all names of a file; None where there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return found.st_dev, found.st_ino
