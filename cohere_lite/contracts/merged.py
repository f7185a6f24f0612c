"""The "merged past" contract: onnx-community's files, which transformers.js, voxtype, parakeet-rs, sokuji and WinSTT
run. One decoder for the first step, where it works out the cross-attention's keys and values, and for all later ones.

    encoder  input_features (B, T, 128)
             -> last_hidden_state (B, T', width)
    decoder  input_ids (B, n), attention_mask (B, past + n), position_ids (B, n), num_logits_to_keep (),
             encoder_hidden_states, past_key_values.i.{decoder,encoder}.{key,value} (B, heads, length, head_dim)
             -> logits (B, 1, vocabulary), present.i.{decoder,encoder}.{key,value}

Where the decoder allows it, which is tried at load (GroupQueryAttention does), one buffer of all positions is past and
present from the second step on: the first one needs a past of length 0, by which some files know it. Otherwise two
buffers take turns. The first step's cross-attention keys and values are fed to all later ones, whose own may be empty.
In Masterx's files they come from the encoder, as cross_attn.*, padded, with a cross_bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..mel import SAMPLE_RATE
from ..session import CPU, OrtValue, Session
from .caches import Caches, noise, try_in_place
from .contract import Clip, Contract, fixed_size

PAST, PRESENT = "past_key_values.", "present."


class MergedContract(Contract):
    """One clip at a time: neither graph has a mask for the padding of others."""

    name = "merged"
    encoder_graph = {"input_features"}, {"last_hidden_state"}
    decoder_graph = (
        {"input_ids", "encoder_hidden_states", *(f"{PAST}0.decoder.{part}" for part in ("key", "value"))},
        {"logits", *(f"{PRESENT}0.decoder.{part}" for part in ("key", "value"))},
    )
    also_fed = frozenset(["attention_mask", "position_ids", "num_logits_to_keep", "use_cache_branch", "cross_bias"]) | {
        f"{PAST}0.encoder.{part}" for part in ("key", "value")
    }
    encoder_input, mel_axis = "input_features", 2
    max_positions_key: str | None = "max_position_embeddings"
    renamed: ClassVar = {"last_hidden_state": "encoder_hidden_states"}

    def __init__(self, encoder: Session, decoder: Session, config: Mapping[str, Any]) -> None:
        super().__init__(encoder, decoder, config)
        if self.max_positions_key is None:
            self.max_positions = fixed_size(decoder, f"{PAST}0.decoder.key", 2)
        heads, head_dim = (fixed_size(decoder, f"{PAST}0.decoder.key", axis) for axis in (1, 3))
        pasts = {name: name.replace(PAST, PRESENT) for name in decoder.inputs if name.startswith(PAST)}
        own = {name: output for name, output in pasts.items() if ".decoder." in name}
        self._cross = {name: output for name, output in pasts.items() if name not in own}
        self._caches = Caches(decoder, own, (1, heads, self.max_positions, head_dim), axis=2)
        nothing = np.zeros((1, heads, 0, head_dim), decoder.inputs[f"{PAST}0.decoder.key"].dtype)
        self._nothing = OrtValue.ortvalue_from_numpy(nothing)
        try_in_place(self, self._caches, self.encode(noise((SAMPLE_RATE // 2,))))

    def features(self, samples: NDArray[np.float32]) -> dict[str, NDArray]:
        """input_features (1, T, 128)."""
        return {name: value.swapaxes(1, 2) for name, value in super().features(samples).items()}

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with a new clip, the only one."""
        self._offset = 0
        self._clip: dict[str, Any] = {**clips[0].values, **dict.fromkeys(self._cross, self._nothing)}
        self._clip.setdefault("cross_bias", np.zeros((1, 1, 1, clips[0].values["encoder_hidden_states"].shape()[1])))

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (1, n); the logits that follow the last, float32 (1, vocabulary_size)."""
        tokens = np.asarray(tokens)
        past, total = self._offset, self._offset + tokens.shape[1]
        feeds = {
            "input_ids": tokens,
            "attention_mask": np.ones((1, total)),
            "position_ids": np.arange(past, total)[None],
            "use_cache_branch": np.full(1, past > 0),
        }
        if past and self._caches.in_place:
            given = self._run(feeds, self.max_positions, self.max_positions)
        else:
            given = self._run(feeds, past, total)
        if past == 0 and self._caches.in_place:
            self._caches.spread(given)
        self._clip |= {name: given[output] for name, output in self._cross.items() if output in given}
        self._offset = total
        return given["logits"].numpy()[:, -1].astype(np.float32)  # a copy: the value goes with its memory

    def _run(self, feeds: Mapping[str, Any], n_past: int, n_present: int) -> dict[str, OrtValue]:
        """Feed these, what is the clip's, and caches of so many positions."""
        if "num_logits_to_keep" in self.decoder.inputs:
            feeds = {**feeds, "num_logits_to_keep": np.ones([1] * len(self.decoder.inputs["num_logits_to_keep"].shape))}
        pasts = self._caches.inputs(n_past) if n_past else dict.fromkeys(self._caches.names, self._nothing)
        feeds = {**feeds, **pasts, **self._clip}
        cross = [output for output in self._cross.values() if output in self.decoder.outputs and not n_past]
        outputs = {name: self.decoder.outputs[name].device for name in cross}
        outputs |= {"logits": CPU, **self._caches.outputs(n_present)}
        given = self.decoder.call({name: feeds[name] for name in self.decoder.inputs}, outputs)
        self._caches.turn()
        return given

    def release(self) -> None:
        """Let go of the clip."""
        self._clip = {}
