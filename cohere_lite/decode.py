"""Greedy decoding: log-mel -> token ids. The KV caches are allocated once (ORT IOBinding) and, where the graph allows
it, never copied.

The loop is one; what differs between the two graph contracts is how the caches move from one step to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ModelError, OptionError
from .mel import HOP_LENGTH, SAMPLE_RATE
from .model import Model
from .session import OrtValue, ort

END_OF_TEXT = "<|endoftext|>"

Cross = dict[str, OrtValue]  # what the encoder gives for a clip: the decoder's cross-attention keys and values, by name


# A decoder that repeats itself goes on until the model's limit. It is stopped when it has said more than anybody can in
# that time (fast speech has 6 words, or 8 tokens, a second), and the last tokens are one and the same n-gram, at least
# so often and over so many tokens. People do say "no no no no", and choruses come back: at their own pace.
LOOP_TOKENS_PER_S = 10
LOOP_TOKENS = 24
LOOP_REPEATS = 4
LOOP_NGRAM = 20  # tokens; the longest that is looked for


@dataclass(frozen=True)
class Decoded:
    """tokens: ids after the prompt, end-of-text left out;  truncated: the model's limit came before end-of-text;
    looped: the decoder repeated itself, and what came after the first time is left out;  avg_logprob: average natural
    log-probability of the tokens, and of end-of-text where it came."""

    tokens: tuple[int, ...]
    truncated: bool
    looped: bool
    avg_logprob: float


class Decoder:
    """The state that moves: KV caches and the few numbers fed at each step. For one thread at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._end_of_text = model.vocabulary.id(END_OF_TEXT)
        self._caches = _FastCaches(model) if model.contract == "fast" else _StaticCaches(model)

    @property
    def max_positions(self) -> int:
        """The model's limit: prompt and text together, in tokens."""
        return self._caches.max_positions

    @property
    def takes_batches(self) -> bool:
        """Whether `decode` takes several clips at once."""
        return isinstance(self._caches, _FastCaches) and self._model.device == "cpu"

    def decode(self, clips: Sequence[NDArray[np.float32]], prompt: Sequence[int]) -> list[Decoded]:
        """clips: log-mel float32 (128, n_frames) each, n_frames >= 1, decoded side by side: reading the weights is
        what a step costs, and it is done once for all. No clip's result depends on the others. Best of similar
        length: the shorter are padded. prompt: ids, at least one, for all clips.
        """
        if len(prompt) >= self.max_positions:
            raise OptionError(f"the prompt has {len(prompt)} tokens, the model takes {self.max_positions} in all")
        self.start(clips)
        texts: list[list[int]] = [[] for _ in clips]
        logprobs: list[list[float]] = [[] for _ in clips]
        sayable = [LOOP_TOKENS_PER_S * features.shape[1] * HOP_LENGTH / SAMPLE_RATE for features in clips]
        rows = list(range(len(clips)))  # the clips still being decoded
        tokens = np.array([prompt] * len(clips))
        ended, looped = set(), set()
        for _ in range(len(prompt), self.max_positions + 1):
            logits = self.step(tokens)
            best = self._best(logits)
            for clip, token, logprob in zip(rows, best, _highest_logprob(logits), strict=True):
                logprobs[clip].append(float(logprob))
                if token == self._end_of_text:
                    ended.add(clip)
                    continue
                texts[clip].append(int(token))
                if len(texts[clip]) > sayable[clip] and (repeated := _repeated(texts[clip])):
                    del texts[clip][-repeated:], logprobs[clip][-repeated:]
                    looped.add(clip)
            kept = [row for row, clip in enumerate(rows) if clip not in ended | looped]
            if not kept:
                break
            kept = self._caches.keep(kept)
            rows = [rows[row] for row in kept]
            tokens = best[kept, None]
        return [
            Decoded(tuple(text), clip not in ended | looped, clip in looped, float(np.mean(logprobs[clip])))
            for clip, text in enumerate(texts)
        ]

    def start(self, clips: Sequence[NDArray[np.float32]]) -> None:
        """Begin with new clips: run the encoder on each, hand its output to the decoder's inputs."""
        self._caches.clear()  # first: what the last clips left may be as large as what is to come
        self._caches.start([_encode(self._model, features) for features in clips])

    def step(self, tokens: ArrayLike) -> NDArray[np.float32]:
        """Feed tokens (clips, n) after those fed before; the logits that follow the last, float32 (clips, vocabulary),
        overwritten by the next step."""
        return self._caches.step(np.asarray(tokens, np.int64))

    def _best(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """The likeliest token of each row."""
        best = logits.argmax(axis=1)
        if not np.isfinite(logits[np.arange(len(best)), best]).all():  # argmax stops at the first NaN
            raise ModelError(
                "the decoder's logits are not numbers: a damaged model, or one too large for this precision"
            )
        return best


def _highest_logprob(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """log softmax of each row at its likeliest token."""
    return -np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))


def _repeated(tokens: list[int]) -> int:
    """How many of the last tokens only repeat the n-gram before them; 0 unless it is a loop."""
    for n in range(1, LOOP_NGRAM + 1):
        repeated = 0
        while repeated + n < len(tokens) and tokens[-repeated - 1] == tokens[-repeated - 1 - n]:
            repeated += 1
        if repeated + n >= max(LOOP_REPEATS * n, LOOP_TOKENS):
            return repeated
    return 0


def _encode(model: Model, features: NDArray[np.float32]) -> Cross:
    """Cross-attention keys and values, left in the memory where the decoder reads them."""
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
        if type(error) is not RuntimeError and not type(error).__module__.startswith("onnxruntime"):
            raise  # of a signal handler: nothing to do with the model
        raise ModelError(f"onnxruntime {ort.__version__} failed to run the model: {error}") from error


class _Caches:
    """One decoder binding: tokens and offset in, the last position's logits out. The contracts add their caches."""

    max_positions: int

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
        self._bound: dict[str, OrtValue] = {}
        self._tokens = np.empty((0, 0), np.int64)
        self._offset = np.array(0, np.int64)
        self._logits = np.empty((0, 0, 0), np.float32)

    def start(self, clips: list[Cross]) -> None:
        """Begin with new clips. One clip's keys and values are bound as they are."""
        self._offset[...] = 0
        if len(clips) == 1:
            for name in self._shapes.keys() & clips[0].keys():
                self._bind(name, clips[0][name])

    def step(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens (rows, n); the logits that follow the last, float32 (rows, vocabulary)."""
        if tokens.shape != self._tokens.shape:
            self._tokens = np.empty_like(tokens)
            n_logits = 1 if self._shapes["logits"][1] == 1 else tokens.shape[1]
            self._logits = np.empty((len(tokens), n_logits, self._shapes["logits"][2]), np.float32)
            self._bind("tokens", OrtValue.ortvalue_from_numpy(self._tokens))
            self._bind("offset", OrtValue.ortvalue_from_numpy(self._offset))
            self._binding.bind_ortvalue_output("logits", OrtValue.ortvalue_from_numpy(self._logits))
        self._tokens[...] = tokens
        for name in ("tokens", "offset"):  # for a GPU, binding is what copies them to the device
            self._bind(name, self._bound[name])
        _run(self._session, self._binding)
        self._offset += tokens.shape[1]
        return self._logits[:, -1]

    def keep(self, rows: list[int]) -> list[int]:
        """Go on with these of the rows; their numbers in their new order."""
        return rows

    def clear(self) -> None:
        """Let go of the clips' cross-attention keys and values."""
        self._binding.clear_binding_inputs()
        self._bound = {name: value for name, value in self._bound.items() if name in ("tokens", "offset")}

    def _bind(self, name: str, value: OrtValue) -> None:
        self._binding.bind_ortvalue_input(name, value)
        self._bound[name] = value  # the binding alone does not keep the array behind it alive (onnxruntime <= 1.23)


class _FastCaches(_Caches):
    """A buffer per layer, bound as past and as present: GroupQueryAttention writes new rows into it and reads no row
    that this clip has not written.

    One clip's cross-attention keys and values are read where the encoder wrote them; several clips' are laid side by
    side, padded to the longest, with their lengths to mask the padding.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model.decoder)
        self._device = model.device
        self._past_names = [name for name in self._shapes if name.startswith("past_")]
        _, self._heads, self.max_positions, self._head_dim = self._shapes[self._past_names[0]]
        self._cross: dict[str, NDArray[np.float32]] = {}  # of several clips
        self._allocate(1)

    def start(self, clips: list[Cross]) -> None:
        """Begin with new clips."""
        self._lengths = np.array([clip["cross_value_0"].shape()[2] for clip in clips], np.int64)
        if len(clips) > self._allocated:
            self._allocate(len(clips))
        super().start(clips)
        if len(clips) > 1:
            shape = (len(clips), self._heads, max(self._lengths), self._head_dim)
            for name in [*clips[0]]:
                self._cross[name] = np.zeros(shape, np.float32)
                for row, length in enumerate(self._lengths):
                    value = clips[row].pop(name)  # never all of it twice in memory
                    self._cross[name][row, :, :length] = value.numpy()  # which may be a view: value must live on
        self._bind_rows()

    def keep(self, rows: list[int]) -> list[int]:
        """Go on with these of the rows; their numbers in their new order.

        The first rows of a buffer are what is bound, so rows from the end move into the gaps."""
        order = list(range(len(rows)))
        gaps = [row for row in order if row not in rows]
        for gap, row in zip(gaps, [row for row in rows if row >= len(rows)], strict=True):
            order[gap] = row
            for buffer in self._past.values():
                buffer[gap, :, : self._offset] = buffer[row, :, : self._offset]
            for cross in self._cross.values():
                cross[gap] = cross[row]
            self._lengths[gap] = self._lengths[row]
        if len(rows) < len(self._lengths):
            self._lengths = self._lengths[: len(rows)]
            self._bind_rows()
        return order

    def clear(self) -> None:
        """Let go of the clips' cross-attention keys and values."""
        self._cross = {}
        super().clear()

    def _allocate(self, n_rows: int) -> None:
        shape = (n_rows, self._heads, self.max_positions, self._head_dim)
        self._past = {name: np.zeros(shape, np.float32) for name in self._past_names}  # no memory until written to
        self._past_values: dict[tuple[str, int], OrtValue] = {}
        self._allocated = n_rows

    def _bind_rows(self) -> None:
        count = len(self._lengths)
        self._bind("encoder_length", OrtValue.ortvalue_from_numpy(self._lengths))
        for name, buffer in self._cross.items():
            self._bind(name, OrtValue.ortvalue_from_numpy(buffer[:count]))
        for name, buffer in self._past.items():
            if (name, count) not in self._past_values:  # for a GPU this is where the buffer moves there
                self._past_values[name, count] = OrtValue.ortvalue_from_numpy(buffer[:count], self._device)
            value = self._past_values[name, count]
            self._bind(name, value)
            self._binding.bind_ortvalue_output(name.replace("past_", "present_"), value)


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

    def start(self, clips: list[Cross]) -> None:
        """Begin with a new clip, the only one."""
        super().start(clips)
        if not self.in_place:
            for buffer in self._buffers:
                for value in buffer.values():
                    value.update_inplace(np.zeros(self._cache_shape, np.float32))

    def step(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens (1, n); the logits that follow the last, float32 (1, vocabulary)."""
        source, target = self._buffers
        for part in "kv":
            self._bind(f"in_n_layer_self_{part}_cache", source[part])
            self._binding.bind_ortvalue_output(f"out_n_layer_self_{part}_cache", target[part])
        self._buffers = [target, source]
        return super().step(tokens)

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
        steps = [np.array([tokens]) for tokens in ([0, 1, 2], [3], [1], [2])]
        clean = self._buffers

        self.start([cross])
        expected = [self.step(tokens).copy() for tokens in steps]

        dirty = self._new_buffers(1)[0]
        for value in dirty.values():
            value.update_inplace(random.standard_normal(self._cache_shape, np.float32))
        self._buffers = [dirty, dirty]
        super().start([cross])  # without clearing
        found = [self.step(tokens).copy() for tokens in steps]
        self._buffers = clean
        return bool(np.array_equal(expected, found))


def _zeros(shape: Sequence[int], device: str) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32), device)
