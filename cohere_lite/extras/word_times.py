"""When each word was said: where the decoder looked when it wrote it. One more pass over the tokens, which are known by
then, with the graph that the exporter writes beside the decoder (export/align.py); a monotonic path through its
attention; and the loudness, since words begin with a sound. The figures are from tools/words, with the demonstration
model; for the full one nobody has measured them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..graphfile import read_graph_file
from ..mel import HOP_LENGTH, SAMPLE_RATE
from ..session import CPU
from ..transcript import Word

if TYPE_CHECKING:
    from ..contracts.contract import Clip
    from ..decode import Decoded
    from ..model import Model
    from ..tokens import Vocabulary

WordTimer = Callable[["Clip", NDArray[np.float32], Sequence[int], "Decoded", float], tuple[Word, ...]]

FRAME_S = 0.08  # of the encoder: its frame i is centred at i * 80 ms, by the convolutions' strides and padding
_LEAST_S = 0.02  # of a word, where its segment has so much time
_SIMILAR = 0.7  # of the best head's score: heads with less are left out where there is no table of heads
_STEP = HOP_LENGTH  # samples, 10 ms: of the loudness curve


def word_timer(model: Model) -> WordTimer:
    """What times the words of a piece: (what the encoder gave, samples, prompt, what was decoded, the piece's start in
    seconds) -> words. It raises ModelError. Raises ModelError for a model without the graph."""
    decoder = model.contract.decoder.path
    path = decoder.with_name(decoder.name.replace("decoder", "align"))
    if path == decoder or not path.is_file():
        raise ModelError(
            f"{decoder.parent} has no graph for word times (align.*.onnx), which our exporter writes: "
            f"python -m cohere_lite.export {decoder.parent} NEW_FOLDER"
        )
    session = model.open_graph(read_graph_file(path))
    layers = {name: int(name.rpartition("_")[2]) for name in session.outputs}
    table = json.loads(session.metadata.get("alignment_heads", "null"))

    def attention(clip: Clip, tokens: Sequence[int]) -> NDArray[np.float32]:
        feeds = {name: clip.values[name] for name in session.inputs if name != "tokens"}
        given = session.call({**feeds, "tokens": [tokens]}, dict.fromkeys(session.outputs, CPU))
        found = {layers[name]: value.numpy()[0] for name, value in given.items()}
        if table:
            return np.stack([found[layer][head] for layer, head in table])
        return np.concatenate([*found.values()])

    def times(
        clip: Clip, samples: NDArray[np.float32], prompt: Sequence[int], decoded: Decoded, start: float
    ) -> tuple[Word, ...]:
        spoken = split_words(model.vocabulary, decoded.tokens)
        if not spoken:
            return ()
        weights = attention(clip, [*prompt, *decoded.tokens])[:, len(prompt) - 1 :]  # row i predicts token i + 1
        if not np.isfinite(weights).all():
            raise ModelError(f"{path.name} gave attention that is not numbers")
        begins = token_starts(weights if table else weights[best_heads(weights)])
        spans = place(spoken, begins, is_loud(samples), len(samples) / SAMPLE_RATE)
        return tuple(
            Word(word.text, start + begin, start + end, confidence(word, decoded.logprobs))
            for word, (begin, end) in zip(spoken, spans, strict=True)
        )

    return times


def best_heads(weights: NDArray[np.float32]) -> NDArray[np.intp]:
    """The heads that follow the speech in this piece, of weights (heads, rows, frames): those whose attention lies, most
    of it, on a path that only goes on."""
    starts, ends = monotonic_paths(_gains(weights))
    sums = np.pad(weights.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    on_path = np.take_along_axis(sums, ends[..., None] + 1, 2) - np.take_along_axis(sums, starts[..., None], 2)
    scores = on_path[:, :-1, 0].mean(axis=1)  # without end-of-text
    return np.flatnonzero(scores >= _SIMILAR * scores.max())


def token_starts(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """weights (heads, rows, frames) of heads that follow the speech -> when each row's token begins, and end-of-text,
    float64 (rows,), in seconds, not always in order: where the attention has risen to half of its peak."""
    mean = weights.mean(axis=0)
    (starts,), (ends,) = monotonic_paths(_gains(weights).mean(axis=0, keepdims=True))
    found = []
    for row, first, last in zip(mean, starts, ends, strict=True):
        peak = first + int(row[first : last + 1].argmax())
        below = np.flatnonzero(row[:peak] <= row[peak] / 2)
        at = below[-1] if len(below) else 0
        rise = (row[peak] / 2 - row[at]) / max(row[at + 1] - row[at], 1e-9) if len(below) else 0.0
        found.append((at + rise) * FRAME_S)
    return np.array(found)


def _gains(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each frame's attention shared among the tokens, less an even share: frames that all tokens look at draw none."""
    return weights / (weights.sum(axis=1, keepdims=True) + 1e-9) - 1 / weights.shape[1]


def monotonic_paths(gains: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """gains (n, rows, frames) -> the first and last frame of each row, (n, rows): of the path that gathers the most, by
    dynamic programming. It begins anywhere, takes the rows in order, each for one frame or more, several in one frame if
    need be, and ends in the last frame."""
    count, n_rows, n_frames = gains.shape
    frames = np.arange(n_frames)
    entries = np.zeros((n_rows, count, n_frames), np.intp)  # where the row begins, if the path is at a frame now
    is_next = np.zeros((n_rows, count, n_frames), bool)  # whether it begins in the frame after the row before it
    best = np.zeros((count, n_frames))
    for i in range(n_rows):
        sums = gains[:, i].cumsum(axis=1, dtype=np.float64)
        if i:
            moved = np.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-np.inf)
            is_next[i] = moved >= best
            best = np.maximum(moved, best)
        before = best - sums + gains[:, i]
        highest = np.maximum.accumulate(before, axis=1)
        entries[i] = np.maximum.accumulate(np.where(before >= highest, frames, 0), axis=1)
        best = highest + sums
    paths = np.arange(count)
    starts, ends = np.zeros((2, count, n_rows), np.intp)
    at = np.full(count, n_frames - 1)
    for i in reversed(range(n_rows)):
        ends[:, i], starts[:, i] = at, entries[i, paths, at]
        at = starts[:, i] - is_next[i, paths, starts[:, i]]
    return starts, ends
