"""Which language is spoken: the decoder writes the same sound in each, and the likeliest text wins.

The encoder does not know the language, so a piece goes through it once. Prompts of two languages differ in their two
language tokens and in nothing else. What is compared is the mean log-probability of the first tokens, as many as can
have been said: a decoder that hears half a sentence makes up the rest in any language. tools/language measured it
beside the whole text's log-probability, in all, by token and by character; and beside the softmax over language tokens
after a prompt cut before them, which is chance on a model that was not trained to give its prompt.

A softmax over the candidates, and over "none of them" with a constant score, gives probabilities. Its two constants are
fitted for a model on held-out sentences and on what is none of them; they stand in language.json beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..contracts.contract import Clip, Contract
from ..decode import NOT_NUMBERS
from ..errors import ModelError, OptionError
from ..model import Model, _beside, _config
from ..recording import Languages, Spoken
from .languages import language_name

# Of the text that is compared. By tools/language: with fewer, whole sentences are told apart less well, in noise above
# all; with more, those of which only a second was heard.
TOKENS_PER_S, LEAST_TOKENS, MOST_TOKENS = 4, 2, 16
SURE = 0.9  # the probability from which no more is listened to; on held-out sentences 99.7 % of these were right
MOST_PIECES, MOST_WAIT_S = 4, 30.0  # that are listened to; that a piece waits, in seconds of the recording
CALIBRATION = "language.json"


class Calibration(NamedTuple):
    """temperature: what scores are divided by;  other: the score of what is none of the candidates"""

    temperature: float
    other: float


# Where a model has none: more than 0.06 and 0.09, fitted for two embedded models, and always one of the candidates.
UNCALIBRATED = Calibration(0.12, -inf)


def finder(
    model: Model,
    language: str | Sequence[str],
    per: str,
    make_prompt: Callable[[str], list[int]],
    batch_size: int,
) -> Callable[[], Languages]:
    """For each recording, what tells its language. language: "auto", "en,de" or codes;  per: "recording" or "phrase";
    make_prompt: code -> ids;  batch_size: candidates that are decoded side by side. Raises OptionError, ModelError."""
    codes = candidates(model, language)
    prompts = [make_prompt(code) for code in codes]
    if per not in ("recording", "phrase"):
        raise OptionError(f'language_per is {per!r}; it must be "recording" or "phrase"')
    if len(codes) > 1:
        constants = calibration(model) or UNCALIBRATED
        return lambda: _Finder(model, codes, prompts, per == "phrase", constants, batch_size)
    if per == "phrase" and language != "auto":
        raise OptionError(f'language_per is "phrase", but {codes[0]} is the only candidate: name several, or "auto"')
    return lambda: lambda clips, waited_s: [Spoken(prompts[0], codes[0])] * len(clips)


def candidates(model: Model, language: str | Sequence[str]) -> list[str]:
    """The codes, each once; of "auto" those that the model was trained on. Raises OptionError, ModelError."""
    if language == "auto":
        return trained_languages(model)
    codes = [code.strip() for code in language.split(",")] if isinstance(language, str) else language
    is_list = isinstance(codes, (list, tuple)) and codes and all(isinstance(code, str) for code in codes)
    if not is_list or {"", "auto"} & {*codes}:
        raise OptionError(f'language is {language!r}; it must be a code, "auto" alone, "en,de" or a list of codes')
    return list(dict.fromkeys(codes))


def trained_languages(model: Model) -> list[str]:
    """Those that the model's makers list, in config.json or (our exporter) in the encoder; else all of its vocabulary
    that Cohere Transcribe was trained on. A model that was trained further on two still has tokens of all."""
    path, known = model.contract.encoder.path, model.vocabulary.languages
    said = model.contract.encoder.metadata.get("languages", "").split(",")
    if said == [""]:
        listed = _config(path).get("supported_languages")
        said = listed if isinstance(listed, list) else list(known)
    return [code for code in known if code in said] or list(known)


def calibration(model: Model) -> Calibration | None:
    """What language.json beside the model says; None where there is none. Raises ModelError."""
    if (path := _beside(model.contract.encoder.path, [CALIBRATION])) is None:
        return None
    try:
        said = json.loads(path.read_bytes())
        found = Calibration(float(said["temperature"]), float(said["other"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f'{path}: not {{"temperature": ..., "other": ...}} ({error})') from error
    if not (0 < found.temperature < inf and found.other <= 0):
        raise ModelError(f"{path}: temperature must be more than 0, other at most 0")
    return found


class _Finder:
    """Of one recording; called as Languages (recording.py). What was heard in its pieces adds up."""

    def __init__(
        self,
        model: Model,
        codes: Sequence[str],
        prompts: Sequence[list[int]],
        per_phrase: bool,
        constants: Calibration,
        batch_size: int,
    ) -> None:
        self._model, self._codes, self._prompts, self._per_phrase = model, codes, prompts, per_phrase
        self._constants, self._batch_size = constants, batch_size
        self._evidence = np.zeros(len(codes) + 1)  # of each candidate, and of none of them
        self._n_heard = self._n_waiting = 0  # pieces that told something; that wait since the last call
        self._is_told = False  # that it is not sure

    def __call__(self, clips: Sequence[Clip], waited_s: float) -> list[Spoken] | None:
        """See Languages. Raises ModelError."""
        if self._per_phrase:
            return [self._spoken(self._heard(clip)) for clip in clips]
        for clip in clips[self._n_waiting :]:
            if not self._is_settled:
                evidence = self._heard(clip)
                self._evidence += evidence
                self._n_heard += bool(evidence.any())
            self._n_waiting += 1  # here: if the next one fails, this one must not be heard twice
        if not self._is_settled and len(clips) < MOST_PIECES and waited_s < MOST_WAIT_S:
            return None
        self._n_waiting = 0
        spoken = self._spoken(self._evidence)
        first = spoken._replace(doubt="") if self._is_told else spoken
        self._is_told |= bool(spoken.doubt)
        return [first, *[spoken._replace(doubt="")] * (len(clips) - 1)]

    @property
    def _is_settled(self) -> bool:
        return self._n_heard >= MOST_PIECES or bool(probabilities(self._evidence)[:-1].max() >= SURE)

    def _heard(self, clip: Clip) -> NDArray[np.float64]:
        """What a piece tells of each candidate, and of none of them; zeros where there is no text in any."""
        contract, end_of_text = self._model.contract, self._model.vocabulary.end_of_text
        tokens = first_tokens(contract, clip, self._prompts, end_of_text, n_compared(clip.seconds), self._batch_size)
        if all(ids[0] == end_of_text for ids, _ in tokens):
            return np.zeros(len(self._codes) + 1)
        scores = [*(float(np.mean(logprobs)) for _, logprobs in tokens), self._constants.other]
        return np.array(scores) / self._constants.temperature

    def _spoken(self, evidence: NDArray[np.float64]) -> Spoken:
        if not evidence.any():
            return Spoken(self._prompts[0], None)
        found = probabilities(evidence)
        best, second = np.argsort(-found[:-1], kind="stable")[:2]
        likeliest, other = (f"{language_name(self._codes[i])} ({found[i]:.2f})" for i in (best, second))
        doubt = "" if found[best] >= SURE else f"the language is not sure: {likeliest} or {other}"
        if doubt and found[-1] > found[second]:
            doubt += f", or none of {', '.join(self._codes)}"
        return Spoken(self._prompts[best], self._codes[best], float(found[best]), doubt)


def probabilities(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """The softmax."""
    exps = np.exp(evidence - evidence.max())
    return exps / exps.sum()


def n_compared(seconds: float) -> int:
    """Tokens of the text of a piece of audio that are compared."""
    return min(max(round(TOKENS_PER_S * seconds), LEAST_TOKENS), MOST_TOKENS)


def first_tokens(
    contract: Contract,
    clip: Clip,
    prompts: Sequence[list[int]],
    end_of_text: int,
    n_tokens: int,
    batch_size: int,
) -> list[tuple[list[int], list[float]]]:
    """Decode a clip after each prompt, `batch_size` of them side by side where the contract takes batches: at most so
    many tokens, end-of-text one of them, and their natural log-probabilities. Raises ModelError."""
    found: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
    n_rows = batch_size if contract.takes_batches else 1
    for first in range(0, len(prompts), n_rows):
        tokens = np.array(prompts[first : first + n_rows])
        rows = [*range(first, first + len(tokens))]
        contract.start([clip] * len(rows))
        for _ in range(min(n_tokens, contract.max_positions + 1 - len(prompts[0]))):
            best, highest = contract.choose(tokens)
            if not np.isfinite(highest).all():
                raise ModelError(NOT_NUMBERS)
            for row, token, logprob in zip(rows, best, highest, strict=True):
                found[row][0].append(int(token))
                found[row][1].append(float(logprob))
            kept = [i for i, token in enumerate(best) if token != end_of_text]
            if not kept:
                break
            kept = contract.keep(kept)
            rows, tokens = [rows[i] for i in kept], best[kept, None]
        contract.release()
    return found
