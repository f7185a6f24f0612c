"""The "fast" contract in a GPU's memory: keys and values stay there from the encoder's output on, and only tokens, and
the chosen ones' log-probabilities, cross the bus at each step.

The rows of clips that have ended run on, unseen, until the batch ends: nothing is moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..contracts.contract import Clip, Contract
from ..contracts.fast import FastContract
from ..session import CPU, OrtValue, Session
from .recorded import find_step, zeros
from .side_by_side import SideBySide


def on_device(contract: type[Contract], decoder: Session) -> type[Contract]:
    """The contract's class for the memory in which the decoder keeps its caches."""
    is_fast = contract is FastContract and decoder.inputs["past_key_0"].device != CPU
    return DeviceContract if is_fast else contract


class DeviceContract(FastContract):
    """Caches are OrtValues, of as many rows as there are clips, rounded up to a power of two: few sets of buffers are
    allocated, once each."""

    def __init__(self, encoder: Session, decoder: Session, config: Mapping[str, Any]) -> None:
        self._side_by_side = SideBySide(decoder)
        self._recorded = find_step(decoder)
        self._chooses = {"next_token", "next_logprob"} <= decoder.outputs.keys()
        self._caches_of: dict[int, dict[str, OrtValue]] = {}  # by the number of rows
        super().__init__(encoder, decoder, config)

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with new clips."""
        Contract.start(self, clips)
        self._rows = list(range(len(clips)))  # of the clips that have not ended
        n_rows = 1 << (len(clips) - 1).bit_length()
        in_rows = [clip.values for clip in clips] + [clips[0].values] * (n_rows - len(clips))
        self._lengths = np.array([values["cross_value_0"].shape()[2] for values in in_rows])
        if n_rows not in self._caches_of:
            self._allocate(n_rows)
        self._caches = self._caches_of[n_rows]
        self._step = self._recorded if self._recorded and max(self._lengths) <= self._recorded.n_frames else None
        if self._step:
            for name, value in self._step.start(in_rows, self._caches).items():
                self.decoder.bind(name, value)
        elif n_rows > 1:
            for name in in_rows[0]:
                self.decoder.bind(name, self._side_by_side(name, [values[name] for values in in_rows]))
        self.decoder.feed("encoder_length", self._lengths)
        for name, value in self._caches.items():
            self.decoder.bind(name, value)
            self.decoder.bind(name.replace("past_", "present_"), value)

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (clips, n); the logits that follow the last, float32 (clips, vocabulary_size)."""
        (logits,) = self._run(np.asarray(tokens), {"logits": (1, self.vocabulary_size)})
        return logits[:, 0]

    def choose(self, tokens: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `step`: the likeliest next token of each clip, and its natural log-probability."""
        if not self._chooses:
            return super().choose(tokens)
        token, logprob = self._run(np.asarray(tokens), {"next_token": (), "next_logprob": ()})
        return token, logprob

    def keep(self, rows: list[int]) -> list[int]:
        """Go on with these of the rows."""
        self._rows = [self._rows[row] for row in rows]
        return rows

    def _run(self, tokens: NDArray[np.int64], outputs: dict[str, tuple[int, ...]]) -> list[NDArray[Any]]:
        """Feed tokens (clips, n); these outputs, of a shape (clips, ...).  outputs: what follows the first size"""
        in_rows = np.zeros((len(self._lengths), tokens.shape[1]), np.int64)
        in_rows[self._rows] = tokens
        if self._step and tokens.shape[1] == 1:
            found = self._step(in_rows, self._offset, [*outputs])
            self._offset += 1
        else:
            found = [self.decoder.receive(name, (len(in_rows), *shape)) for name, shape in outputs.items()]
            self.feed(in_rows)
        return [array[self._rows] for array in found]

    def _allocate(self, n_rows: int) -> None:
        shape = (n_rows, self._heads, self.max_positions, self._head_dim)
        self._caches_of[n_rows] = {name: zeros(self._past_type, shape) for name in self._past_names}
