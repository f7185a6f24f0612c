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

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..session import OrtValue, Session
from .contract import Clip, Contract, fixed_size


class StaticContract(Contract):
    """in_place: one buffer is input and output."""

    name = "static"
    encoder_graph = {"mel"}, {"n_layer_cross_k", "n_layer_cross_v"}
    decoder_graph = (
        encoder_graph[1] | {"tokens", "offset", "in_n_layer_self_k_cache", "in_n_layer_self_v_cache"},
        {"logits", "out_n_layer_self_k_cache", "out_n_layer_self_v_cache"},
    )

    def __init__(self, encoder: Session, decoder: Session) -> None:
        super().__init__(encoder, decoder)
        layers, heads, self.max_positions, head_dim = (
            fixed_size(decoder, "in_n_layer_self_k_cache", axis) for axis in (0, 2, 3, 4)
        )
        self._cache = decoder.inputs["in_n_layer_self_k_cache"]
        self._cache_shape = (layers, 1, heads, self.max_positions, head_dim)
        self._buffers = self._new_buffers(2)
        self.in_place = False  # while it is tried
        if self._same_in_place():
            self.in_place, self._buffers = True, self._buffers[:1] * 2

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with a new clip, the only one."""
        super().start(clips)
        if not self.in_place:
            for buffer in self._buffers:
                for value in buffer.values():
                    value.update_inplace(np.zeros(self._cache_shape, self._cache.dtype))

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (1, n); the logits that follow the last, float32 (1, vocabulary_size)."""
        source, target = self._buffers
        for part in "kv":
            self.decoder.bind(f"in_n_layer_self_{part}_cache", source[part])
            self.decoder.bind(f"out_n_layer_self_{part}_cache", target[part])
        self._buffers = [target, source]
        return super().step(tokens)

    def _new_buffers(self, count: int) -> list[dict[str, OrtValue]]:
        zeros, device = np.zeros(self._cache_shape, self._cache.dtype), self._cache.device
        return [{part: OrtValue.ortvalue_from_numpy(zeros.copy(), device) for part in "kv"} for _ in range(count)]

    def _same_in_place(self) -> bool:
        """Whether a few steps give the same logits, to the last bit, with two clean buffers and with one full of
        another clip's numbers."""
        random = np.random.default_rng(0)

        def noise(shape: tuple[int, ...], name: str) -> NDArray:
            return random.standard_normal(shape, np.float32).astype(self.decoder.inputs[name].dtype)

        n_frames = 8
        shape = (self._cache_shape[0], 1, n_frames, fixed_size(self.decoder, "n_layer_cross_k", -1))
        cross = {
            name: OrtValue.ortvalue_from_numpy(noise(shape, name)) for name in ("n_layer_cross_k", "n_layer_cross_v")
        }
        clip = Clip(n_frames / 12.5, cross)
        steps = [[[0, 1, 2]], [[3]], [[1]], [[2]]]
        clean = self._buffers

        self.start([clip])
        expected = [self.step(tokens).copy() for tokens in steps]

        dirty = self._new_buffers(1)[0]
        for value in dirty.values():
            value.update_inplace(noise(self._cache_shape, "in_n_layer_self_k_cache"))
        self._buffers = [dirty, dirty]
        self.in_place = True  # start does not clear
        self.start([clip])
        found = [self.step(tokens).copy() for tokens in steps]
        self.in_place, self._buffers = False, clean
        self.release()
        return bool(np.array_equal(expected, found))
