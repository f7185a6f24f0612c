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
from ..session import BFLOAT16, CPU, OrtValue, Session, Value
from .side_by_side import SideBySide


def on_device(contract: type[Contract], decoder: Session) -> type[Contract]:
    """The contract's class for the memory in which the decoder keeps its caches."""
    is_fast = contract is FastContract and decoder.inputs["past_key_0"].device != CPU
    return DeviceContract if is_fast else contract


class DeviceContract(FastContract):
    """Caches are OrtValues, of as many rows as there are clips."""

    def __init__(self, encoder: Session, decoder: Session, config: Mapping[str, Any]) -> None:
        self._side_by_side = SideBySide(decoder)
        self._chooses = {"next_token", "next_logprob"} <= decoder.outputs.keys()
        super().__init__(encoder, decoder, config)

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with new clips."""
        Contract.start(self, clips)
        self._rows = list(range(len(clips)))  # of the clips that have not ended
        self._lengths = np.array([clip.values["cross_value_0"].shape()[2] for clip in clips])
        if len(clips) > 1:
            for name in clips[0].values:
                self.decoder.bind(name, self._side_by_side(name, [clip.values[name] for clip in clips]))
        if len(clips) != self._allocated:
            self._allocate(len(clips))
        self.decoder.feed("encoder_length", self._lengths)
        for name, value in self._caches.items():
            self.decoder.bind(name, value)
            self.decoder.bind(name.replace("past_", "present_"), value)

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (clips, n); the logits that follow the last, float32 (clips, vocabulary_size)."""
        return super().step(self._in_rows(tokens))[self._rows]

    def choose(self, tokens: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `step`: the likeliest next token of each clip, and its natural log-probability."""
        if not self._chooses:
            return super().choose(tokens)
        tokens = self._in_rows(tokens)
        chosen = [self.decoder.receive(name, (len(tokens),)) for name in ("next_token", "next_logprob")]
        self.feed(tokens)
        return chosen[0][self._rows], chosen[1][self._rows]

    def keep(self, rows: list[int]) -> list[int]:
        """Go on with these of the rows."""
        self._rows = [self._rows[row] for row in rows]
        return rows

    def _in_rows(self, tokens: ArrayLike) -> NDArray[np.int64]:
        """A row for each clip of the batch."""
        tokens = np.asarray(tokens)
        in_rows = np.zeros((len(self._lengths), tokens.shape[1]), np.int64)
        in_rows[self._rows] = tokens
        return in_rows

    def _allocate(self, n_rows: int) -> None:
        shape = (n_rows, self._heads, self.max_positions, self._head_dim)
        self._allocated, self._caches = n_rows, dict[str, OrtValue]()  # those of another number of rows go first
        self._caches = {name: zeros(self._past_type, shape) for name in self._past_names}


def zeros(value: Value, shape: tuple[int, ...]) -> OrtValue:
    """Of this type, in this memory."""
    if value.dtype == BFLOAT16:
        made = OrtValue.ortvalue_from_shape_and_type(shape, 16, *value.device)  # TensorProto.BFLOAT16 of onnx.proto
        made.update_inplace(np.zeros(shape, np.uint16))
        return made
    return OrtValue.ortvalue_from_numpy(np.zeros(shape, value.dtype), *value.device)
