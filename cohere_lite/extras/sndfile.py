"""The Python package soundfile, which brings libsndfile: FLAC, Ogg, MP3, AIFF, AU and rarer kinds."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, OptionError
from ..wav import Audio
from .ffmpeg import decoded_less
from .kinds import Refused
from .lengths import another_follows, cut_short, promised_end

_BLOCK_FRAMES = 1 << 16  # at once
_NO_COUNT = 1 << 62  # frames from here on: the header does not tell, as in FLAC that was written to a pipe


@contextmanager
def through_soundfile(soundfile: Any, path: str, kind: str, track: int | None) -> Iterator[Audio]:
    """soundfile: the module;  kind: what the file is, for messages;  track: None or 0.

    Raises Refused if libsndfile does not know the file, AudioError, OptionError for a track that is not there."""
    with open(path, "rb") as opened:
        missing = cut_short(opened)
        # The length of an MP3 file without a Xing header is an estimate.
        opened.seek(0)
        is_estimate = opened.read(4) != b"RIFF" and promised_end(opened) is None
        opened.seek(0)

        def seek(position: int, whence: int) -> None:
            with suppress(OSError):  # a damaged header; libsndfile asks where it is then
                opened.seek(position, whence)

        # libsndfile takes any bytes called .au, .snd, .gsm or .vox for sound; without a name it looks at the bytes.
        nameless = SimpleNamespace(seek=seek, tell=opened.tell, readinto=opened.readinto)
        try:
            file = soundfile.SoundFile(nameless)
        except soundfile.LibsndfileError as error:
            raise Refused(f"soundfile: {error.error_string}") from error
        with file:
            if track not in (None, 0):
                raise OptionError(f"track is {track}, but the recording has 1, counted from 0")
            n_frames = file.frames if file.frames < _NO_COUNT else 0
            promised = 0 if is_estimate and file.format == "MP3" else n_frames

            def blocks() -> Generator[NDArray[np.float64], None, None]:
                position = 0
                try:
                    while len(frames := file.read(_BLOCK_FRAMES, dtype="float64", always_2d=True)):
                        position += len(frames)
                        yield frames
                except soundfile.LibsndfileError as error:
                    raise AudioError(f"{kind}; soundfile: {error.error_string}") from error
                missing.extend([] if missing else decoded_less("soundfile", position, promised, file.samplerate))
                missing.extend(another_follows(opened, reads_on=False))

            duration = n_frames / file.samplerate if n_frames else None
            yield Audio(file.samplerate, duration, blocks(), missing=missing)
