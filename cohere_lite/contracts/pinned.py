"""Masterx's second decoder for the "merged past" contract, made for DirectML: all shapes are fixed, so it takes one
token a call, and is told by masks where to write it and where to look.

decoder  as in merged.py, with pasts and presents of all positions, and
         kv_keep_mask, kv_write_mat (1, 1, positions, 1), attn_bias (1, 1, 1, positions)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .contract import Clip, fixed_size
from .merged import MergedContract


class PinnedContract(MergedContract):
    """The encoder gives the cross-attention's keys and values: the decoder does not read encoder_hidden_states."""

    name = "pinned"
    max_positions_key = None
    decoder_graph = (
        MergedContract.decoder_graph[0] | {"kv_keep_mask", "kv_write_mat", "attn_bias"},
        MergedContract.decoder_graph[1],
    )

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with a new clip, the only one."""
        super().start(clips)
        self._caches.fill(np.zeros)  # a NaN that a clip left would stay: times 0 it is NaN

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (1, n), one by one; the logits that follow the last, float32 (1, vocabulary_size)."""
        unseen = np.finfo(self.decoder.inputs["attn_bias"].dtype).min
        self._clip["encoder_hidden_states"] = np.zeros([1, 1, fixed_size(self.decoder, "encoder_hidden_states", 2)])
        for token in np.asarray(tokens)[0]:
            here = np.arange(self.max_positions) - self._offset
            feeds = {
                "input_ids": [[token]],
                "attention_mask": np.ones((1, self.max_positions)),
                "position_ids": [[self._offset]],
                "kv_keep_mask": (here != 0)[None, None, :, None],
                "kv_write_mat": (here == 0)[None, None, :, None],
                "attn_bias": np.where(here <= 0, 0, unseen)[None, None, None],
            }
            given = self._run(feeds, self.max_positions, self.max_positions)
            self._offset += 1
        return given["logits"].numpy()[:, -1].astype(np.float32)  # a copy: the value goes with its memory
