"""The "audio" contract: the "static" one with the front end inside of the encoder's graph (Handy's files, cstr's).

encoder  audio (B, samples), 16 kHz
         -> n_layer_cross_k, n_layer_cross_v (layers, B, T', width)
decoder  as in static.py
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .static import StaticContract


class AudioContract(StaticContract):
    """The encoder is fed the samples themselves."""

    name = "audio"
    encoder_graph = {"audio"}, {"n_layer_cross_k", "n_layer_cross_v"}
    encoder_input = "audio"

    def features(self, samples: NDArray[np.float32]) -> dict[str, NDArray]:
        """audio (1, n)."""
        return {"audio": samples[None]}
