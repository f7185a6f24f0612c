"""When each word was said: where the decoder looked when it wrote it. One more pass over the tokens, which are known by
then, with the graph that the exporter writes beside the decoder (export/align.py); a monotonic path through its
attention; and the loudness, since words begin with a sound. The figures are from tools/words, with the demonstration
model; for the full one nobody has measured them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, OptionError
from ..graphfile import read_graph_file
from ..mel import SAMPLE_RATE
from ..session import CPU
from ..transcript import Word
from .silences import SILENCE_S, silences
from .words import SpokenWord, split_words

if TYPE_CHECKING:
    from ..contracts.contract import Clip
    from ..decode import Decoded
    from ..model import Model

_FRAME_S = 0.08  # of the encoder: frame i is centred at i * 80 ms, by the strides and the padding of its convolutions
_SIMILAR = 0.7  # of the best head's score: heads with less are left out where there is no table
_WORD_S = 0.02  # a word has so much time, if its segment has
_PAUSE_S = 0.2  # longer ones are not inside of words


class WordTimer:
    """A model's graph for word times, open; for one thread at a time (turns.py).

    heads: [layer, head] of each that follows the speech; None where nobody has chosen any: best_heads does then"""

    def __init__(self, model: Model) -> None:
        """Raises OptionError for a model without the graph, ModelError."""
        decoder = model.contract.decoder.path
        path = decoder.with_name(decoder.name.replace("decoder", "align"))
        if model.contract.name != "fast" or path == decoder or not path.is_file():
            raise OptionError(
                f"word_times need a graph that {decoder.parent} lacks: conversion makes it, and adds it to folders of "
                f"our own export: python -m cohere_lite.export {decoder.parent} NEW_FOLDER"
            )
        self._session = model.open_graph(read_graph_file(path))
        self._vocabulary, self._max_positions = model.vocabulary, model.contract.max_positions
        self.heads: list[list[int]] | None = json.loads(self._session.metadata.get("alignment_heads", "null"))

    def __call__(
        self, clip: Clip, samples: NDArray[np.float32], prompt: Sequence[int], decoded: Decoded, start: float
    ) -> tuple[Word, ...]:
        """The words of a piece.  clip: what the encoder gave for the samples, (n,) at 16 kHz;  start: the piece's, in
        seconds. Raises ModelError."""
        spoken = split_words(self._vocabulary, decoded.tokens)
        if not spoken:
            return ()
        weights = self.attention(clip, prompt, decoded.tokens)
        rises, peaks = token_times(weights if self.heads else weights[best_heads(weights)])
        spans = word_spans(spoken, rises, peaks, silences(samples), len(samples) / SAMPLE_RATE)
        return tuple(
            Word(word.text, start + begin, start + end, confidence(word, decoded.logprobs))
            for word, (begin, end) in zip(spoken, spans, strict=True)
        )

    def attention(self, clip: Clip, prompt: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float32]:
        """Where heads look for each token, and at last for end-of-text, if there is room for it: (heads, rows, frames),
        of the chosen heads, or of all layers one after the other."""
        feeds = {name: clip.values[name] for name in self._session.inputs if name != "tokens"}
        outputs = dict.fromkeys(self._session.outputs, CPU)
        # a text that was truncated has one token more than there are positions: the last is predicted, but never fed
        given = self._session.call({**feeds, "tokens": [[*prompt, *tokens][: self._max_positions]]}, outputs)
        # a token is predicted by the row of the one before it
        layers = {name: value.numpy()[0, :, len(prompt) - 1 :] for name, value in given.items()}
        if self.heads:
            weights = np.stack([layers[f"attention_{layer}"][head] for layer, head in self.heads])
        else:
            weights = np.concatenate([*layers.values()])
        if not np.isfinite(weights).all():
            raise ModelError(f"{self._session.path.name} gave attention that is not numbers")
        return weights


def best_heads(weights: NDArray[np.float32]) -> NDArray[np.intp]:
    """The heads that follow the speech in this piece, of weights (heads, rows, frames): those whose attention is on a
    path that only goes on, most of it."""
    starts, ends = monotonic_paths(_gains(weights))
    sums = np.pad(weights.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    on_path = np.take_along_axis(sums, ends[..., None] + 1, 2) - np.take_along_axis(sums, starts[..., None], 2)
    scores = on_path[:, :-1, 0].mean(axis=1)  # without end-of-text
    return np.flatnonzero(scores >= _SIMILAR * scores.max())


def token_times(weights: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """weights (heads, rows, frames) of heads that follow the speech -> when the attention of each row, to its token and
    at last to end-of-text, has risen to half of its peak, and when it is there: float64 (rows,), in seconds."""
    mean = weights.mean(axis=0)
    (starts,), (ends,) = monotonic_paths(_gains(weights).mean(axis=0, keepdims=True))
    rises, peaks = np.zeros((2, len(mean)))
    for i, (row, first, last) in enumerate(zip(mean, starts, ends, strict=True)):
        peak = first + int(row[first : last + 1].argmax())
        below = np.flatnonzero(row[:peak] <= row[peak] / 2)
        peaks[i] = peak * _FRAME_S
        if len(below):
            at = below[-1]
            rises[i] = (at + (row[peak] / 2 - row[at]) / (row[at + 1] - row[at])) * _FRAME_S
    return rises, peaks


def _gains(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each frame's attention shared among the tokens, less an even share: frames that all tokens look at draw none."""
    return weights / (weights.sum(axis=1, keepdims=True) + 1e-9) - 1 / weights.shape[1]


def monotonic_paths(gains: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """gains (n, rows, frames) -> the first and last frame of each row, (n, rows): of the path that gathers the most
    (dynamic time warping). It begins anywhere, takes the rows in order, each for one frame or more, several in one
    frame if need be, and ends in the last frame."""
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


def word_spans(
    words: Sequence[SpokenWord],
    rises: NDArray[np.float64],
    peaks: NDArray[np.float64],
    silent: Sequence[tuple[float, float]],
    duration: float,
) -> list[tuple[float, float]]:
    """Start and end of each word in seconds, in order, without overlaps, within the duration.  rises, peaks: see
    token_times;  silent: see silences.

    A word begins where its attention rises; where that is in a silence, or the peak is behind one, when the silence
    ends. So does a word that would begin just before a pause and go on after it."""
    places, numbers = [word.first for word in words], np.arange(len(rises))
    begins = np.interp(places, numbers, np.maximum.accumulate(rises))
    first_peaks = np.interp(places, numbers, peaks)
    last_peaks = peaks[[word.tokens[1] - 1 for word in words]]
    for i, (peak, last) in enumerate(zip(first_peaks, last_peaks, strict=True)):
        said = last_peaks[i - 1] if i else -1.0  # a silence that ends before it is not this word's
        before = [
            end
            for start, end in silent
            if start < (max(peak, min(peak + _FRAME_S, last)) if end - start > _PAUSE_S else peak)
            and end > max(begins[i], said)
        ]
        begins[i] = before[-1] if before else begins[i]
    pauses = [start for start, end in silent if end - start > _PAUSE_S or end >= duration - SILENCE_S]
    starts = _spread_words([len(word.text) for word in words], np.maximum.accumulate(begins), pauses, duration)
    ends = [_word_end(*times, silent) for times in zip(starts, [*starts[1:], duration], last_peaks, strict=True)]
    return [*zip(starts, ends, strict=True)]


def _spread_words(
    letters: Sequence[int], begins: NDArray[np.float64], pauses: Sequence[float], duration: float
) -> list[float]:
    """Words that would begin together share the time until the next one, or a pause, by their letters. begins: in
    order;  pauses: where they start"""
    least = min(_WORD_S, duration / len(letters))
    edges = [0, *(np.flatnonzero(np.diff(begins) >= least) + 1), len(letters)]
    ends = [
        next((start for start in pauses if begin + least < start < end), end)
        for begin, end in zip(begins[edges[:-1]], [*begins[edges[1:-1]], duration], strict=True)
    ]
    shared = [
        begin + (end - begin) * np.cumsum([0, *letters[first : last - 1]]) / sum(letters[first:last])
        for begin, end, (first, last) in zip(begins[edges[:-1]], ends, pairwise(edges), strict=True)
    ]
    steps = least * np.arange(len(letters))
    apart = np.maximum.accumulate(np.concatenate(shared) - steps) + steps
    return [*map(float, np.clip(apart, 0, duration - least * len(letters) + steps))]


def _word_end(begin: float, following: float, peak: float, silent: Sequence[tuple[float, float]]) -> float:
    """Of a word: where the following one begins, or the silence before that, or a pause. peak: of its last token"""
    for start, end in silent:
        if begin < start < following and (end >= following or (end - start > _PAUSE_S and end > peak)):
            return start
    return following


def confidence(word: SpokenWord, logprobs: Sequence[float]) -> float:
    """0 to 1: the geometric mean of the probabilities of a word's tokens; logprobs: of all tokens."""
    return float(np.exp(np.mean(logprobs[slice(*word.tokens)])).clip(0, 1))
