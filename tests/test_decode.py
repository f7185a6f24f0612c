"""The greedy decoder, on a model that answers by script: every expected token is worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from scripted import COUNT_LEFTOVERS, END, PASS_THROUGH, READ_AFTER_WRITE, A, B, C, write_model

from cohere_lite.decode import Decoder
from cohere_lite.errors import ModelError, OptionError
from cohere_lite.model import load_model
from tools.export.__main__ import export
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


def test_logits_that_are_not_numbers(tmp_path: Path) -> None:
    folder = write_model(tmp_path, [C, A, B, END], max_positions=6, nan_at=2)
    with pytest.raises(ModelError, match="not numbers"):
        decoder(folder).decode([MEL], PROMPT)[0]


@pytest.mark.parametrize(
    ("caches", "in_place"), [(PASS_THROUGH, True), (READ_AFTER_WRITE, False), (COUNT_LEFTOVERS, False)]
)
def test_caches_are_shared_only_where_the_graph_allows_it(tmp_path: Path, caches: str, in_place: bool) -> None:
    """By construction (see scripted.py): a graph that is bound wrongly answers "c" all the time. Two clips, since the
    second finds what the first left."""
    loaded = decoder(write_model(tmp_path, [C, A, B, A, END], max_positions=6, caches=caches))
    assert loaded._caches.in_place == in_place
    for _ in range(2):
        assert loaded.decode([MEL], PROMPT)[0].tokens == (A, B, A)


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    write_random_checkpoint(folder, Shape(2, 64, 4, 128, 16, 9, 128, 2, 48, 3, 96, 48, 300))
    for layout in ("fast", "sherpa"):
        export(folder, folder / layout, "fp32", layout)
    return folder


@pytest.mark.parametrize("layout", ["fast", "sherpa"])
def test_a_clip_does_not_depend_on_those_before(random_models: Path, layout: str) -> None:
    """By construction: a used decoder against a fresh one; and both layouts share their buffers."""
    clips = [np.random.default_rng(seed).standard_normal((128, 50 * (seed + 1)), np.float32) for seed in range(4)]
    prompt = [18, 4, 5, 12, 13, 13, 6, 9, 10, 11]
    used = decoder(random_models / layout)
    for clip in clips:
        assert used.decode([clip], prompt) == decoder(random_models / layout).decode([clip], prompt)


def test_fast_caches_are_written_in_place(random_models: Path) -> None:
    """By hand: after n tokens the first n rows of the one buffer are filled, the others still zero, and stay where
    they are."""
    loaded = decoder(random_models / "fast")
    loaded.start([np.ones((128, 80), np.float32)])
    cache = loaded._caches._bound["past_key_0"]
    address = cache.data_ptr()
    loaded.step([[18, 4, 5]])
    loaded.step([[7]])
    rows = np.abs(cache.numpy()).max(axis=(0, 1, 3))
    assert (rows[:4] > 0).all()
    assert (rows[4:] == 0).all()
    loaded.step([[9]])
    assert np.abs(cache.numpy()).max(axis=(0, 1, 3))[4] > 0
    assert cache.data_ptr() == address


def test_sherpa_layout_allows_sharing(random_models: Path) -> None:
    """By construction: exported so that rows are written at positions >= offset and read only below."""
    assert decoder(random_models / "sherpa")._caches.in_place
