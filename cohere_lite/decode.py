"""Greedy decoding: log-mel -> token ids. The KV caches are allocated once (ORT IOBinding) and, where the graph allows
it, never copied.

The loop is one; what differs between the two graph contracts is how the caches move from one step to the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime import OrtValue

from .errors import ModelError, OptionError
from .model import Model

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Decoded:
    """tokens: ids after the prompt, end-of-text left out;  truncated: the model's limit came before end-of-text."""

    tokens: tuple[int, ...]
    truncated: bool


class Decoder:
    """The state that moves: KV caches and the few numbers fed at each step. For one clip and one thread at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._end_of_text = model.vocabulary.id(END_OF_TEXT)
        self._caches = _FastCaches(model) if model.contract == "fast" else _StaticCaches(model)

    @property
    def max_positions(self) -> int:
        """The model's limit: prompt and text together, in tokens."""
        return self._caches.max_positions

    def decode(self, features: NDArray[np.float32], prompt: Sequence[int]) -> Decoded:
        """features: log-mel float32 (128, n_frames), n_frames >= 1;  prompt: ids, at least one."""
        if len(prompt) >= self.max_positions:
            raise OptionError(f"the prompt has {len(prompt)} tokens, the model takes {self.max_positions} in all")
        self.start(features)
        tokens: list[int] = []
        fed: Sequence[int] = prompt
        while True:
            logits = self.step(fed)
            token = int(logits.argmax())
            if np.isnan(logits[token]):  # argmax stops at the first NaN
                raise ModelError(
                    "the decoder's logits are not numbers: a damaged model, or one too large for this precision"
                )
            if token == self._end_of_text:
                return Decoded(tuple(tokens), truncated=False)
            tokens.append(token)
            if len(prompt) + len(tokens) > self.max_positions:
                return Decoded(tuple(tokens), truncated=True)
            fed = (token,)

    def start(self, features: NDArray[np.float32]) -> None:
        """Begin a clip: run the encoder, hand its output to the decoder's inputs."""
        self._caches.start(_encode(self._model, features))

    def step(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Feed tokens after those fed before; the logits that follow the last, float32 (vocabulary,)."""
        return self._caches.step(tokens)


def _encode(model: Model, features: NDArray[np.float32]) -> dict[str, OrtValue]:
    """Cross-attention keys and values by name, left in the memory where the decoder reads them."""
    names = [output.name for output in model.encoder.get_outputs()]
    mel = OrtValue.ortvalue_from_numpy(np.ascontiguousarray(features[None]))
    binding = model.encoder.io_binding()
    binding.bind_ortvalue_input("mel", mel)
    for name in names:
        binding.bind_output(name, model.device)
    _run(model.encoder, binding)
    return dict(zip(names, binding.get_outputs(), strict=True))


def _run(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    try:
        session.run_with_iobinding(binding)
    except Exception as error:  # onnxruntime's own classes share no base but this one
        raise ModelError(f"onnxruntime {ort.__version__} failed to run the model: {error}") from error


class _Caches:
    """One decoder binding: tokens and offset in, the last position's logits out. The contracts add their caches."""

    max_positions: int

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
        self._offset = 0
        self._bound: dict[str, OrtValue] = {}

    def start(self, cross: Mapping[str, OrtValue]) -> None:
        """Begin a clip: bind what its encoder run gave."""
        for name in self._shapes.keys() & cross.keys():
            self._bind(name, cross[name])
        self._offset = 0

    def _feed(self, tokens: Sequence[int], n_logits: int) -> NDArray[np.float32]:
        """Feed tokens; n_logits: positions the graph gives logits for. Returns the last one's, float32 (vocab,)."""
        # Inputs are bound anew at each step: for a GPU, binding is what copies them to the device.
        self._bind("tokens", OrtValue.ortvalue_from_numpy(np.array([tokens], np.int64)))
        self._bind("offset", OrtValue.ortvalue_from_numpy(np.array(self._offset, np.int64)))
        logits = np.empty((1, n_logits, self._shapes["logits"][-1]), np.float32)
        logits_value = OrtValue.ortvalue_from_numpy(logits)
        self._binding.bind_ortvalue_output("logits", logits_value)
        _run(self._session, self._binding)
        self._offset += len(tokens)
        return logits[0, -1]

    def _bind(self, name: str, value: OrtValue) -> None:
        self._binding.bind_ortvalue_input(name, value)
        self._bound[name] = value  # the binding alone does not keep the array behind it alive (onnxruntime <= 1.23)


class _FastCaches(_Caches):
    """A buffer per layer, bound as past and as present: GroupQueryAttention writes new rows into it and reads no row
    that this clip has not written."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.decoder)
        for past in [name for name in self._shapes if name.startswith("past_")]:
            _, heads, self.max_positions, head_dim = self._shapes[past]
            cache = _zeros((1, heads, self.max_positions, head_dim), model.device)
            self._bind(past, cache)
            self._binding.bind_ortvalue_output(past.replace("past_", "present_"), cache)

    def start(self, cross: Mapping[str, OrtValue]) -> None:
        """Begin a clip."""
        super().start(cross)
        n_frames = cross["cross_value_0"].shape()[2]
        self._bind("encoder_length", OrtValue.ortvalue_from_numpy(np.array([n_frames], np.int64)))

    def step(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Feed tokens after those fed before; the logits that follow, float32 (vocab,)."""
        return self._feed(tokens, 1)


class _StaticCaches(_Caches):
    """All layers of the keys in one tensor, all of the values in another.

    Where the graph allows it, one buffer is bound as input and as output and never cleared. Whether it does is tried
    at load. Otherwise two buffers take turns, and are cleared for each clip as the published loop does.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model.decoder)
        self._device = model.device
        layers, _, heads, self.max_positions, head_dim = self._shapes["in_n_layer_self_k_cache"]
        self._cache_shape = (layers, 1, heads, self.max_positions, head_dim)
        self._buffers = self._new_buffers(2)
        self.in_place = False
        self.in_place = self._same_in_place(width=self._shapes["n_layer_cross_k"][-1])
        if self.in_place:
            self._buffers = self._buffers[:1] * 2

    def start(self, cross: Mapping[str, OrtValue]) -> None:
        """Begin a clip."""
        super().start(cross)
        if not self.in_place:
            for buffer in self._buffers:
                for value in buffer.values():
                    value.update_inplace(np.zeros(self._cache_shape, np.float32))

    def step(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Feed tokens after those fed before; the logits that follow, float32 (vocab,)."""
        source, target = self._buffers
        for part in "kv":
            self._bind(f"in_n_layer_self_{part}_cache", source[part])
            self._binding.bind_ortvalue_output(f"out_n_layer_self_{part}_cache", target[part])
        self._buffers = [target, source]
        return self._feed(tokens, len(tokens))

    def _new_buffers(self, count: int) -> list[dict[str, OrtValue]]:
        return [{part: _zeros(self._cache_shape, self._device) for part in "kv"} for _ in range(count)]

    def _same_in_place(self, width: int) -> bool:
        """Whether a few steps give the same logits, to the last bit, with two clean buffers and with one full of
        another clip's numbers."""
        random = np.random.default_rng(0)
        layers, n_frames = self._cache_shape[0], 8
        cross = {
            f"n_layer_cross_{part}": OrtValue.ortvalue_from_numpy(
                random.standard_normal((layers, 1, n_frames, width), np.float32)
            )
            for part in "kv"
        }
        steps = [(0, 1, 2), (3,), (1,), (2,)]
        clean = self._buffers

        self.start(cross)
        expected = [self.step(tokens) for tokens in steps]

        dirty = self._new_buffers(1)[0]
        for value in dirty.values():
            value.update_inplace(random.standard_normal(self._cache_shape, np.float32))
        self._buffers = [dirty, dirty]
        super().start(cross)  # without clearing
        found = [self.step(tokens) for tokens in steps]
        self._buffers = clean
        return bool(np.array_equal(expected, found))


def _zeros(shape: Sequence[int], device: str) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32), device)
