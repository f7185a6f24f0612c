"""Files of other kinds than WAV: their samples, through the program ffmpeg or the Python package soundfile, whichever
the machine has and knows the file."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from tempfile import mkdtemp
from typing import BinaryIO
from weakref import finalize

from ..errors import AudioError, NotWav
from ..reader import read_some
from ..wav import Audio
from .ffmpeg import find_ffmpeg, through_ffmpeg
from .kinds import Refused, identify
from .sndfile import through_soundfile

_KIND_BYTES = 1 << 12  # tell what kind of file it is
_FORM_TYPES = b"RIFF RIFX RF64 BW64 riff".split()  # how WAV files with codings that are not ours begin


@contextmanager
def converted(
    not_wav: NotWav, file: BinaryIO, start: int | None, path: str | None, track: int | None
) -> Iterator[Audio]:
    """Opens what open_wav found not to be a WAV file of ours.

    file:  the open file, which is copied where there is no path that ffmpeg could open, too
    start: where in the file the audio begins; None for a pipe, of which the first bytes are gone
    path:  of the file, or None
    track: from 0 among the audio tracks; None for the one that the file calls its default, or else the first

    Raises AudioError, OptionError for a track that is not there, OSError if the copy cannot be written.
    """
    if not_wav.position is not None:
        start, path = not_wav.position, None
    head = _read_again(file, start, not_wav.start)
    kind = identify(not_wav, head or not_wav.start)
    if not head:
        raise AudioError(f"{kind}; for a pipe, convert before it: ffmpeg -i IN -f wav - | ...")
    with ExitStack() as stack:
        path = path and _for_others(path, file)
        if path is None:
            file.seek(start or 0)
            folder = mkdtemp()
            # not TemporaryDirectory: at the end of a forked process that would remove the parent's
            stack.callback(finalize(stack, _remove_folder, folder, os.getpid()))
            path = os.path.join(folder, "audio")
            with open(path, "wb") as copy:
                shutil.copyfileobj(file, copy)
        yield stack.enter_context(_through(path, kind, track))


def _remove_folder(folder: str, owner_pid: int) -> None:
    if os.getpid() == owner_pid:
        shutil.rmtree(folder, ignore_errors=True)


def _read_again(file: BinaryIO, start: int | None, expected: bytes) -> bytes:
    """The first _KIND_BYTES of the audio; none where the file cannot go back to them, or is a device without an
    end.

    Some objects have tell and no seek (urllib3's responses); some seek and then fail to read, with an error of their
    own (members of a tar stream), or read what comes next.
    """
    head = b""
    with suppress(Exception):  # no descriptor
        if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
            return b""
    try:
        file.seek(start)  # type: ignore[arg-type]  # None is one more kind of failure
        while len(head) < _KIND_BYTES and (part := read_some(file, _KIND_BYTES - len(head))):
            head += part
    except Exception:
        return b""
    return head if head.startswith(expected or tuple(_FORM_TYPES)) else b""


def _for_others(path: str, file: BinaryIO) -> str | None:
    """The path under which another program opens the same file; None if there is none. /dev/stdin, /dev/fd/3 and the
    like, and links to them, are of each process its own."""
    if os.name != "posix":
        return path
    path = os.path.realpath(path)
    try:
        is_same = os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:  # deleted, but still open
        return None
    return path if is_same and not path.startswith(("/dev/", "/proc/")) else None


@contextmanager
def _through(path: str, kind: str, track: int | None) -> Iterator[Audio]:
    """By the first converter that knows the file. kind: what it is, for messages."""
    refusals: list[str] = []
    with ExitStack() as stack:
        for converter in _converters(path, kind, track):
            try:
                audio = stack.enter_context(converter)
                break
            except Refused as refusal:
                refusals.append(str(refusal))
        else:
            if not refusals:
                raise AudioError(
                    f"{kind}; to read it, install the program ffmpeg (all formats, videos too) or the Python package "
                    "soundfile (FLAC, Ogg, MP3, AIFF, AU)"
                )
            if find_ffmpeg() is None:
                refusals.append("the program ffmpeg, if installed, may know it")
            raise AudioError("; ".join([kind, *refusals]))
        yield audio


def _converters(path: str, kind: str, track: int | None) -> Iterator[AbstractContextManager[Audio]]:
    if program := find_ffmpeg():
        yield through_ffmpeg(program, path, kind, track)
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: it does not find libsndfile
        return
    yield through_soundfile(soundfile, path, kind, track)
