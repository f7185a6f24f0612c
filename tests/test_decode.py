"""The greedy decoder, on a model that answers by script: every expected token is worked out by hand."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from decoding import Decoder
from scripted import COUNT_LEFTOVERS, END, PASS_THROUGH, READ_AFTER_WRITE, A, B, C, write_model

from cohere_lite.errors import ModelError, OptionError
from cohere_lite.export.__main__ import export
from cohere_lite.model import load_model
from tools.random_checkpoint import Shape, write_random_checkpoint

MEL = np.zeros((128, 8), np.float32)
PROMPT = [14, 12]  # position 1 is its last: script[1] is the first answer


def decoder(folder: Path) -> Decoder:
    return Decoder(load_model(folder))


def test_stops_at_end_of_text(tmp_path: Path) -> None:
    """Positions 1, 2, 3 answer a, b, end; what the script says later is never reached."""
    decoded = decoder(write_model(tmp_path, [C, A, B, END, C, C], max_positions=6)).decode([MEL], PROMPT)[0]
    assert decoded.tokens == (A, B)
    assert not decoded.truncated


def test_only_end_of_text_ends_a_text(tmp_path: Path) -> None:
    """Other special tokens do not, whatever their ids; 0 and 1 are below that of end-of-text here, 6 is above it."""
    said = (0, 1, 6, A)
    decoded = decoder(write_model(tmp_path, [C, *said, END], max_positions=8)).decode([MEL], PROMPT)[0]
    assert decoded.tokens == said


def test_nothing_said(tmp_path: Path) -> None:
    decoded = decoder(write_model(tmp_path, [C, END, C], max_positions=6)).decode([MEL], PROMPT)[0]
    assert decoded.tokens == ()
    assert not decoded.truncated


def test_the_limit_says_truncated(tmp_path: Path) -> None:
    """6 positions: the prompt takes 0 and 1, "a b a b" 2 to 5. Position 5 still answers, "c", which has no place."""
    decoded = decoder(write_model(tmp_path, [C, A, B, A, B, C], max_positions=6)).decode([MEL], PROMPT)[0]
    assert decoded.tokens == (A, B, A, B, C)
    assert decoded.truncated


def test_end_of_text_at_the_very_last_position_is_not_truncated(tmp_path: Path) -> None:
    decoded = decoder(write_model(tmp_path, [C, A, B, A, B, END], max_positions=6)).decode([MEL], PROMPT)[0]
    assert decoded.tokens == (A, B, A, B)
    assert not decoded.truncated


def test_a_prompt_that_leaves_no_room(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="the prompt has 6 tokens, the model takes 6 in all"):
        decoder(write_model(tmp_path, [A] * 6, max_positions=6)).decode([MEL], [14, 12, 12, 12, 12, 12])[0]


def test_only_errors_of_the_model_are_called_so(tmp_path: Path) -> None:
    """What a signal handler raises in the middle of a run is the program's own."""

    class TimeIsUp(Exception):
        pass

    loaded = decoder(write_model(tmp_path, [C, A, B, END], max_positions=6))
    for error, expected in ((TimeIsUp(), TimeIsUp), (MemoryError(), MemoryError), (RuntimeError(), ModelError)):
        loaded.contract.decoder._session.run_with_iobinding = Mock(side_effect=error)  # type: ignore[method-assign]
        with pytest.raises(expected):
            loaded.decode([MEL], PROMPT)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_numbers(tmp_path: Path, bad: float) -> None:
    folder = write_model(tmp_path, [C, A, B, END], max_positions=6, bad_at=2, bad=bad)
    with pytest.raises(ModelError, match="not numbers"):
        decoder(folder).decode([MEL], PROMPT)[0]


@pytest.mark.parametrize(
    ("caches", "in_place"), [(PASS_THROUGH, True), (READ_AFTER_WRITE, False), (COUNT_LEFTOVERS, False)]
)
def test_caches_are_shared_only_where_the_graph_allows_it(tmp_path: Path, caches: str, in_place: bool) -> None:
    """By construction (see scripted.py): a graph that is bound wrongly answers "c" all the time. Two clips, since the
    second finds what the first left."""
    loaded = decoder(write_model(tmp_path, [C, A, B, A, END], max_positions=6, caches=caches))
    assert loaded.contract._caches.in_place == in_place
    for _ in range(2):
        assert loaded.decode([MEL], PROMPT)[0].tokens == (A, B, A)


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    write_random_checkpoint(folder, Shape(2, 64, 4, 128, 16, 9, 128, 2, 48, 3, 96, 48, 300))
    for contract in ("fast", "static"):
        export(folder, folder / contract, "fp32", contract)
    return folder


@pytest.mark.parametrize("contract", ["fast", "static"])
def test_a_clip_does_not_depend_on_those_before(random_models: Path, contract: str) -> None:
    """By construction: a used decoder against a fresh one; and both contracts share their buffers."""
    clips = [np.random.default_rng(seed).standard_normal((128, 50 * (seed + 1)), np.float32) for seed in range(4)]
    prompt = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]
    used = decoder(random_models / contract)
    for clip in clips:
        assert used.decode([clip], prompt) == decoder(random_models / contract).decode([clip], prompt)


def test_fast_caches_are_written_in_place(random_models: Path) -> None:
    """By hand: after n tokens the first n rows of the one buffer are filled, the others still zero, and stay where
    they are."""
    loaded = decoder(random_models / "fast")
    loaded.start([np.ones((128, 80), np.float32)])
    cache = loaded.contract.decoder._bound["past_key_0"]
    address = cache.data_ptr()
    loaded.step([[18, 4, 5]])
    loaded.step([[7]])
    rows = np.abs(cache.numpy()).max(axis=(0, 1, 3))
    assert (rows[:4] > 0).all()
    assert (rows[4:] == 0).all()
    loaded.step([[9]])
    assert np.abs(cache.numpy()).max(axis=(0, 1, 3))[4] > 0
    assert cache.data_ptr() == address
    loaded.start([np.ones((128, 40), np.float32)])
    assert loaded.contract.decoder._bound["past_key_0"].data_ptr() == address  # of the next clip, too


def test_static_exports_allow_sharing(random_models: Path) -> None:
    """By construction: exported so that rows are written at positions >= offset and read only below."""
    assert decoder(random_models / "static").contract._caches.in_place


BATCH_PROMPT = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]
# Decoder width of 640 = 5 blocks, so that a row of activations has several scales.
BATCHED = Shape(2, 64, 4, 128, 16, 9, 128, 2, 640, 5, 96, 40, 300)


@pytest.fixture(scope="module")
def batch_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batched")
    write_random_checkpoint(folder, BATCHED)
    for precision in ("fp32", "int8", "int4"):
        export(folder, folder / precision, precision)
    return folder


@pytest.fixture(scope="module")
def batch_model(batch_models: Path) -> Path:
    return batch_models / "fp32"


def clips_of(lengths: list[int]) -> list[np.ndarray]:
    return [np.random.default_rng(n).standard_normal((128, n), np.float32) for n in lengths]


def stepped_logits(loaded: Decoder, clips: list[np.ndarray], fed: np.ndarray) -> np.ndarray:
    """After the prompt and after each of `fed` (steps, clips, 1): (1 + steps, clips, vocabulary)."""
    loaded.start(clips)
    return np.array([loaded.step(tokens).copy() for tokens in ([BATCH_PROMPT] * len(clips), *fed)])


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_clip_does_not_depend_on_its_neighbours(batch_models: Path, precision: str) -> None:
    """By construction, to the last bit: other clips and other tokens in all rows but one."""
    loaded = decoder(batch_models / precision)
    clips, others = clips_of([96, 400, 8, 333]), clips_of([97, 399, 9, 332])  # the same numbers of encoder frames
    fed, others_fed = np.random.default_rng(0).integers(20, 300, (2, 12, 4, 1))
    expected = stepped_logits(loaded, clips, fed)
    for row in range(4):
        found = stepped_logits(
            loaded,
            [clips[i] if i == row else 100 * others[i] for i in range(4)],
            np.where(np.arange(4)[:, None] == row, fed, others_fed),
        )
        np.testing.assert_array_equal(found[:, row], expected[:, row])
        assert not np.array_equal(found[:, row - 1], expected[:, row - 1])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.02), ("int4", 0.02)])
def test_a_clip_in_a_batch_is_the_clip_alone(batch_models: Path, precision: str, tolerance: float) -> None:
    """By construction up to rounding: sums run in another order, and in INT8 a last bit can tip an activation to the
    next step of its scale. By record 1e-7 of the largest logit, and 0.008 where that happened."""
    clips = clips_of([400, 8, 96, 333, 1, 250])
    loaded = decoder(batch_models / precision)
    fed = np.random.default_rng(0).integers(20, 300, (12, len(clips), 1))
    together = stepped_logits(loaded, clips, fed)
    alone = np.concatenate([stepped_logits(loaded, clips[i : i + 1], fed[:, i : i + 1]) for i in range(6)], axis=1)
    error = np.abs(together - alone) / np.abs(alone).max()
    assert error.max() <= tolerance
    assert np.median(error.max(axis=2)) <= 1e-5


def test_batches_give_the_same_tokens(batch_model: Path) -> None:
    """By construction, with a decoder that has seen larger and smaller batches. (INT8: test_transcribe.py)"""
    clips = clips_of([120, 80, 300, 16, 64, 200, 41])
    loaded = decoder(batch_model)
    alone = [loaded.decode([clip], BATCH_PROMPT)[0] for clip in clips]
    assert len({decoded.tokens for decoded in alone}) > 3  # else equal tokens say little
    for size in (7, 2, 3, 1):
        together = [d for i in range(0, 7, size) for d in loaded.decode(clips[i : i + size], BATCH_PROMPT)]
        assert [d.tokens for d in together] == [d.tokens for d in alone]
        # sums of floats, which run in another order in a batch
        np.testing.assert_allclose([d.avg_logprob for d in together], [d.avg_logprob for d in alone], atol=1e-5)


def test_rows_that_end_leave_the_batch(batch_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip is made to end after a number of tokens of its own; what it says until then is the same as alone. By
    hand: the prompt gives first tokens, so a clip of n tokens takes n + 1 steps."""
    ends = [13, 17, 11, 25, 13]
    clips = clips_of([120, 80, 300, 16, 64])
    loaded = decoder(batch_model)
    free = [loaded.decode([clip], BATCH_PROMPT)[0].tokens for clip in clips]
    assert len({tokens[:11] for tokens in free}) > 2

    rows = list(range(5))  # which clip is in which row
    said = [0] * 5
    rows_fed: list[int] = []
    choose, keep = loaded.contract.choose, loaded.contract.keep

    def scripted_choice(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows_fed.append(len(tokens))
        found, logprobs = choose(tokens)
        for row, clip in enumerate(rows):
            if said[clip] == ends[clip]:
                found[row] = loaded.end_of_text
            said[clip] += 1
        return found, logprobs

    def followed_keep(kept: list[int]) -> list[int]:
        order = keep(kept)
        rows[:] = [rows[row] for row in order]
        return order

    monkeypatch.setattr(loaded.contract, "choose", scripted_choice)
    monkeypatch.setattr(loaded.contract, "keep", followed_keep)
    decoded = loaded.decode(clips, BATCH_PROMPT)
    assert [d.tokens for d in decoded] == [tokens[:end] for tokens, end in zip(free, ends, strict=True)]
    assert not any(d.truncated for d in decoded)
    assert rows_fed == [5] * 12 + [4] * 2 + [2] * 4 + [1] * 8


def test_only_the_fast_contract_takes_batches(random_models: Path) -> None:
    assert decoder(random_models / "fast").contract.takes_batches
    assert not decoder(random_models / "static").contract.takes_batches


# Confidence and loops


def test_avg_logprob_equals_that_of_the_logits(random_models: Path) -> None:
    """By formula: log softmax, in float64, of the logits that each answered token was chosen from."""
    loaded = decoder(random_models / "fast")
    clip = np.random.default_rng(0).standard_normal((128, 100), np.float32)
    (decoded,) = loaded.decode([clip], BATCH_PROMPT)
    assert decoded.truncated
    loaded.start([clip])
    logprobs = []
    fed = BATCH_PROMPT
    for token in decoded.tokens:
        logits = loaded.step([fed])[0].astype(np.float64)
        logprobs.append(logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
        fed = [token]
    assert decoded.avg_logprob == pytest.approx(np.mean(logprobs), rel=1e-5)


def test_end_of_text_counts_in_avg_logprob(tmp_path: Path) -> None:
    """By hand: logits of 1 for the answer and -1 for 17 others, at each of the three answers."""
    (decoded,) = decoder(write_model(tmp_path, [C, A, B, END], max_positions=6)).decode([MEL], PROMPT)
    assert decoded.avg_logprob == pytest.approx(-np.log(1 + 17 * np.exp(-2)), rel=1e-6)
    (nothing,) = decoder(write_model(tmp_path, [C, END], max_positions=6)).decode([MEL], PROMPT)
    assert nothing.avg_logprob == pytest.approx(-np.log(1 + 17 * np.exp(-2)), rel=1e-6)


@pytest.mark.parametrize(
    ("said", "kept", "looped"),
    [  # by hand: 24 tokens of one n-gram, and 4 times at least; its first time stays
        ([A] * 23 + [END], [A] * 23, False),
        ([A] * 24 + [END], [A], True),
        ([B] + [A] * 24, [B, A], True),
        ([A, B] * 11 + [A, END], [A, B] * 11 + [A], False),  # 23 tokens
        ([A, B] * 12, [A, B], True),
        ([C] + [A, B] * 11 + [A] + [END], [C] + [A, B] * 11 + [A], False),
        ([A, B, C, C, B, A, A] * 3 + [END], [A, B, C, C, B, A, A] * 3, False),
        ([A, B, C, C, B, A, A] * 4, [A, B, C, C, B, A, A], True),
        (([A] * 10 + [B]) * 4, [A] * 10 + [B], True),
        (([A] * 10 + [B]) * 3 + [A] * 10 + [END], ([A] * 10 + [B]) * 3 + [A] * 10, False),  # not yet a fourth time
        (([A] * 19 + [B]) * 4, [A] * 19 + [B], True),  # the longest that is looked for
        (([A] * 20 + [B]) * 4 + [END], ([A] * 20 + [B]) * 4, False),
    ],
)
def test_loops(tmp_path: Path, said: list[int], kept: list[int], looped: bool) -> None:
    script = [C, *said, *[END] * 3]
    (decoded,) = decoder(write_model(tmp_path, script, max_positions=len(script) + 50)).decode([MEL], PROMPT)
    assert decoded.tokens == tuple(kept)
    assert (decoded.looped, decoded.truncated) == (looped, False)


def test_what_people_can_say_is_no_loop(tmp_path: Path) -> None:
    """By hand: 3 s of audio have room for 30 tokens; 31 that repeat one n-gram are a loop."""
    mel = np.zeros((128, 300), np.float32)
    for n, looped in (30, False), (31, True):
        script = [C, *[A] * n, END]
        (decoded,) = decoder(write_model(tmp_path / str(n), script, max_positions=50)).decode([mel], PROMPT)
        assert (decoded.looped, decoded.tokens) == (looped, (A,) if looped else (A,) * n)
    (decoded,) = decoder(write_model(tmp_path, [C, *[A] * 30, B, END], max_positions=50)).decode([mel], PROMPT)
    assert (decoded.looped, decoded.tokens) == (False, (*[A] * 30, B))  # it has gone on


def test_a_loop_ends_its_row_only(batch_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three clips is made to say one token for ever; the others say what they say alone."""
    clips = clips_of([120, 80, 300])
    loaded = decoder(batch_model)
    free = [loaded.decode([clip], BATCH_PROMPT)[0] for clip in clips]
    choose = loaded.contract.choose

    def stuck(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, logprobs = choose(tokens)
        if len(found) == 3:
            found[1] = 77
        return found, logprobs

    monkeypatch.setattr(loaded.contract, "choose", stuck)
    decoded = loaded.decode(clips, BATCH_PROMPT)
    assert (decoded[1].tokens, decoded[1].looped) == ((77,), True)
    # By formula: of the first token alone, as the others are left out; for `stuck`, that of the likeliest.
    loaded.start(clips[1:2])
    logits = loaded.step([BATCH_PROMPT])[0].astype(np.float64)
    assert decoded[1].avg_logprob == pytest.approx(-np.log(np.exp(logits - logits.max()).sum()), rel=1e-4)
    assert [decoded[i].tokens for i in (0, 2)] == [free[i].tokens for i in (0, 2)]
