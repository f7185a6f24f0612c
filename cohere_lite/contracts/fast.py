"""The "fast" contract, which `python -m cohere_lite.export` writes: each decoder layer has a buffer for its keys and
one for its values, past and present in one.

    encoder  mel (B, 128, T)
             -> cross_key_i, cross_value_i (B, heads, T', head_dim)
    decoder  tokens (B, n), offset (), encoder_length (B,), past_key_i, past_value_i (B, heads, positions, head_dim),
             cross_key_i, cross_value_i
             -> logits (B, 1, vocabulary), present_key_i, present_value_i; for GPUs next_token (B,), the likeliest, and
                next_logprob (B,), its log-probability

GroupQueryAttention writes new rows into the buffer and reads no row that this clip has not written, so a buffer is
bound as past and as present, and never cleared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..session import OrtValue, Session
from .contract import Clip, Contract, fixed_size


class FastContract(Contract):
    """One clip's cross-attention keys and values are read where the encoder wrote them; several clips' are laid side by
    side, padded to the longest, with their lengths to mask the padding. Here NumPy does that, in the CPU's memory; in a
    GPU's, devices/on_device.py."""

    name = "fast"
    encoder_graph = {"mel"}, {"cross_key_0", "cross_value_0"}
    decoder_graph = (
        {"tokens", "offset", "encoder_length", "past_key_0", "past_value_0", "cross_key_0", "cross_value_0"},
        {"logits", "present_key_0", "present_value_0"},
    )
    takes_batches = True

    def __init__(self, encoder: Session, decoder: Session, config: Mapping[str, Any]) -> None:
        super().__init__(encoder, decoder, config)
        self._past_type = decoder.inputs["past_key_0"]
        self._past_names = [name for name in decoder.inputs if name.startswith("past_")]
        self._heads, self.max_positions, self._head_dim = (fixed_size(decoder, "past_key_0", i) for i in (1, 2, 3))
        self._allocate(1)

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with new clips."""
        super().start(clips)
        self._cross: dict[str, NDArray] = {}  # of several clips
        self._lengths = np.array([clip.values["cross_value_0"].shape()[2] for clip in clips])
        if len(clips) > self._allocated:
            self._allocate(len(clips))
        if len(clips) > 1:
            shape = (len(clips), self._heads, max(self._lengths), self._head_dim)
            for name in [*clips[0].values]:
                self._cross[name] = np.zeros(shape, self.decoder.inputs[name].dtype)
                for row, length in enumerate(self._lengths):
                    self._cross[name][row, :, :length] = clips[row].values[name].numpy()
        self._bind_rows()

    def keep(self, rows: list[int]) -> list[int]:
        """Go on with these of the rows; their numbers in their new order.

        The first rows of a buffer are what is bound, so rows from the end move into the gaps."""
        order = list(range(len(rows)))
        gaps = [row for row in order if row not in rows]
        for gap, row in zip(gaps, [row for row in rows if row >= len(rows)], strict=True):
            order[gap] = row
            for buffer in self._past.values():
                buffer[gap, :, : self._offset] = buffer[row, :, : self._offset]
            for cross in self._cross.values():
                cross[gap] = cross[row]
            self._lengths[gap] = self._lengths[row]
        if len(rows) < len(self._lengths):
            self._lengths = self._lengths[: len(rows)]
            self._bind_rows()
        return order

    def release(self) -> None:
        """Let go of the clips."""
        self._cross = {}
        super().release()

    def _allocate(self, n_rows: int) -> None:
        shape = (n_rows, self._heads, self.max_positions, self._head_dim)
        # np.zeros takes no memory until it is written to
        self._past = {name: np.zeros(shape, self._past_type.dtype) for name in self._past_names}
        self._past_values: dict[tuple[str, int], OrtValue] = {}
        self._allocated = n_rows

    def _bind_rows(self) -> None:
        count = len(self._lengths)
        self.decoder.feed("encoder_length", self._lengths)
        for name, buffer in self._cross.items():
            self.decoder.bind(name, OrtValue.ortvalue_from_numpy(buffer[:count]))
        for name, buffer in self._past.items():
            if (name, count) not in self._past_values:
                self._past_values[name, count] = OrtValue.ortvalue_from_numpy(buffer[:count])
            value = self._past_values[name, count]
            self.decoder.bind(name, value)
            self.decoder.bind(name.replace("past_", "present_"), value)
