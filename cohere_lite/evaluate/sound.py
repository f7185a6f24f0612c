"""The sound of an utterance: frames as its file has them, or 16 kHz mono samples."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio import mix, open_audio, stretch
from ..errors import AudioError, OptionError
from ..mel import SAMPLE_RATE
from ..resample import Resampler
from .layouts.layout import Utterance


class Sound(NamedTuple):
    """frames: float32 (n, channels);  rate: Hz;  warnings: what was wrong with the file and did not keep it from being
    read, its missing end included."""

    frames: NDArray[np.float32]
    rate: int
    warnings: list[str]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.frames) / self.rate


def read_sound(utterance: Utterance, end_s: float | None = None) -> Sound:
    """The utterance's part of its file.  end_s: no more than so many seconds. Raises AudioError, OSError, and whatever
    `utterance.audio` raises."""
    source = utterance.audio()
    start, end = utterance.start_s or 0.0, utterance.end_s
    if end_s is not None:
        end = min(start + end_s, end or start + end_s)
    channel = "split" if utterance.channel is None else utterance.channel  # all of them as they are
    with open_audio(source) as audio:
        try:
            parts = [mix(frames, channel) for frames in stretch(audio, start, end)]
        except OptionError as error:  # of times and channels that the data set gives
            raise AudioError(str(error)) from error
        if not sum(map(len, parts)):
            raise AudioError("holds no sound")
        return Sound(np.concatenate(parts), audio.rate, [*audio.missing, *audio.warnings])


def mono(sound: Sound) -> NDArray[np.float32]:
    """Samples (n,) at 16 kHz, the mean of the channels. Raises AudioError."""
    resampler = Resampler(sound.rate)
    mixed = mix(sound.frames, None)[:, 0]
    return np.concatenate([resampler.push(mixed), resampler.finish()]) if sound.rate != SAMPLE_RATE else mixed
