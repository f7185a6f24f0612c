"""What decode.py asks of a model, whatever its graphs look like. Each kind of published graphs has a file beside this
one, with one class, that overrides what is not as here: the encoder takes `mel`; the decoder takes `tokens` and the
`offset` of the first of them, and gives `logits`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ModelError
from ..mel import SAMPLE_RATE, log_mel
from ..session import OrtValue, Session


class Clip(NamedTuple):
    """A piece of audio that went through the encoder. seconds: its length;  values: what the encoder gave, by the names
    of its outputs, in the memory where the decoder reads it."""

    seconds: float
    values: dict[str, OrtValue]


class Contract:
    """A model's two graphs, and the state that moves: caches, and the few numbers fed at each step.

    encoder_graph, decoder_graph: inputs and outputs by which the graphs are told from others
    max_positions: the model's limit, prompt and text together, in tokens
    takes_batches: whether `start` takes several clips
    """

    name: str
    encoder_graph: tuple[set[str], set[str]]
    decoder_graph: tuple[set[str], set[str]]
    max_positions: int
    takes_batches = False

    def __init__(self, encoder: Session, decoder: Session) -> None:
        """Raises ModelError for graphs that keep the names of the contract but not what it says of types and shapes."""
        self.encoder = encoder
        self.decoder = decoder
        for session, (fed, _) in ((encoder, self.encoder_graph), (decoder, self.decoder_graph)):
            if more := [name for name in session.inputs if re.sub(r"\d+$", "0", name) not in fed]:
                raise ModelError(f"{session.path} takes {', '.join(more)}, too: not the {self.name!r} contract's")
        if types := {str(value.dtype) for value in encoder.inputs.values() if value.dtype.kind != "f"}:
            raise ModelError(f"{encoder.path} takes {', '.join(types)}, and not float")
        self.vocabulary_size = fixed_size(decoder, "logits", -1)

    def features(self, samples: NDArray[np.float32]) -> dict[str, NDArray]:
        """What the encoder takes for a piece of audio, float32 (n,) at 16 kHz, by the names of its inputs."""
        return {"mel": log_mel(samples)[None]}

    def encode(self, samples: NDArray[np.float32]) -> Clip:
        """Run the encoder on a piece of audio, float32 (n,), n >= 160, 16 kHz, finite. Raises ModelError."""
        return self.encode_features(self.features(samples), len(samples) / SAMPLE_RATE)

    def encode_features(self, features: dict[str, NDArray], seconds: float) -> Clip:
        """Run the encoder on what it takes, in the type in which it takes it."""
        features = {name: value.astype(self.encoder.inputs[name].dtype, copy=False) for name, value in features.items()}
        devices = {name: value.device for name, value in self.decoder.inputs.items() if name in self.encoder.outputs}
        return Clip(seconds, self.encoder.call(features, devices))

    def start(self, clips: Sequence[Clip]) -> None:
        """Begin with new clips, one or more, to be decoded side by side. One clip's values are bound as they are."""
        self._offset = 0
        if len(clips) == 1:
            for name, value in clips[0].values.items():
                self.decoder.bind(name, value)

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (clips, n) after those fed before; the logits that follow the last, float32 (clips,
        vocabulary_size), which the next step may overwrite. Raises ModelError."""
        tokens = np.asarray(tokens)
        self.decoder.feed("tokens", tokens)
        self.decoder.feed("offset", np.full([1] * len(self.decoder.inputs["offset"].shape), self._offset))
        n_logits = 1 if self.decoder.outputs["logits"].shape[1] == 1 else tokens.shape[1]
        logits = self.decoder.receive("logits", (len(tokens), n_logits, self.vocabulary_size))
        self.decoder.run()
        self._offset += tokens.shape[1]
        return logits[:, -1].astype(np.float32, copy=False)

    def keep(self, rows: list[int]) -> list[int]:
        """Go on with these of the rows; their numbers in their new order."""
        return rows

    def release(self) -> None:
        """Let go of the clips."""
        self.decoder.release_inputs()


def fixed_size(session: Session, name: str, axis: int) -> int:
    """The size of an input's or output's axis, which the graph must state. Raises ModelError."""
    shape = (session.inputs | session.outputs)[name].shape
    if not -len(shape) <= axis < len(shape) or not isinstance(shape[axis], int):
        raise ModelError(f"{session.path}: {name!r} has shape {list(shape)}, without a fixed size at axis {axis}")
    return int(shape[axis])  # type: ignore[arg-type]
