"""Whether converted graphs give the tokens that the published ones give, and how far their logits are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio import open_audio
from ..contracts import Contract
from ..model import DEMO_FOLDER, ModelFiles
from ..session import Session, ort
from .pages import forgetting_pages
from .source import Source

MAX_TOKENS = 24  # of an answer to compare
# Logits of graphs that compute the same thing, with weights or activations in INT8 here and not there, or by tensor and
# by row, are 1 to 3 % apart (root mean square, of their standard deviation) after 8 layers, 6 % after 56 of random
# weights; 13 % if weights are rounded to 4 bits on the way. Attention's scale 10 % off is 18 % after 4 layers.
APART_BY_LAYER = 0.04  # times the root of their number
APART_BY_INT4 = 0.4
# Tokens may differ where the source all but tosses a coin: its two logits are nearer than so many mean distances.
NEAR_TIE = 6


class Agreement(NamedTuple):
    """apart: root mean square of the logits' distances by their standard deviation;  largest: distance;  near_ties: how
    many tokens differ, where the source has no preference;  n_tokens: compared."""

    apart: float
    largest: float
    near_ties: int
    n_tokens: int


def rounding(source: Source, precision: str | None) -> float:
    """How far apart logits may be because of it.  precision: of the decoder that was written."""
    if precision in ("int4", "q4f16") and source.decoder_precision is None:
        return APART_BY_INT4
    dims = source.dimensions
    return APART_BY_LAYER * float(dims.encoder_layers + dims.decoder_layers) ** 0.5


def compare(source: ModelFiles, target: ModelFiles, most_apart: float) -> Agreement:
    """Both on the sample recording, where there is one, and on noise. Raises ValueError if they do not agree."""
    vocabulary = source.vocabulary
    prompt = vocabulary.prompt(vocabulary.languages[0])
    clips = _clips()
    graphs = _Graphs(source)
    expected = [graphs.answer(samples, prompt, vocabulary.end_of_text, None) for samples in clips]
    del graphs
    graphs = _Graphs(target)
    found = [
        graphs.answer(samples, prompt, vocabulary.end_of_text, wanted.argmax(axis=1))
        for samples, wanted in zip(clips, expected, strict=True)
    ]
    return agreement(np.concatenate(expected), np.concatenate(found), most_apart)


def agreement(source: NDArray[np.float32], target: NDArray[np.float32], most_apart: float) -> Agreement:
    """Of logits (steps, vocabulary). Raises ValueError if they do not agree."""
    expected, found = _log_softmax(source), _log_softmax(target)  # some graphs end with it, others do not
    if not np.isfinite(found).all():
        raise ValueError("the converted graphs give logits that are not numbers; nothing was written")
    distance = np.abs(found - expected)
    mean = float(np.sqrt(np.square(distance).mean()))
    apart = mean / float(expected.std())
    if apart > most_apart:
        raise ValueError(
            f"the converted graphs' logits are {apart:.0%} apart from the source's, where rounding explains "
            f"{most_apart:.0%}: a graph that this converter misreads; nothing was written"
        )
    near_ties = 0
    for step, (wanted, chosen) in enumerate(zip(expected.argmax(axis=1), found.argmax(axis=1), strict=True)):
        margin = expected[step, wanted] - expected[step, chosen]
        if margin > NEAR_TIE * mean:
            raise ValueError(
                f"the converted graphs give token {chosen} where the source gives {wanted}, {margin:.2f} likelier "
                f"(logits are {apart:.1%} apart); nothing was written"
            )
        near_ties += int(wanted != chosen)
    return Agreement(apart, float(distance.max()), near_ties, len(expected))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def _clips() -> list[NDArray[np.float32]]:
    """float32 (n,) at 16 kHz."""
    random = np.random.default_rng(0)
    clips = [(0.1 * random.standard_normal(32_000)).astype(np.float32)]
    sample = DEMO_FOLDER / "sample.wav"
    if sample.is_file():
        with open_audio(sample) as audio:
            clips.insert(0, np.concatenate([block.mean(axis=1, dtype=np.float32) for block in audio.blocks]))
    return clips


class _Graphs:
    """The graphs of a model, opened to be run a few times: weights stay in their files."""

    def __init__(self, files: ModelFiles) -> None:
        graphs = files.graphs.encoder, files.graphs.decoder
        encoder, decoder = (Session(_open(graph.path), graph.path) for graph in graphs)
        if "mel_mask" in encoder.inputs:
            from ..devices.masked import unmasked  # a copy for other exports works without

            encoder = unmasked(encoder)
        self.contract: Contract = files.graphs.contract(encoder, decoder, files.config)
        self.weights = [graph.path.parent / name for graph in graphs for name in graph.external_bytes]

    def answer(
        self, samples: NDArray[np.float32], prompt: Sequence[int], end: int, forced: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Logits of each step, (steps, vocabulary), for the likeliest tokens or for those that are forced."""
        with forgetting_pages(self.weights):
            return self._answer(samples, prompt, end, forced)

    def _answer(
        self, samples: NDArray[np.float32], prompt: Sequence[int], end: int, forced: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        contract = self.contract
        contract.start([contract.encode(samples)])
        most = min(MAX_TOKENS, contract.max_positions - len(prompt)) if forced is None else len(forced)
        fed, logits = list(prompt), []
        for step in range(most):
            logits.append(contract.step([fed])[0].copy())
            token = int(logits[-1].argmax()) if forced is None else int(forced[step])
            if token == end:
                break
            fed = [token]
        contract.release()
        return np.array(logits)


def _open(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Optimised graphs and packed weights are copies: they would take as much memory as the file has bytes.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base but this one
        raise ValueError(f"onnxruntime {ort.__version__} cannot load {path}: {error}") from error
