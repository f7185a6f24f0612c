"""Greedy decoding: the encoder's output -> token ids, whatever the graphs look like (contracts/)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .contracts.contract import Clip, Contract
from .errors import ModelError, OptionError

# A decoder that repeats itself goes on until the model's limit. It is stopped when it has said more than anybody can in
# that time (fast speech has 6 words, or 8 tokens, a second), and the last tokens are one and the same n-gram, at least
# so often and over so many tokens. People do say "no no no no", and choruses come back: at their own pace.
LOOP_TOKENS_PER_S, LOOP_TOKENS, LOOP_REPEATS = 10, 24, 4
LOOP_NGRAM = 20  # tokens; the longest that is looked for
NOT_NUMBERS = (
    "the decoder's logits are not numbers: a damaged model, or one too large for its precision (numbers of float16 end "
    "at 65504; those of bf16 and fp32 do not)"
)


class Decoded(NamedTuple):
    """tokens: ids after the prompt, end-of-text left out;  truncated: the model's limit came before end-of-text;
    looped: the decoder repeated itself, and what came after the first time is left out;  avg_logprob: average natural
    log-probability of the tokens, and of end-of-text where it came;  logprobs: of each token."""

    tokens: tuple[int, ...]
    truncated: bool
    looped: bool
    avg_logprob: float
    logprobs: tuple[float, ...] = ()


def decode(contract: Contract, clips: Sequence[Clip], prompt: ArrayLike, end_of_text: int) -> list[Decoded]:
    """Decode clips side by side: a step costs the reading of the weights, which is done once for all of them. No clip's
    result depends on the others. Best of similar length: the shorter are padded.

    clips: one, or several where contract.takes_batches;  prompt: ids, at least one, or as many for each clip (clips,
    n);  end_of_text: the id that ends a clip. Raises OptionError for a prompt that leaves no room, ModelError."""
    n_prompt = np.shape(prompt)[-1]
    if n_prompt >= contract.max_positions:
        raise OptionError(f"the prompt has {n_prompt} tokens, the model takes {contract.max_positions} in all")
    texts: list[list[int]] = [[] for _ in clips]
    logprobs: list[list[float]] = [[] for _ in clips]
    rows = list(range(len(clips)))  # the clips still being decoded
    tokens = np.broadcast_to(prompt, (len(clips), n_prompt))
    ended, looped = set(), set()
    contract.start(clips)
    for _ in range(n_prompt, contract.max_positions + 1):
        best, highest_logprobs = contract.choose(tokens)
        if not np.isfinite(highest_logprobs).all():
            raise ModelError(NOT_NUMBERS)
        for clip, token, logprob in zip(rows, best, highest_logprobs, strict=True):
            logprobs[clip].append(float(logprob))
            if token == end_of_text:
                ended.add(clip)
                continue
            texts[clip].append(int(token))
            sayable = LOOP_TOKENS_PER_S * clips[clip].seconds
            if len(texts[clip]) > sayable and (repeated := _repeated(texts[clip])):
                del texts[clip][-repeated:], logprobs[clip][-repeated:]
                looped.add(clip)
        kept = [row for row, clip in enumerate(rows) if clip not in ended | looped]
        if not kept:
            break
        kept = contract.keep(kept)
        rows = [rows[row] for row in kept]
        tokens = best[kept, None]
    contract.release()
    return [
        Decoded(tuple(text), clip not in ended | looped, clip in looped, float(np.mean(of)), tuple(of[: len(text)]))
        for clip, (text, of) in enumerate(zip(texts, logprobs, strict=True))
    ]


def _repeated(tokens: list[int]) -> int:
    """How many of the last tokens only repeat the n-gram before them; 0 unless it is a loop."""
    for n in range(1, LOOP_NGRAM + 1):
        repeated = 0
        while repeated + n < len(tokens) and tokens[-repeated - 1] == tokens[-repeated - 1 - n]:
            repeated += 1
        if repeated + n >= max(LOOP_REPEATS * n, LOOP_TOKENS):
            return repeated
    return 0
