"""The program ffmpeg: what it finds in a file, and the sound of one audio track on the clock of the container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import takewhile
from threading import Event, Thread
from typing import IO, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, OptionError
from ..wav import Audio, open_wav
from .kinds import Refused
from .lengths import another_follows, cut_short, flac_frames

# ffmpeg's names of what may hold sound. Left out are the formats that name other files, or addresses, to be read in
# their place (playlists such as hls and dash; concat, sdp): whoever sends a file must not choose what else is read.
_FFMPEG_FORMATS = (
    "3gp,aa,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,loas,m4a,matroska,mov,mp3,mp4,"
    "mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,spdif,swf,tak,tta,voc,w64,wav,webm,wtv,wv,xwma,"
    "adx,avr,iff,ircam,mlp,paf,pvf,sds,truehd"
)
_STOPS_AT_THE_END = (
    "aiff",
    "asf",
    "caf",
    "mov",
    "tta",
    "voc",
    "wav",
    "wv",
)  # of the first recording; in other formats ffmpeg reads on
_EXACT = ("flac", "tta", "wv")  # their headers count the samples, and damaged blocks are left out

_BEGUN = "[info] Output #0"  # is printed when the header has been written
_SILENT_S = 20.0
_MESSAGES = 3  # of ffmpeg's, the last ones, are passed on; a damaged file may give thousands
_MESSAGES_KEPT = 1000
# "[aac @ 0x55d0] [error] ...", "[aist#0:0/mp3 @ 0x55d0] [dec:mp3float @ 0x55d1] [error] ...", "[error] ..."
_TAGGED = re.compile(r"((?:\[[^\]]* @ 0x\w+\] )*)\[(?:error|fatal|panic)\] (.*)")
_UNTAGGED = re.compile(r"(?!\[)\s*(.*\S)")
# Follows the decoder's own message.
_UNDECODED = ("Error while decoding stream", "Error submitting packet to decoder", "Decoding error")
# What the MPEG decoder says, in two messages, of a tag where another file begins, and of zeros and lyrics at the end.
# It is silent about other tags.
_NO_MPEG_FRAME = re.compile(rf"Header missing|{'|'.join(_UNDECODED)}")
# (format, how an error begins that loses nothing)
_HARMLESS = (
    ("matroska", "Found unknown-length element"),  # another file behind the first; it is read, too
    ("ogg", "Error parsing the packet header"),  # the header of a chained stream, taken for sound; damage fails the CRC
)

# Silence fills longer gaps: swresample's own threshold. Rounding and encoders' delays make shorter ones.
_GAP_S = 0.1
# Sound on the container's clock. ffmpeg's aresample alone would drop what comes after timestamps that go back, as in
# files that were put one behind the other; so here they never do. In variable 0 the offset that this takes, in 1 the
# end of what has come. A step back of more than a second is a new beginning, a smaller one jitter.
_ON_THE_CLOCK = (
    "asetpts='st(0,if(lt(PTS+ld(0),ld(1)-1/TB),ld(1)-PTS,ld(0)));"
    "st(2,max(PTS+ld(0),ld(1)));st(1,ld(2)+NB_SAMPLES/(SR*TB));ld(2)',aresample=async=1"
)


class _Found(NamedTuple):
    """What ffmpeg finds in a file.

    format:    ffmpeg's name or names of it, with commas
    start_s:   the earliest timestamp of all streams
    length_s:  as the format gives it; 0 where it does not
    audio:     index of each audio track among the streams -> ffmpeg's description, e.g. "(eng): Audio: aac, (default)"
    has_video: beside the sound, covers not counted
    decoders:  words that name the decoders of other streams than audio
    """

    format: str
    start_s: float
    length_s: float
    audio: dict[int, str]
    has_video: bool
    decoders: set[str]


def find_ffmpeg() -> str | None:
    """Its path. Not by shutil.which("ffmpeg"): on Windows that looks into the current folder before the PATH, and so
    would run what somebody put there."""
    program = "ffmpeg.exe" if os.name == "nt" else "ffmpeg"
    paths = [os.path.join(folder, program) for folder in os.get_exec_path() if os.path.isabs(folder)]
    return next(filter(shutil.which, paths), None)


@contextmanager
def through_ffmpeg(program: str, path: str, kind: str, track: int | None) -> Iterator[Audio]:
    """One audio track at its own rate, as it is decoded.

    kind:  what the file is, for messages
    track: from 0 among the audio tracks; None for the one that the file calls its default, or else the first

    Raises Refused if ffmpeg does not know the file, AudioError, OptionError for a track that is not there."""
    # crccheck: without it, damaged FLAC becomes noise without a word. "file:": a name may look like an option or an
    # address
    options = f"-hide_banner -nostdin -protocol_whitelist file -format_whitelist {_FFMPEG_FORMATS} -err_detect crccheck"
    command = [program, *options.split(), "-i", f"file:{path}"]
    with ExitStack() as stack:
        # begun as most files need it, before it is known what there is: starting takes longer than decoding a sentence
        run = stack.enter_context(_running([*command, *_output("a:0")]))
        audio = _opened_wav(run)
        found = _find(run, path)
        if not found.audio:
            raise AudioError(f"{kind}: it has no audio track")
        number, warnings = _choose_track(found.audio, track)
        delay_s = 0.0
        if number or found.has_video:
            stack.close()
            stream = list(found.audio)[number]
            delay_s = _delay_s(command, stream, found.start_s) if found.has_video else 0.0
            clock = ["-af", _ON_THE_CLOCK] if found.has_video else []
            run = stack.enter_context(_running([*command, *clock, *_output(str(stream))]))
            audio = _opened_wav(run)
        if isinstance(audio, AudioError):
            _end(run, path, found)
            raise Refused(f"what ffmpeg made of it: {audio}") from audio
        # now, as it may be gone when its samples have been read
        file = stack.enter_context(open(path, "rb"))

        def blocks() -> Generator[NDArray[np.float64], None, None]:
            n_delay = round(delay_s * audio.rate)
            position = 0
            for frames in audio.blocks:
                for i in range(0, n_delay, audio.rate):
                    yield np.zeros((min(audio.rate, n_delay - i), frames.shape[1]))
                n_delay = 0
                position += len(frames)
                yield frames
            try:
                said = _end(run, path, found)
            except Refused as refusal:
                raise AudioError(f"{kind}; {refusal}") from None
            missing = cut_short(file) + another_follows(file, not found.format.startswith(_STOPS_AT_THE_END))
            # ffmpeg gives lengths in hundredths of a second
            promised = flac_frames(file) or (
                round((found.length_s - 0.01) * audio.rate) if found.format in _EXACT else 0
            )
            lacking = decoded_less("ffmpeg", position, promised, audio.rate)
            if found.format in _EXACT and promised > 0 and not lacking:
                said = [message for message in said if "CRC" in message]  # others are of tags at the end
            elif found.format == "mp3" and said and all(map(_NO_MPEG_FRAME.search, said)):
                said = said[2 * _tags_in_mpeg(file) :]
            audio.missing.extend([*said[-_MESSAGES:], *(missing or lacking)])

        yield replace(audio, blocks=blocks(), live=False, warnings=warnings)


def decoded_less(program: str, n_frames: int, promised: int, rate: int) -> list[str]:
    """A warning if fewer frames came than the header promised."""
    if n_frames >= promised:
        return []
    came, length = f"{n_frames / rate:.2f} s", f"{promised / rate:.2f} s"
    return [f"{program}: decoded {came} of {length}: the file is damaged, or of a rare kind"]


def _output(stream: str) -> list[str]:
    return f"-v level+info -nostats -map 0:{stream} -c:a pcm_f32le -f wav -".split()


def _opened_wav(run: _Running) -> Audio | AudioError:
    try:
        return open_wav(run.output)
    except AudioError as error:
        run.output.close()  # while it is open and not read, ffmpeg may wait
        return error


def _find(run: _Running, path: str) -> _Found:
    """From what ffmpeg prints of its input; Refused where it does not open it. After _opened_wav: it has begun, or it
    ends."""
    if not run.is_begun.wait(_SILENT_S):
        raise Refused("ffmpeg does not say what it finds; is it a script that leaves out its messages?")
    is_input = re.compile(r"\[info\] Input #0, (\S+), from ")
    opened = next(filter(None, map(is_input.match, run.about)), None)
    if opened is None:
        _end(run, path, None)
        raise Refused("ffmpeg did not open it")
    streams: dict[int, str] = {}
    start_s = length_s = 0.0
    for line in takewhile(lambda line: not line.startswith(("[info] Stream mapping:", _BEGUN)), run.about):
        if stream := re.match(r"\[info\] +Stream #0:(\d+)(?:\[0x\w+\])?((?:\([^)]*\))?: (?:[A-Z]\w+): .*)", line):
            streams[int(stream[1])] = stream[2]  # a stream of two programmes is listed twice
        elif duration := re.match(r"\[info\]   Duration: (?:(\d+):(\d+):([\d.]+)|N/A)(?:, start: (-?[\d.]+))?", line):
            length_s = sum(float(part) * unit for part, unit in zip(duration.groups("0"), (3600, 60, 1), strict=False))
            start_s = float(duration[4] or 0)
    audio = {index: streams[index] for index in sorted(streams) if ": Audio: " in streams[index]}
    others = [text for index, text in streams.items() if index not in audio]
    has_video = any(": Video: " in text and "(attached pic)" not in text for text in others)
    # "Video: av1 (libdav1d) (Main), ...": the decoder may be any word before the first comma
    decoders = {word for text in others for word in re.findall(r"\w+", text.split(",")[0])}
    return _Found(opened[1], start_s, length_s, audio, has_video, decoders)


def _choose_track(audio: dict[int, str], track: int | None) -> tuple[int, list[str]]:
    """The track's number, from 0, and a word if others could be meant."""
    if track is not None:
        if track not in range(len(audio)):
            raise OptionError(f"track is {track}, but the recording has {len(audio)}, counted from 0")
        return track, []
    descriptions = list(audio.values())
    number = next((n for n, text in enumerate(descriptions) if "(default)" in text), 0)
    if len(audio) == 1:
        return number, []
    languages = [language[1] if (language := re.match(r"\((\w+)\)", text)) else "?" for text in descriptions]
    listed = ", ".join(f"{n} {language}" for n, language in enumerate(languages))
    return number, [f"{len(audio)} audio tracks ({listed}): using {number}; --track N (track=N) chooses another"]


def _delay_s(command: list[str], stream: int, start_s: float) -> float:
    """By how much the sound begins after the recording does; 0 for less than _GAP_S.

    From the first packet's own timestamp: where formats may have breaks in their clock (MPEG-TS, MPEG-PS), ffmpeg sets
    the clock to 0 at the first stream that it is asked for.
    """
    output = f"-v quiet -copyts -map 0:{stream} -c copy -frames:a 1 -f framecrc -".split()
    done = subprocess.run([*command, *output], stdin=subprocess.DEVNULL, capture_output=True)
    text = done.stdout.decode(errors="replace")
    unit, packet = re.search(r"^#tb 0: (\d+)/(\d+)", text, re.M), re.search(r"^0, *-?\d+, *(-?\d+),", text, re.M)
    if unit is None or packet is None:
        return 0.0
    delay_s = int(packet[1]) * int(unit[1]) / int(unit[2]) - start_s
    return delay_s if delay_s > _GAP_S else 0.0


class _Running(NamedTuple):
    """ffmpeg at work.

    output:   what it writes
    about:    lines that it prints before it writes, complete when is_begun is set
    messages: the last lines that it prints after that
    reader:   the thread that collects both: while a full pipe of messages is not read, ffmpeg waits
    """

    process: subprocess.Popen[bytes]
    output: BinaryIO
    about: list[str]
    messages: deque[str]
    is_begun: Event
    reader: Thread


@contextmanager
def _running(command: list[str]) -> Iterator[_Running]:
    about, messages, is_begun = list[str](), deque[str](maxlen=_MESSAGES_KEPT), Event()

    def collect(stderr: IO[bytes]) -> None:
        rest = b""
        with suppress(ValueError):  # closed already: Ctrl-C came while this thread was being started
            while part := stderr.read(1 << 16):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    (messages if is_begun.is_set() else about).append(line.decode(errors="replace"))
                    if line.startswith(_BEGUN.encode()):
                        is_begun.set()
        if rest:
            messages.append(rest.decode(errors="replace"))
        is_begun.set()

    # bufsize=0: a forked process that drops a buffered pipe waits for good if a thread was reading it at the fork
    pipe, owner_pid = subprocess.PIPE, os.getpid()
    process = subprocess.Popen(command, bufsize=0, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    output, reader = cast(BinaryIO, process.stdout), Thread(target=collect, args=[process.stderr])
    try:
        reader.start()
        yield _Running(process, output, about, messages, is_begun, reader)
    finally:
        if os.getpid() == owner_pid:  # in a forked process all of them are the parent's
            with process:
                # For a caller that needs no more; otherwise ffmpeg has ended by now. Should the program be a script
                # that started ffmpeg, then ffmpeg ends because nobody reads its output.
                output.close()
                process.kill()
                if reader.is_alive():
                    reader.join()


def _end(run: _Running, path: str, found: _Found | None) -> list[str]:
    """Waits for the end; ffmpeg's errors that matter to the sound. Raises Refused if it failed."""
    run.reader.join()
    errors, others = _messages([*run.about, *run.messages], path, found)
    if code := run.process.wait():
        raise Refused("; ".join((errors or others)[-_MESSAGES:] or [f"ffmpeg ended with code {code}"]))
    return errors


def _messages(lines: list[str], path: str, found: _Found | None) -> tuple[list[str], list[str]]:
    """What ffmpeg printed -> its errors that matter to the sound, and what libraries in it (such as libgomp) or the
    system said. found: what is known of the file."""
    errors, others = list[str](), list[str]()
    was_harmless = False
    for line in lines:
        if tagged := _TAGGED.match(line):
            contexts = re.findall(r"\[([^\]]*) @ ", tagged[1])
            text = re.sub(r" on whitelist '.*'", " on whitelist", tagged[2].replace(f"file:{path}: ", "").strip())
            # Video from the middle of a broadcast begins with dozens.
            is_other = found is not None and contexts and contexts[-1] in found.decoders
            is_harmless = any(
                text.startswith(begins) and (found is None or found.format.startswith(format))
                for format, begins in _HARMLESS
            )
            if not (is_other or is_harmless or (was_harmless and text.startswith(_UNDECODED))):
                errors.append("ffmpeg: " + "".join(f"[{context}] " for context in contexts[-1:]) + text)
            was_harmless = is_harmless
        elif untagged := _UNTAGGED.match(line):
            others.append(f"ffmpeg: {untagged[1]}")
    return errors, others


def _tags_in_mpeg(file: BinaryIO) -> int:
    """How many ID3 tags stand between frames, where files were put one behind the other; and zeros or lyrics (Lyrics3)
    at the end."""
    n_tags, tail = 0, b""
    file.seek(10)
    while block := file.read(1 << 20):
        n_tags += len(re.findall(rb"ID3[\x02-\x04]\0[\0-\xf0][\0-\x7f]{4}", tail[-9:] + block))
        tail = (tail + block)[-160:]
    return n_tags + (not any(tail[-16:]) or b"LYRICS200" in tail or b"LYRICSEND" in tail)
