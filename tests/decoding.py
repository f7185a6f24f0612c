"""A model's contract, fed log-mel features by hand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cohere_lite.contracts.contract import Clip
from cohere_lite.decode import Decoded, decode
from cohere_lite.model import Model


class Decoder:
    def __init__(self, model: Model) -> None:
        self.contract = model.contract
        self.end_of_text = model.vocabulary.end_of_text

    def encode(self, mel: np.ndarray) -> Clip:
        """mel: (128, n_frames), 100 frames a second."""
        return self.contract.encode_features({"mel": mel[None]}, mel.shape[1] / 100)

    def decode(self, clips: Sequence[np.ndarray], prompt: Sequence[int]) -> list[Decoded]:
        return decode(self.contract, [self.encode(mel) for mel in clips], prompt, self.end_of_text)

    def start(self, clips: Sequence[np.ndarray]) -> None:
        self.contract.start([self.encode(mel) for mel in clips])

    def step(self, tokens: ArrayLike) -> np.ndarray:
        return self.contract.step(tokens)
