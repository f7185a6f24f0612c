"""Cuts and joins: by hand where the rule is simple to follow, and against the live reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohere_lite.cut import MAX_CHUNK_S, Chunks
from cohere_lite.transcript import join

SECOND = 16_000


def cut(blocks, max_chunk_s=MAX_CHUNK_S):
    chunks = Chunks(max_chunk_s)
    return [chunk for block in blocks for chunk in chunks.push(block)] + chunks.finish()


def split(samples, max_chunk_s=MAX_CHUNK_S, at=()):
    """The chunks' (start, end); the samples are pushed in blocks, cut at `at`."""
    chunks = cut(np.split(samples, at), max_chunk_s)
    assert np.array_equal(np.concatenate(chunks), samples)
    ends = np.cumsum([len(chunk) for chunk in chunks]).tolist()
    return list(zip([0, *ends], ends, strict=False))


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32) * 0.1


@pytest.mark.parametrize("n", [0, 1, 30 * SECOND, 30 * SECOND + 1, 35 * SECOND])
def test_up_to_35_seconds_stay_whole(n):
    """By hand: `total_samples <= chunk_size` returns the waveform as it is, and chunk_size is 35 s, not 30 - 5."""
    assert split(noise(n)) == [(0, n)]


def test_one_sample_more_is_cut_at_the_quiet_window():
    """By hand: the search starts at 30 s; its windows start every 1600 samples; the third one is silent."""
    samples = noise(35 * SECOND + 1)
    quiet = 30 * SECOND + 2 * 1600
    samples[quiet : quiet + 1600] = 0
    assert split(samples) == [(0, quiet), (quiet, 35 * SECOND + 1)]


def test_silence_outside_the_grid_does_not_count_whole():
    """By hand: 1600 silent samples across two windows halve both; window 5 at a quarter of the power is quieter."""
    samples = np.full(36 * SECOND, 0.1, np.float32)
    samples[30 * SECOND + 800 : 30 * SECOND + 2400] = 0  # windows 0 and 1: power 0.005
    samples[30 * SECOND + 8000 : 30 * SECOND + 9600] = 0.05  # window 5: power 0.0025
    assert split(samples)[0] == (0, 30 * SECOND + 8000)


def test_the_last_window_is_never_looked_at():
    """By hand: range(0, 80000 - 1600, 1600) ends before 78400, so silence there is not found; the tie goes to 30 s."""
    samples = np.full(36 * SECOND, 0.1, np.float32)
    samples[35 * SECOND - 1600 : 35 * SECOND] = 0
    assert split(samples)[0] == (0, 30 * SECOND)
    samples[35 * SECOND - 3200 : 35 * SECOND - 1600] = 0  # the one before is the last one looked at: 34.8 s
    assert split(samples)[0] == (0, 35 * SECOND - 3200)


def test_ties_go_to_the_first_window():
    """By hand: in digital silence every window ties, so every cut is at the start of the search, 30 s on."""
    assert split(np.zeros(100 * SECOND, np.float32)) == [
        (0, 30 * SECOND),
        (30 * SECOND, 60 * SECOND),
        (60 * SECOND, 90 * SECOND),
        (90 * SECOND, 100 * SECOND),
    ]


def test_the_last_chunk_may_be_short():
    """By hand: 35 s + 1 sample of silence but for a quieter-than-noise end: cut at 34.8 s, 3201 samples are left."""
    samples = np.full(35 * SECOND + 1, 0.1, np.float32)
    samples[35 * SECOND - 3200 :] = 0
    assert split(samples) == [(0, 35 * SECOND - 3200), (35 * SECOND - 3200, 35 * SECOND + 1)]


def test_max_chunk_s():
    """By hand: the rule with 10 s: search from 5 s on, ties to the first, the last chunk may have all 10 s."""
    assert split(np.zeros(20 * SECOND, np.float32), 10) == [(0, 80_000), (80_000, 160_000), (160_000, 320_000)]


LONG = noise(60 * SECOND, seed=1)


@settings(deadline=None, max_examples=50)
@given(
    start=st.integers(0, len(LONG)),
    sizes=st.lists(st.one_of(st.integers(0, 3), st.integers(1, 30 * SECOND)), max_size=20),
)
def test_however_it_is_pushed(start, sizes):
    """By construction: the same chunks as in one push."""
    assert split(LONG, 10, at=np.cumsum([start, *sizes])) == split(LONG, 10)


def test_silence_completes_no_chunk():
    """By definition: only the length does."""
    chunks = Chunks(10)
    assert chunks.push(LONG[: 3 * SECOND]) == chunks.silence() == []
    assert np.array_equal(chunks.finish()[0], LONG[: 3 * SECOND])


def test_chunks_do_not_change_with_the_blocks_they_came_in():
    """By construction: whoever records into one buffer again and again does not overwrite what is held."""
    buffer, chunks, pieces = np.empty(SECOND, np.float32), Chunks(10), []
    for second in LONG.reshape(-1, SECOND):
        buffer[:] = second
        pieces += chunks.push(buffer)
    assert np.array_equal(np.concatenate([*pieces, *chunks.finish()]), LONG)


@pytest.mark.parametrize(
    ("texts", "language", "expected"),
    [  # by hand, from _reassemble_chunk_texts
        (["Hello there.", "How are you?"], "en", "Hello there. How are you?"),
        (["你好。", "再见。"], "zh", "你好。再见。"),
        (["はい。", "いいえ。"], "ja", "はい。いいえ。"),
        (["네.", "아니요."], "ko", "네. 아니요."),
        ([" a ", " b ", " c "], "en", " a b c"),
        (["a", "", " \n", "b"], "en", "a b"),
        (["", " b "], "en", " b"),
        (["a"], "en", "a"),
    ],
)
def test_join(texts, language, expected):
    assert join(texts, language) == expected


@pytest.mark.parametrize("texts", [[], [""], ["", "  "]])
def test_join_of_nothing_is_empty(texts):
    """Our own choice: the reference raises IndexError here."""
    assert join(texts, "en") == ""


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers.models.cohere_asr.feature_extraction_cohere_asr").CohereAsrFeatureExtractor


def reference_split(extractor, samples):
    import torch

    pieces = []
    start = 0
    for chunk in extractor._split_audio_chunks_energy(torch.from_numpy(samples)):
        pieces.append((start, start + len(chunk)))
        start += len(chunk)
    return pieces


def speech_like(n, seed):
    """Noise whose loudness wanders and pauses, in 16-bit steps."""
    random = np.random.default_rng(seed)
    loudness = np.repeat(random.choice([0.0, 0.0001, 0.01, 0.1, 0.3], n // 1000 + 1), 1000)[:n]
    return (np.round(loudness * random.standard_normal(n) * 32767) / 32768).astype(np.float32)


@pytest.mark.reference
@pytest.mark.parametrize("make", [noise, speech_like])
@pytest.mark.parametrize("seed", range(10))
def test_split_equals_reference(reference, make, seed):
    n = int(np.random.default_rng(seed).integers(20 * SECOND, 200 * SECOND))
    samples = make(n, seed)
    assert split(samples) == reference_split(reference(), samples)
    assert split(samples, 20) == reference_split(reference(max_audio_clip_s=20.0), samples)


@pytest.mark.reference
@pytest.mark.parametrize("n", [30, 30 + 1 / SECOND, 35, 35 + 1 / SECOND, 70, 70 + 1 / SECOND])
def test_split_equals_reference_at_the_edges(reference, n):
    for samples in (noise(round(n * SECOND)), np.zeros(round(n * SECOND), np.float32)):
        assert split(samples) == reference_split(reference(), samples)


@pytest.mark.reference
def test_split_equals_reference_in_what_the_model_is_given(reference):
    """The whole extractor, threshold of 30 s included: as many rows, each as long."""
    for seconds in (30, 31, 36, 80):
        samples = noise(seconds * SECOND)
        features = reference()(samples, sampling_rate=SECOND, return_tensors="pt")
        frames = [(end - start) // 160 for start, end in split(samples)]
        assert features["attention_mask"].sum(dim=1).tolist() == frames


@pytest.mark.reference
@pytest.mark.parametrize("language", ["en", "zh", "ja", "ko", "ar"])
def test_join_equals_reference(language):
    pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.cohere_asr.processing_cohere_asr")
    separator = "" if language in module._NO_SPACE_LANGS else " "
    random = np.random.default_rng(0)
    for _ in range(200):
        texts = random.choice(["", " ", "a", " b", "c ", "\nd e\t", "一"], random.integers(1, 6)).tolist()
        if not any(text.strip() for text in texts):
            continue
        index = [(0, i) for i in range(len(texts))]
        assert [join(texts, language)] == module.CohereAsrProcessor._reassemble_chunk_texts(texts, index, separator)
