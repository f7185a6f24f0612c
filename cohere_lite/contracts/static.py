"""The "static" contract: the model card's files, sherpa-onnx's, and ours that sherpa-onnx reads, too. All layers of the
keys in one tensor, all of the values in another.

    encoder  mel (B, 128, T)
             -> n_layer_cross_k, n_layer_cross_v (layers, B, T', width)
    decoder  tokens (B, n), in_n_layer_self_k_cache, in_n_layer_self_v_cache (layers, B, heads, positions, head_dim),
             n_layer_cross_k, n_layer_cross_v, offset ()
             -> logits (B, n, vocabulary), out_n_layer_self_k_cache, out_n_layer_self_v_cache

Where the graph allows it, one buffer is bound as input and as output and never cleared. Whether it does is tried at
load. Otherwise two buffers take turns, and are cleared for each clip as the published loop does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..session import OrtValue, Session
from .caches import Caches, noise, try_in_place
from .contract import Clip, Contract, fixed_size


class StaticContract(Contract):
    """The caches are fed whole."""

    name = "static"
    encoder_graph = {"mel"}, {"n_layer_cross_k", "n_layer_cross_v"}
    decoder_graph = (
        encoder_graph[1] | {"tokens", "offset", "in_n_layer_self_k_cache", "in_n_layer_self_v_cache"},
        {"logits", "out_n_layer_self_k_cache", "out_n_layer_self_v_cache"},
    )

    def __init__(self, encoder: Session, decoder: Session, config: Mapping[str, Any]) -> None:
        super().__init__(encoder, decoder, config)
        layers, heads, self.max_positions, head_dim = (
            fixed_size(decoder, "in_n_layer_self_k_cache", axis) for axis in (0, 2, 3, 4)
        )
        names = {f"in_n_layer_self_{part}_cache": f"out_n_layer_self_{part}_cache" for part in "kv"}
        self._caches = Caches(decoder, names, (layers, 1, heads, self.max_positions, head_dim), axis=3)
        cross = noise((layers, 1, 8, fixed_size(decoder, "n_layer_cross_k", -1)))
        values = {name: cross.astype(decoder.inputs[name].dtype) for name in ("n_layer_cross_k", "n_layer_cross_v")}
        clip = Clip(0.64, {name: OrtValue.ortvalue_from_numpy(value) for name, value in values.items()})
        try_in_place(self, self._caches, clip)

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with a new clip, the only one."""
        super().start(clips)
        if not self._caches.in_place:
            self._caches.fill(np.zeros)

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (1, n); the logits that follow the last, float32 (1, vocabulary_size)."""
        self._caches.bind(self.decoder, self.max_positions, self.max_positions)
        return super().step(tokens)
