"""An encoder of standard operators (export/standard.py), which takes a mask with its mel features, as one that takes
none: clips as they are, or padded to one of a few lengths, for providers that compile a graph for lengths they know."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ModelError
from ..session import CPU, Device, OrtValue, Session

MEL, MEL_MASK = "mel", "mel_mask"  # float32 (B, 128, T), and (B, T): 1 for a clip's frames, 0 for padding


class MaskedEncoder(Session):
    """Every frame that comes is a clip's."""

    def __init__(self, opened: Session) -> None:
        super().__init__(opened._session, opened.path)
        self._masked = opened
        del self.inputs[MEL_MASK]

    def call(
        self, feeds: Mapping[str, ArrayLike | OrtValue], outputs: Mapping[str, Device | OrtValue]
    ) -> dict[str, OrtValue]:
        """As Session's."""
        mel = np.asarray(feeds[MEL])
        return self._masked.call({MEL: mel, MEL_MASK: np.ones((len(mel), mel.shape[2]))}, outputs)


class PaddedEncoder(MaskedEncoder):
    """A session for each length, opened when a clip first needs it: the shortest into which the clip fits. Each has
    weights of its own in memory."""

    def __init__(self, open_at: Callable[[int], Session], lengths: Sequence[int]) -> None:
        """open_at: opens the graph for so many mel frames;  lengths: of these, one or more. The longest is opened now,
        so that a graph that cannot be opened is told now."""
        self._open_at, self._lengths = open_at, sorted(lengths)
        self._opened = {self._lengths[-1]: open_at(self._lengths[-1])}
        super().__init__(self._opened[self._lengths[-1]])

    def call(
        self, feeds: Mapping[str, ArrayLike | OrtValue], outputs: Mapping[str, Device | OrtValue]
    ) -> dict[str, OrtValue]:
        """As Session's, for one clip. Raises ModelError for one that is longer than the longest session."""
        mel = np.asarray(feeds[MEL])
        n_frames = mel.shape[2]
        length = next((length for length in self._lengths if length >= n_frames), 0)
        if not length:
            most = f"is open for {self._lengths[-1]} mel frames at most"
            raise ModelError(f"{self.path.name} {most}; the clip has {n_frames}")
        if length not in self._opened:
            self._opened[length] = self._open_at(length)
        padded = np.zeros((1, mel.shape[1], length), np.float32)
        padded[:, :, :n_frames] = mel
        mask = np.arange(length)[None] < n_frames
        given = self._opened[length].call({MEL: padded, MEL_MASK: mask}, dict.fromkeys(outputs, CPU))
        cut = {}
        for name, value in given.items():  # (1, heads, frames, size)
            values = value.numpy()
            factor = -(-length // values.shape[2])  # mel frames for each of the encoder's: 8
            # a copy: `numpy` may show the memory of a value that is about to be gone
            values = values[:, :, : -(-n_frames // factor)].copy()
            cut[name] = OrtValue.ortvalue_from_numpy(values, *outputs[name])
        return cut


def unmasked(encoder: Session) -> Session:
    """It, or it as one that takes no mask."""
    return MaskedEncoder(encoder) if MEL_MASK in encoder.inputs else encoder
