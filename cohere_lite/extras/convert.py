"""Files of other kinds than WAV: what they are, and their samples, through the program ffmpeg or the Python package
soundfile, whichever the machine has."""

from __future__ import annotations

import codecs
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..codings import A_LAW, EXTENSIBLE, IEEE_FLOAT, IMA_ADPCM, MS_ADPCM, MU_LAW, PCM, SUPPORTED
from ..errors import AudioError, NotWav
from ..wav import Audio, open_wav
from .downloads import failed_download

# (offset, bytes there, name)
_AUDIO_MAGICS = [
    (8, b"AVI ", "an AVI video"),
    (8, b"AIFF", "an AIFF file"),
    (8, b"AIFC", "an AIFF-C file"),
    (0, b"OggS", "an Ogg file (Vorbis, Opus)"),
    (0, b"fLaC", "a FLAC file"),
    (0, b"ID3", "an MP3 file"),
    (4, b"ftyp", "an MP4 file (M4A, MOV)"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"\x30\x26\xb2\x75", "a Windows Media (ASF) file"),
    (0, b".snd", "an AU file"),
    (0, b"caff\0\1", "a Core Audio file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"NIST_1A\n", "a NIST SPHERE file"),
]
_OTHER_MAGICS = [
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xff\xfe", "a UTF-16 text file"),
]
# The codings of WAV files, by format tag (Microsoft's mmreg.h).
_CODINGS = {
    PCM: "PCM",
    MS_ADPCM: "Microsoft ADPCM",
    IEEE_FLOAT: "float",
    A_LAW: "A-law",
    MU_LAW: "mu-law",
    IMA_ADPCM: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0050: "MPEG audio",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x0161: "Windows Media Audio",
    0xF1AC: "FLAC",
    EXTENSIBLE: "EXTENSIBLE with an incomplete or foreign SubFormat",
}

# ffmpeg's names of what may hold sound. Left out are the formats that name other files, or addresses, to be read in
# their place (playlists such as hls and dash; concat, sdp): whoever sends a file must not choose what else is read.
_FFMPEG_FORMATS = (
    "3gp,aa,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,loas,m4a,matroska,mov,mp3,mp4,"
    "mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,swf,tak,tta,voc,w64,wav,webm,wtv,wv,xwma,"
    "adx,avr,iff,ircam,mlp,paf,pvf,sds,truehd"
)
_BLOCK_FRAMES = 1 << 16  # of soundfile's, at once
_MESSAGES = 3  # of ffmpeg's, the last ones, are passed on; a damaged file may give thousands


def identify(not_wav: NotWav) -> str:
    """What the file is that is not a WAV file of ours, for messages. Raises AudioError for what cannot be audio."""
    if not_wav.format_tag is not None:
        return f"{_CODINGS.get(not_wav.format_tag, 'unknown coding')}: {not_wav}"
    start = not_wav.start
    if download := failed_download(start.removeprefix(codecs.BOM_UTF8)):
        raise AudioError(f"not audio, but {download}: a failed download; fetch it again")
    for offset, magic, kind in _AUDIO_MAGICS:
        if start[offset:].startswith(magic):
            return kind
    for magic, kind in _OTHER_MAGICS:
        if start.startswith(magic):
            raise AudioError(f"{kind}; supported: WAV with {SUPPORTED}")
    if start[:1] == b"\xff" and start[1:2] >= b"\xe0":  # eleven set bits: an MPEG audio frame
        return "an MP3 or AAC file"
    if start and _is_text(start):
        text = start.decode("utf-8-sig", errors="ignore")
        raise AudioError(f"a text file, beginning {text[:30]!r}; supported: WAV with {SUPPORTED}")
    return str(not_wav)


def _is_text(start: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


@contextmanager
def converted(not_wav: NotWav, file: BinaryIO, start: int | None, path: str | None) -> Iterator[Audio]:
    """Opens what open_wav found not to be a WAV file of ours.

    file:  the open file, which is copied where there is no path
    start: where in the file the audio begins; None for a pipe, of which the first bytes are gone
    path:  of the file, or None

    Raises AudioError.
    """
    kind = identify(not_wav)
    if start is None:
        raise AudioError(f"{kind}; for a pipe, convert before it: ffmpeg -i IN -f wav - | ...")
    with ExitStack() as stack:
        if path is None:
            file.seek(start)
            path = os.path.join(stack.enter_context(TemporaryDirectory()), "audio")
            with open(path, "wb") as copy:
                shutil.copyfileobj(file, copy)
        yield stack.enter_context(_through(path, kind))


def _through(path: str, kind: str) -> AbstractContextManager[Audio]:
    """kind: what the file is, for messages."""
    if program := _find_ffmpeg():
        return _through_ffmpeg(program, path, kind)
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: it does not find libsndfile
        raise AudioError(
            f"{kind}; to read it, install the program ffmpeg (all formats, videos too) or the Python package "
            "soundfile (FLAC, Ogg, MP3, AIFF, AU)"
        ) from None
    return _through_soundfile(soundfile, path, kind)


def _find_ffmpeg() -> str | None:
    """Its path. Not by shutil.which("ffmpeg"): on Windows that looks into the current folder before the PATH, and so
    would run what somebody put there."""
    program = "ffmpeg.exe" if os.name == "nt" else "ffmpeg"
    paths = [os.path.join(folder, program) for folder in os.get_exec_path() if os.path.isabs(folder)]
    return next(filter(shutil.which, paths), None)


@contextmanager
def _through_ffmpeg(program: str, path: str, kind: str) -> Iterator[Audio]:
    """The first audio track at its own rate, as it is decoded."""
    # crccheck: without it, damaged FLAC becomes noise without a word. "file:": a name may look like an option or an
    # address
    options = f"-v error -protocol_whitelist file -format_whitelist {_FFMPEG_FORMATS} -err_detect crccheck"
    output = "-map 0:a:0 -c:a pcm_f32le -f wav -"
    command = [program, *options.split(), "-i", f"file:{path}", *output.split()]
    promised = _flac_frames(path)  # now, as the file may be gone when its samples have been read
    pipe, messages = subprocess.PIPE, deque[bytes](maxlen=_MESSAGES)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        # in a thread: while a full pipe of messages is not read, ffmpeg waits
        reader = Thread(target=_collect, args=(messages, process.stderr))

        def ended() -> list[str]:
            """Waits for the end; ffmpeg's messages."""
            reader.join()
            said = ["ffmpeg: " + re.sub(r" @ 0x\w+", "", line.decode(errors="replace")).strip() for line in messages]
            if code := process.wait():
                raise AudioError("; ".join([kind, *(said or [f"ffmpeg ended with code {code}"])]))
            return said

        decoded = cast(BinaryIO, process.stdout)
        try:
            reader.start()
            try:
                audio = open_wav(decoded)
            except AudioError as error:
                decoded.close()  # while it is open and not read, ffmpeg may wait
                ended()
                raise AudioError(f"{kind}; what ffmpeg made of it: {error}") from error

            def blocks() -> Generator[NDArray[np.float64], None, None]:
                position = 0
                for frames in audio.blocks:
                    position += len(frames)
                    yield frames
                audio.missing.extend([*ended(), *_missing("ffmpeg", position, promised, audio.rate)])

            yield replace(audio, blocks=blocks(), live=False)
        finally:
            # For a caller that needs no more; otherwise ffmpeg has ended by now. Should the program be a script that
            # started ffmpeg, then ffmpeg ends because nobody reads its output.
            decoded.close()
            process.kill()
            if reader.is_alive():
                reader.join()


def _collect(messages: deque[bytes], stderr: IO[bytes]) -> None:
    with suppress(ValueError):  # closed already: Ctrl-C came while this thread was being started
        messages.extend(stderr)


def _flac_frames(path: str) -> int:
    """How many frames a FLAC file's header promises (RFC 9639, 8.2); 0 for other files. Without a word, ffmpeg 5 leaves
    out what it cannot decode, and finds no frames at all in long stretches of 8-bit files."""
    with open(path, "rb") as file:
        head = file.read(26)
    return int.from_bytes(head[18:], "big") & 0xF_FFFF_FFFF if head[:4] == b"fLaC" else 0


def _missing(program: str, frames: int, promised: int, rate: int) -> list[str]:
    """A warning if fewer frames came than the header promised."""
    if frames >= promised:
        return []
    return [
        f"{program}: decoded {frames / rate:.2f} s of {promised / rate:.2f} s: the file is damaged, or of a rare kind"
    ]


@contextmanager
def _through_soundfile(soundfile: Any, path: str, kind: str) -> Iterator[Audio]:
    def failed(error: Exception) -> AudioError:
        return AudioError(f"{kind}; soundfile: {error}; the program ffmpeg, if installed, may know it")

    try:
        # encoded here, because soundfile fails at names that are not UTF-8
        file = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: it expects no header in a file called .raw
        raise failed(error) from error
    missing: list[str] = []

    def blocks() -> Generator[NDArray[np.float64], None, None]:
        position = 0
        try:
            while len(frames := file.read(_BLOCK_FRAMES, dtype="float64", always_2d=True)):
                position += len(frames)
                yield frames
        except soundfile.LibsndfileError as error:
            raise failed(error) from error
        missing.extend(_missing("soundfile", position, file.frames, file.samplerate))

    with file:
        duration = file.frames / file.samplerate
        yield Audio(file.samplerate, duration, blocks(), missing=missing)
