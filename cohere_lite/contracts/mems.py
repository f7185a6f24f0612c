"""The "mems" contract: onnx-asr's kind of files (OpenVoiceOS'). What the decoder takes and gives again is each layer's
input, of which it works out keys and values anew.

    encoder  audio_signal (B, 128, T), length (B,)
             -> encoder_embeddings (B, T', width), encoder_mask (B, T')
    decoder  input_ids (B, n), encoder_embeddings, encoder_mask, decoder_mems (layers + 1, B, past, width)
             -> logits (B, n, vocabulary), decoder_hidden_states (layers + 1, B, past + n, width)

One clip at a time, though there are masks: dynamically quantised products have one scale for all that they are fed, and
the words of a clip would depend on those beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..session import Session
from .caches import Caches
from .contract import Contract, fixed_size


class MemsContract(Contract):
    """Two buffers take turns: the graph lays the new rows after the old ones, in each layer."""

    name = "mems"
    encoder_graph = {"audio_signal", "length"}, {"encoder_embeddings", "encoder_mask"}
    decoder_graph = (
        {"input_ids", "encoder_embeddings", "encoder_mask", "decoder_mems"},
        {"logits", "decoder_hidden_states"},
    )
    encoder_input, decoder_input = "audio_signal", "input_ids"
    max_positions_key = "max_sequence_length"

    def __init__(self, encoder: Session, decoder: Session, config: Mapping[str, Any]) -> None:
        super().__init__(encoder, decoder, config)
        layers, width = (fixed_size(decoder, "decoder_mems", axis) for axis in (0, 3))
        names = {"decoder_mems": "decoder_hidden_states"}
        self._caches = Caches(decoder, names, (layers, 1, self.max_positions, width), axis=2)

    def features(self, samples: NDArray[np.float32]) -> dict[str, NDArray]:
        """audio_signal (1, 128, T), length (1,), in frames."""
        features = super().features(samples)["audio_signal"]
        return {"audio_signal": features, "length": np.array(features.shape[2:])}

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (1, n); the logits that follow the last, float32 (1, vocabulary_size)."""
        self._caches.bind(self.decoder, self._offset, self._offset + np.shape(tokens)[1])
        return super().step(tokens)
