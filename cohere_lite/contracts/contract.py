"""What decode.py asks of a model, whatever its graphs look like. Each kind of published graphs has a file beside this
one, with one class, that overrides what is not as here: the encoder takes `mel`; the decoder takes `tokens` and the
`offset` of the first of them, and gives `logits`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ModelError
from ..mel import SAMPLE_RATE, log_mel
from ..session import CPU, OrtValue, Session

MAX_POSITIONS = 1024  # of Cohere Transcribe 03-2026, where neither graph nor config.json tells


class Clip(NamedTuple):
    """A piece of audio that went through the encoder. seconds: its length;  values: what the encoder gave, by the names
    of the decoder's inputs, in the memory where the decoder reads it."""

    seconds: float
    values: dict[str, OrtValue]


class Contract:
    """A model's two graphs, and the state that moves: caches, and the few numbers fed at each step.

    encoder_graph, decoder_graph: inputs and outputs by which the graphs are told from others
    also_fed: more inputs of the decoder, which not every file has
    renamed: the decoder's names of the encoder's outputs, where they differ
    max_positions: the model's limit, prompt and text together, in tokens;  max_positions_key: what config.json calls
    it, where graphs do not tell
    takes_batches: whether `start` takes several clips
    """

    name: str
    encoder_graph: tuple[set[str], set[str]]
    decoder_graph: tuple[set[str], set[str]]
    also_fed: frozenset[str] = frozenset()
    encoder_input, mel_axis, decoder_input = "mel", 1, "tokens"
    renamed: ClassVar[Mapping[str, str]] = {}
    max_positions_key: str | None = None
    max_positions: int
    takes_batches: bool = False

    def __init__(self, encoder: Session, decoder: Session, config: Mapping[str, Any]) -> None:
        """config: config.json, where there is one. Raises ModelError for graphs that keep the names of the contract but
        not what it says of types and shapes."""
        self.encoder = encoder
        self.decoder = decoder
        self._decoder_names = {self.renamed.get(name, name): name for name in encoder.outputs}  # -> the encoder's
        try:
            from ..extras.misfits import refuse_misfits
        except ImportError:
            pass  # onnxruntime then says that it cannot run them
        else:
            refuse_misfits(self, self._decoder_names, config)
        self.vocabulary_size = fixed_size(decoder, "logits", -1)
        if self.max_positions_key:
            said = config.get(self.max_positions_key, MAX_POSITIONS)
            if type(said) is not int or not 1 < said <= 1 << 16:
                raise ModelError(f"config.json says {self.max_positions_key} {said!r}: no number of tokens")
            self.max_positions = said

    def features(self, samples: NDArray[np.float32]) -> dict[str, NDArray]:
        """What the encoder takes for a piece of audio, float32 (n,) at 16 kHz, by the names of its inputs."""
        return {self.encoder_input: log_mel(samples)[None]}

    def encode(self, samples: NDArray[np.float32]) -> Clip:
        """Run the encoder on a piece of audio, float32 (n,), n >= 160, 16 kHz, finite. Raises ModelError."""
        return self.encode_features(self.features(samples), len(samples) / SAMPLE_RATE)

    def encode_features(self, features: dict[str, NDArray], seconds: float) -> Clip:
        """Run the encoder on what it takes, in the type in which it takes it."""
        taken = {name: value for name, value in self.decoder.inputs.items() if name in self._decoder_names}
        given = self.encoder.call(features, {self._decoder_names[name]: value.device for name, value in taken.items()})
        values = {name: given[self._decoder_names[name]] for name in taken}
        for name, value in values.items():
            if self.encoder.outputs[self._decoder_names[name]].dtype != taken[name].dtype:
                values[name] = OrtValue.ortvalue_from_numpy(
                    value.numpy().astype(taken[name].dtype), *taken[name].device
                )
            if taken[name].device == CPU and not np.isfinite(value.numpy().max()):  # -inf is a mask's
                # INT8 products make numbers of NaN again, and the decoder words of these.
                raise ModelError(
                    f"{self.encoder.path.name} gave NaN for {seconds:.2f} s of audio: a damaged model, or one whose "
                    "front end or precision fails on such audio (seen: clips of one frame, a mel matrix in 4 bits, "
                    "numbers beyond float16's, which end at 65504: bf16 and fp32 have them)"
                )
        return Clip(seconds, values)

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
        n_logits = 1 if self.decoder.outputs["logits"].shape[1] == 1 else tokens.shape[1]
        logits = self.decoder.receive("logits", (len(tokens), n_logits, self.vocabulary_size))
        self.feed(tokens)
        return logits[:, -1].astype(np.float32, copy=False)

    def feed(self, tokens: NDArray[np.int64]) -> None:
        """Run the decoder on tokens (clips, n), with the outputs that are bound."""
        self.decoder.feed(self.decoder_input, tokens)
        if offset := self.decoder.inputs.get("offset"):
            self.decoder.feed("offset", np.full([1] * len(offset.shape), self._offset))
        self.decoder.run()
        self._offset += tokens.shape[1]

    def choose(self, tokens: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `step`: the likeliest next token of each clip and its natural log-probability, NaN where logits are not
        numbers. Graphs for GPUs choose by themselves, and the logits stay there."""
        logits = self.step(tokens)
        best = logits.argmax(axis=1)  # stops at the first NaN
        with np.errstate(invalid="ignore"):  # of infinite logits, which give NaN
            return best, -np.log(np.exp(logits - logits[np.arange(len(best)), best, None]).sum(axis=1))

    def keep(self, rows: list[int]) -> list[int]:
        """Go on with these of the rows; their numbers in their new order."""
        return rows

    def release(self) -> None:
        """Let go of the clips."""
        self.decoder.release()


def fixed_size(session: Session, name: str, axis: int) -> int:
    """The size of an input's or output's axis, which the graph must state. Raises ModelError."""
    shape = (session.inputs | session.outputs)[name].shape
    if not -len(shape) <= axis < len(shape) or not isinstance(shape[axis], int):
        raise ModelError(f"{session.path}: {name!r} has shape {list(shape)}, without a fixed size at axis {axis}")
    return int(shape[axis])  # type: ignore[arg-type]
