"""Files of other kinds than WAV -> blocks of samples, through the program ffmpeg or the Python package soundfile,
whichever the machine has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from threading import Thread
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from ..wav import Audio, NotWav, open_wav

# ffmpeg's names of what may hold sound. Left out are the formats that name other files, or addresses, to be read in
# their place (playlists such as hls and dash; concat, sdp): whoever sends a file must not choose what else is read.
_FFMPEG_FORMATS = (
    "3gp,aa,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,loas,m4a,matroska,mov,mp3,mp4,"
    "mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,swf,tak,tta,voc,w64,wav,webm,wtv,wv,xwma,"
    "adx,avr,iff,ircam,mlp,paf,pvf,sds,truehd"
)
_BLOCK_FRAMES = 1 << 16  # of soundfile's, at once
_MESSAGES = 3  # of ffmpeg's, the last ones, are passed on; a damaged file may give thousands


def converted(path: str, name: str, not_wav: NotWav) -> AbstractContextManager[Audio]:
    if program := shutil.which("ffmpeg"):
        return _through_ffmpeg(program, path, name, not_wav)
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: it does not find libsndfile
        raise AudioError(
            f"{not_wav}; to read it, install the program ffmpeg (all formats, videos too) or the Python package "
            "soundfile (FLAC, Ogg, MP3, AIFF, AU)"
        ) from not_wav
    return _through_soundfile(soundfile, path, name, not_wav)


@contextmanager
def _through_ffmpeg(program: str, path: str, name: str, not_wav: NotWav) -> Iterator[Audio]:
    """The first audio track at its own rate, as it is decoded."""
    # crccheck: else damaged FLAC becomes noise without a word; "file:": a name may look like an option or an address
    options = f"-v error -protocol_whitelist file -format_whitelist {_FFMPEG_FORMATS} -err_detect crccheck"
    output = "-map 0:a:0 -c:a pcm_f32le -f wav -"
    command = [program, *options.split(), "-i", f"file:{path}", *output.split()]
    promised = _flac_frames(path)  # now: when it has been read, it may be gone
    pipe, messages = subprocess.PIPE, deque[bytes](maxlen=_MESSAGES)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        # in a thread: ffmpeg would wait for a full pipe to be read
        reader = Thread(target=_collect, args=(messages, process.stderr))

        def ended() -> list[str]:
            """Waits for the end; ffmpeg's messages."""
            reader.join()
            said = ["ffmpeg: " + re.sub(r" @ 0x\w+", "", line.decode(errors="replace")).strip() for line in messages]
            if code := process.wait():
                raise AudioError("; ".join([str(not_wav), *(said or [f"ffmpeg ended with code {code}"])]))
            return said

        decoded = cast(BinaryIO, process.stdout)
        try:
            reader.start()
            try:
                audio = open_wav(decoded, name)
            except AudioError as error:
                decoded.close()  # or ffmpeg may wait for it to be read
                ended()
                raise AudioError(f"{not_wav}; what ffmpeg made of it: {error}") from error

            def blocks() -> Iterator[NDArray[np.float64]]:
                position = 0
                for frames in audio.blocks:
                    position += len(frames)
                    yield frames
                audio.warnings.extend([*ended(), *_missing("ffmpeg", position, promised, audio.rate)])

            yield replace(audio, blocks=blocks(), live=False)
        finally:
            # When the caller needs no more; else it has ended by now. If what was started is a script that started
            # ffmpeg, that one ends as nobody reads its output.
            decoded.close()
            process.kill()
            if reader.is_alive():
                reader.join()


def _collect(messages: deque[bytes], stderr: IO[bytes]) -> None:
    with suppress(ValueError):  # closed already: Ctrl-C came while this thread was being started
        messages.extend(stderr)


def _flac_frames(path: str) -> int:
    """How many there are by a FLAC file's header (RFC 9639, 8.2); 0 for others. ffmpeg 5 leaves out what it cannot
    decode without a word, and finds no frames at all in long stretches of 8-bit files."""
    with open(path, "rb") as file:
        head = file.read(26)
    return int.from_bytes(head[18:], "big") & 0xF_FFFF_FFFF if head[:4] == b"fLaC" else 0


def _missing(program: str, frames: int, promised: int, rate: int) -> list[str]:
    """The warning that frames are, if they are."""
    if frames >= promised:
        return []
    return [
        f"{program}: decoded {frames / rate:.2f} s of {promised / rate:.2f} s: the file is damaged, or of a rare kind"
    ]


@contextmanager
def _through_soundfile(soundfile: Any, path: str, name: str, not_wav: NotWav) -> Iterator[Audio]:
    def failed(error: Exception) -> AudioError:
        return AudioError(f"{not_wav}; soundfile: {error}; the program ffmpeg, if installed, may know it")

    try:
        # encoded here, as soundfile fails at names that are not UTF-8
        file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: of a file called .raw it expects no header
        raise failed(error) from error
    warnings: list[str] = []

    def blocks() -> Iterator[NDArray[np.float64]]:
        position = 0
        try:
            while len(frames := file.read(_BLOCK_FRAMES, dtype="float64", always_2d=True)):
                position += len(frames)
                yield frames
        except soundfile.LibsndfileError as error:
            raise failed(error) from error
        warnings.extend(_missing("soundfile", position, file.frames, file.samplerate))

    with file:
        yield Audio(name, file.samplerate, file.channels, file.frames / file.samplerate, blocks(), False, warnings)
