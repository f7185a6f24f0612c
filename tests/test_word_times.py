"""Word times: words out of tokens, the path through the attention, and when the words of the sample were said."""

import gc
import json
import re
import shutil
import weakref
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import END, A, B, write_model
from test_transcribe import SAMPLE, SAMPLE_TEXT, beep

from cohere_lite import ModelError, OptionError, Pauses, StateError, Transcriber
from cohere_lite.decode import decode
from cohere_lite.export.__main__ import export
from cohere_lite.export.align import read_alignment_heads
from cohere_lite.extras.silences import silences
from cohere_lite.extras.word_times import WordTimer, best_heads, monotonic_paths, token_times, word_spans
from cohere_lite.extras.words import split_words
from cohere_lite.graphfile import read_graph_file
from cohere_lite.model import DEMO_FOLDER, load_model
from cohere_lite.session import CPU
from cohere_lite.tokens import Vocabulary

CHECKPOINT = Path(__file__).parents[1] / "tools" / "demo" / "checkpoint"
# By reference: the durations of Kokoro's sounds (tools/words/spoken.py), less the silence that the sample leaves out.
SAMPLE_STARTS = {"Turn": 0.097, "on": 0.522, "light": 0.772, "in": 1.347, "living": 1.572, "room.": 1.922}
SAMPLE_END = 2.35  # s; its last sound, by its level
OFF_S = 0.15  # by record 0.13 at most; of the true times of Kokoro's voices 90 % are within 0.09
PIECES = [
    *("▁", "▁Qui", "▁?", "▁«", "▁Bon", "jour", "▁»", ".", "<0xE4>", "<0xBD>", "<0xA0>", "好", "。", "▁l", "'", "eau"),
    *("「", "手", "」", "▁¿", "Qu", "é", "?", "▁-", "▁5", "0", "▁$", "7", "你们a", "<|en|>", "ab▁c"),
]


@pytest.fixture(scope="module")
def demo() -> Transcriber:
    return Transcriber()


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return np.frombuffer(SAMPLE.read_bytes()[44:], "<i2").astype(np.float32) / 32768


def quiet(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * 16000), np.float32)


def off_s(words, starts: dict[str, float], later: float = 0.0) -> float:
    """The largest error of a start."""
    found = {word.text: word.start for word in words}
    return max(abs(found[text] - start - later) for text, start in starts.items())


def check_order(words, start: float, end: float) -> None:
    edges = [start, *(time for word in words for time in (word.start, word.end)), end]
    assert all(before <= after for before, after in pairwise(edges)), edges
    assert all(word.start < word.end and 0 <= word.confidence <= 1 for word in words)


# Tokens to words


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ("▁Qui ▁? ▁Bon jour .", ["Qui ?", "Bonjour."]),
        ("▁« ▁Bon jour ▁» .", ["« Bonjour »."]),
        ("▁l ' eau ▁- ▁5 0 ▁$ 7", ["l'eau -", "50", "$7"]),
        ("▁¿ Qu é ? ▁¿ Qu é ?", ["¿Qué?", "¿Qué?"]),
        ("<0xE4> <0xBD> <0xA0> 好 。 「 手 」 。", ["你", "好。", "「手」。"]),
        ("你们a ▁? ab▁c", ["你", "们", "a", "?ab", "c"]),
        ("<0xE4> <0xBD>", ["\ufffd\ufffd"]),
        ("▁-", ["-"]),
        ("▁", []),
        ("<|en|>", []),
        ("", []),
    ],
)
def test_words_of_tokens(pieces: str, words: list[str]) -> None:
    """By hand."""
    ids = [PIECES.index(piece) for piece in pieces.split()]
    assert [word.text for word in split_words(Vocabulary(tuple(PIECES)), ids)] == words


def test_where_words_are_in_their_tokens() -> None:
    """By hand: three bytes of one character, two characters and a half word in one piece, and no punctuation."""
    ids = [PIECES.index(piece) for piece in ("<0xE4>", "<0xBD>", "<0xA0>", "你们a", "▁Bon", "jour", ".")]
    found = split_words(Vocabulary(tuple(PIECES)), ids)
    assert [word.first for word in found] == pytest.approx([0, 3, 3 + 1 / 3, 3 + 2 / 3, 4])
    assert [word.tokens for word in found] == [(0, 3), (3, 4), (3, 4), (3, 4), (4, 6)]
    # two bytes that make no character, then three that do
    ids = [PIECES.index(piece) for piece in ("<0xE4>", "<0xBD>", "<0xE4>", "<0xBD>", "<0xA0>")]
    assert split_words(Vocabulary(tuple(PIECES)), ids)[-1].first == 2


@given(st.lists(st.integers(0, len(PIECES) - 1)))
def test_no_character_is_lost(ids: list[int]) -> None:
    vocabulary = Vocabulary(tuple(PIECES))
    words = split_words(vocabulary, ids)
    assert "".join(word.text for word in words).replace(" ", "") == "".join(vocabulary.decode(ids).split())
    assert all(0 <= word.first < word.tokens[1] <= len(ids) for word in words)


# The path


@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_path_gathers_the_most(n_rows: int, n_frames: int, seed: int) -> None:
    """By formula: no other path has more, of all that there are."""
    gains = np.random.default_rng(seed).standard_normal((2, n_rows, n_frames))
    starts, ends = monotonic_paths(gains)

    def gathered(of: np.ndarray, firsts: tuple, lasts: tuple) -> float:
        return sum(float(row[first : last + 1].sum()) for row, first, last in zip(of, firsts, lasts, strict=True))

    def allowed(firsts: tuple, lasts: tuple) -> bool:
        spans = all(first <= last for first, last in zip(firsts, lasts, strict=True))
        return spans and all(first - last in (0, 1) for last, first in zip(lasts[:-1], firsts[1:], strict=True))

    frames = range(n_frames)
    paths = [
        (firsts, (*ends_, n_frames - 1))
        for firsts in product(frames, repeat=n_rows)
        for ends_ in product(frames, repeat=n_rows - 1)
        if allowed(firsts, (*ends_, n_frames - 1))
    ]
    for k in range(2):
        found = tuple(starts[k]), tuple(ends[k])
        assert allowed(*found)
        most = max(gathered(gains[k], *path) for path in paths)
        assert gathered(gains[k], *found) == pytest.approx(most)


def peaked(frames: list[int], n_frames: int) -> np.ndarray:
    """A head that looks at these frames, one for each row, and a little at all of them."""
    weights = np.full((len(frames), n_frames), 0.1 / n_frames, np.float32)
    weights[np.arange(len(frames)), frames] += 0.9
    return weights


def test_times_of_tokens() -> None:
    """By hand: attention peaks at frames 2, 2 and 7, of 80 ms, and is half of that half a frame earlier."""
    rises, peaks = token_times(peaked([2, 2, 7], 10)[None])
    assert peaks == pytest.approx([0.16, 0.16, 0.56])
    assert rises == pytest.approx([0.12, 0.12, 0.52], abs=0.002)


def test_a_frame_that_all_tokens_look_at_draws_none() -> None:
    """By hand: frame 9 gets the most of each row's attention, and says nothing."""
    weights = 0.3 * peaked([1, 3, 5, 8], 12)
    weights[:, 9] += 0.7
    assert token_times(weights[None])[1][:3] == pytest.approx([0.08, 0.24, 0.4])


def test_heads_that_follow_the_speech_are_found() -> None:
    """By hand: two go on; one looks at the beginning, one everywhere, one goes back."""
    follow = [peaked([1, 4, 7, 9], 12), peaked([2, 4, 6, 10], 12)]
    others = [peaked([0, 0, 0, 0], 12), np.full((4, 12), 1 / 12, np.float32), peaked([9, 6, 3, 0], 12)]
    assert best_heads(np.stack([*others[:2], *follow, others[2]])).tolist() == [2, 3]


@settings(max_examples=200)
@given(st.data())
def test_words_are_in_order_whatever_the_attention(data: st.DataObject) -> None:
    """Within the piece, without overlaps, each with some time."""
    n_words, n_frames = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weights = rng.random((2, n_words + 1, n_frames)).astype(np.float32) ** data.draw(st.sampled_from([1, 20])) + 1e-6
    duration = data.draw(st.floats(0.011, 0.08 * n_frames))
    edges = np.sort(rng.random(2 * data.draw(st.integers(0, 4)))) * duration
    silent = [*map(tuple, edges.reshape(-1, 2).tolist())]
    ids = rng.integers(0, len(PIECES), n_words)
    words = split_words(Vocabulary(tuple(PIECES)), ids.tolist())
    if not words:
        return
    spans = word_spans(words, *token_times(weights / weights.sum(axis=2, keepdims=True)), silent, duration)
    times = [time for span in spans for time in span]
    assert all(before <= after + 1e-9 for before, after in pairwise([0.0, *times, duration]))
    assert all(begin < end for begin, end in spans)


def test_silences() -> None:
    """By hand, to a step of 10 ms: half a second of nothing, a tone with gaps of 30 and 80 ms, and noise 57 dB below it
    with a click of 1 ms."""
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(8000) * 2 * np.pi * 1000 / 16000)
    tone[1600:2080] = tone[4800:6080] = 0
    noise = 0.001 * rng.standard_normal(8000)
    noise[4000:4016] = 0.5
    found = silences(np.concatenate([quiet(0.5), tone, noise]).astype(np.float32))
    assert found == [pytest.approx(span, abs=0.011) for span in [(0, 0.5), (0.8, 0.88), (1.0, 1.5)]]
    assert silences(np.zeros(100, np.float32)) == []


# The demonstration model


def test_the_sample(demo: Transcriber, sample: np.ndarray) -> None:
    """Its words begin where its voice says; the last one ends with its sound. A shift by one row would move
    each by a word, 0.2 s or more."""
    transcript = demo.transcribe(sample, rate=16000, word_times=True)
    (segment,) = transcript.segments
    assert segment.words is not None
    assert " ".join(word.text for word in segment.words) == segment.text == SAMPLE_TEXT
    assert off_s(segment.words, SAMPLE_STARTS) < OFF_S
    check_order(segment.words, 0, SAMPLE_END)
    without = demo.transcribe(sample, rate=16000)
    assert (without.text, without.segments[0].tokens, without.segments[0].words) == (SAMPLE_TEXT, segment.tokens, None)
    # by formula: all words' tokens are what avg_logprob is of, but for end-of-text and the full stop
    assert np.mean([word.confidence for word in segment.words]) == pytest.approx(np.exp(segment.avg_logprob), abs=0.03)


def test_a_shift_by_one_row_is_seen(demo: Transcriber, sample: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would see of a shift by one row."""
    attention = WordTimer.attention

    def shifted(self, clip, prompt, tokens) -> np.ndarray:
        weights = attention(self, clip, prompt, tokens)
        return np.concatenate([weights[:, 1:], weights[:, -1:]], axis=1)

    monkeypatch.setattr(WordTimer, "attention", shifted)
    (segment,) = demo.transcribe(sample, rate=16000, word_times=True).segments
    assert off_s(segment.words, SAMPLE_STARTS) > 2 * OFF_S


@pytest.mark.parametrize(("before_s", "after_s", "start"), [(1.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 60.0)])
def test_silence_around_and_a_later_start(
    demo: Transcriber, sample: np.ndarray, before_s: float, after_s: float, start: float
) -> None:
    samples = np.concatenate([quiet(start), quiet(before_s), sample, quiet(after_s)])
    (segment,) = demo.transcribe(samples, rate=16000, word_times=True, start=start).segments
    assert segment.text == SAMPLE_TEXT
    assert off_s(segment.words, SAMPLE_STARTS, start + before_s) < OFF_S
    check_order(segment.words, start + before_s, start + before_s + SAMPLE_END)


def test_a_pause_of_3_s(demo: Transcriber, sample: np.ndarray) -> None:
    """In a phrase, before "room": the word before it ends with its sound, "room" begins with its own."""
    cut = round(1.9 * 16000)
    samples = np.concatenate([sample[:cut], quiet(3), sample[cut:]])
    (segment,) = demo.transcribe(samples, rate=16000, word_times=True).segments
    assert segment.text == SAMPLE_TEXT
    before, after = segment.words[:7], segment.words[7:]
    assert off_s(before, {text: SAMPLE_STARTS[text] for text in ("Turn", "on", "light", "in", "living")}) < OFF_S
    assert before[-1].end == pytest.approx(1.9, abs=0.03)
    assert [word.text for word in after] == ["room."]
    assert after[0].start == pytest.approx(4.9, abs=0.03)


def test_repeats(demo: Transcriber, sample: np.ndarray) -> None:
    """Phrase by phrase: the words of the second have the same times, later."""
    both = np.concatenate([sample, quiet(1), sample])
    segments = [s for s in demo.transcribe(both, rate=16000, word_times=True, pauses=Pauses()).segments if s.text]
    assert len(segments) == 2
    for segment, later in zip(segments, (0, len(sample) / 16000 + 1), strict=True):
        assert off_s(segment.words, SAMPLE_STARTS, later) < OFF_S
        check_order(segment.words, segment.start, segment.end)


def test_words_do_not_depend_on_the_batch(sample: np.ndarray) -> None:
    """One by one and side by side: the same times, to the last bit."""
    both = np.concatenate([sample, quiet(1), sample[:20000], quiet(1), sample])
    found = []
    for batch_size in (1, 4):
        with Transcriber(batch_size=batch_size) as transcriber:
            segments = transcriber.transcribe(both, rate=16000, word_times=True, pauses=Pauses()).segments
            found.append([[(word.text, word.start, word.end) for word in segment.words or ()] for segment in segments])
    assert found[0] == found[1]
    assert sum(map(bool, found[0])) == 3


def test_pushed_words(demo: Transcriber, sample: np.ndarray) -> None:
    """As those of a file; a silent segment has none, and knows that they were asked for."""
    begun = demo.recording(16000, word_times=True, pauses=Pauses())
    segments = [*begun.push(np.concatenate([sample, quiet(3)])), *begun.finish()]
    assert off_s(segments[0].words, SAMPLE_STARTS) < OFF_S
    assert [(segment.silent, segment.words) for segment in segments[1:]] == [(True, ())]


@pytest.mark.parametrize("failure", [ModelError("out of memory"), ValueError("out of range")], ids=str)
def test_text_is_not_lost_where_times_fail(
    demo: Transcriber, sample: np.ndarray, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second of two segments."""
    time_words, calls = WordTimer.__call__, []

    def failing(self, *args: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise failure
        return time_words(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(WordTimer, "__call__", failing)
    both = np.concatenate([sample, quiet(1), sample])
    transcript = demo.transcribe(both, rate=16000, word_times=True, pauses=Pauses())
    first, second = [segment for segment in transcript.segments if segment.text]
    assert (first.text, second.text, second.words) == (SAMPLE_TEXT, SAMPLE_TEXT, None)
    assert len(first.words or ()) == 8
    assert transcript.complete
    assert [warning.partition(": ")[2] for warning in transcript.warnings] == [f"no word times here: {failure}"]


def test_warnings_of_split_channels_say_which(
    demo: Transcriber, sample: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of segments do."""

    def failing(self, *args: object) -> object:
        raise ModelError("out of memory")

    monkeypatch.setattr(WordTimer, "__call__", failing)
    two = np.stack([sample, np.zeros_like(sample)], axis=1)
    transcript = demo.transcribe(two, rate=16000, word_times=True, channel="split")
    assert transcript.warnings == ("[0] 0:00 to 0:02: no word times here: out of memory",)


def test_a_text_that_the_models_limit_cut_off(demo: Transcriber, sample: np.ndarray) -> None:
    """It has one token more than the decoder has positions: the last one is never fed."""
    contract, vocabulary = demo._model.contract, demo._model.vocabulary
    clip, prompt = contract.encode(sample), vocabulary.prompt("en")
    (heard,) = decode(contract, [clip], prompt, vocabulary.end_of_text)
    n_tokens = contract.max_positions + 1 - len(prompt)
    tokens, logprobs = (heard.tokens * 99)[:n_tokens], (heard.logprobs * 99)[:n_tokens]
    cut_off = heard._replace(tokens=tokens, logprobs=logprobs, truncated=True)
    words = demo._word_timer()(clip, sample, prompt, cut_off, 0.0)
    assert [word.text for word in words] == [word.text for word in split_words(vocabulary, tokens)]
    check_order(words, 0.0, len(sample) / 16000)


def test_attention_that_is_not_numbers_is_told(
    demo: Transcriber, sample: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = demo._word_timer()
    call = timer._session.call

    class Bad:
        def __init__(self, value) -> None:
            self.value = value

        def numpy(self) -> np.ndarray:
            return np.full_like(self.value.numpy(), np.nan)

    def bad_call(feeds, outputs):
        return {name: Bad(value) for name, value in call(feeds, outputs).items()}

    monkeypatch.setattr(timer._session, "call", bad_call)
    transcript = demo.transcribe(sample, rate=16000, word_times=True)
    assert transcript.text == SAMPLE_TEXT
    assert "align.int8.onnx gave attention that is not numbers" in transcript.warnings[0]


def test_it_is_not_loaded_unless_asked_for(sample: np.ndarray) -> None:
    with Transcriber() as transcriber:
        transcriber.transcribe(sample, rate=16000)
        assert transcriber._model.turn.word_timer is None
        transcriber.transcribe(sample, rate=16000, word_times=True)
        timer = transcriber._model.turn.word_timer
        assert timer is not None
        transcriber.recording(16000, word_times=True)
        assert transcriber._model.turn.word_timer is timer
    assert transcriber._model.turn.word_timer is None


def test_published_files_have_them_after_conversion_only(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", [0] * 9 + [A, B, END], max_positions=16)
    with pytest.raises(OptionError, match=f"our own export: python -m cohere_lite.export {folder} NEW_FOLDER"):
        Transcriber(folder).transcribe(beep(), rate=16000, word_times=True)


# The graph


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demonstration model in several precisions."""
    folder = tmp_path_factory.mktemp("exports")
    options = {"fp32": ("fp32", None), "fp16": ("fp16", None), "q8f16": ("fp16", 8), "int4": ("int4", None)}
    for name, (precision, weight_bits) in options.items():
        export(CHECKPOINT, folder / name, precision, weight_bits=weight_bits)
    return {**{name: folder / name for name in options}, "int8": DEMO_FOLDER}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "q8f16", "int4", "int8"])
def test_every_precision_has_it(exports: dict[str, Path], precision: str, sample: np.ndarray) -> None:
    """It shares the decoder's weights: no file of its own. Times are those of INT8, to a frame."""
    folder = exports[precision]
    graph = read_graph_file(folder / f"align.{precision}.onnx")
    assert [*graph.external_bytes] == [f"decoder.{precision}.onnx.data"]
    layers = {layer for layer, _ in read_alignment_heads(CHECKPOINT) or ()}
    assert graph.outputs == tuple(f"attention_{layer}" for layer in sorted(layers))
    assert graph.path.stat().st_size < 50_000
    with Transcriber(folder) as transcriber:
        (segment,) = transcriber.transcribe(sample, rate=16000, word_times=True).segments
    assert segment.text == SAMPLE_TEXT
    assert off_s(segment.words, SAMPLE_STARTS) < OFF_S


@pytest.mark.reference
@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-5), ("fp16", 2e-3), ("int8", 0.05)])
def test_attention_is_the_references(
    exports: dict[str, Path], precision: str, apart: float, demo: Transcriber, sample: np.ndarray, tmp_path: Path
) -> None:
    """transformers', eager; each layer's, head by head, for prompt and text; and rows sum to 1."""
    torch = pytest.importorskip("torch")
    from transformers import CohereAsrForConditionalGeneration

    from cohere_lite.export.align import write_align
    from cohere_lite.mel import log_mel

    folder = Path(shutil.copytree(exports[precision], tmp_path / "model"))
    write_align(folder / f"decoder.{precision}.onnx", None)
    model = load_model(folder)
    (heard,) = demo.transcribe(sample, rate=16000).segments
    tokens = [*model.vocabulary.prompt("en"), *heard.tokens]
    session = model.open_graph(read_graph_file(folder / f"align.{precision}.onnx"))
    values = model.contract.encode(sample).values
    feeds = {name: values[name] for name in session.inputs if name != "tokens"}
    found = session.call({**feeds, "tokens": [tokens]}, dict.fromkeys(session.outputs, CPU))
    reference = CohereAsrForConditionalGeneration.from_pretrained(
        CHECKPOINT, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        expected = reference(
            input_features=torch.from_numpy(log_mel(sample).T.copy()[None]),
            decoder_input_ids=torch.tensor([tokens]),
            output_attentions=True,
        ).cross_attentions
    assert len(found) == len(expected) == 2
    for i, layer in enumerate(expected):
        weights = found[f"attention_{i}"].numpy()
        assert weights.shape == tuple(layer.shape)
        assert weights.sum(axis=-1) == pytest.approx(1, abs=1e-3)
        assert np.abs(weights - layer.numpy()).max() <= apart


def test_heads_come_with_the_checkpoint(tmp_path: Path, sample: np.ndarray) -> None:
    """Without a table, all layers are outputs, and each piece tells which heads follow it."""
    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    config = checkpoint / "generation_config.json"
    facts = json.loads(config.read_text())
    assert WordTimer(load_model()).heads == facts["alignment_heads"] == [[1, 0], [1, 3]]
    del facts["alignment_heads"]
    config.write_text(json.dumps(facts))
    export(checkpoint, tmp_path / "without")
    assert read_graph_file(tmp_path / "without" / "align.int8.onnx").outputs == ("attention_0", "attention_1")
    with Transcriber(tmp_path / "without") as transcriber:
        (segment,) = transcriber.transcribe(sample, rate=16000, word_times=True).segments
        assert off_s(segment.words, SAMPLE_STARTS) < OFF_S
    for wrong in ([[2, 0]], [[0, 4]], [], [[1]], "1", [[0, -1]]):
        config.write_text(json.dumps(facts | {"alignment_heads": wrong}))
        with pytest.raises(ValueError, match="alignment_heads"):
            export(checkpoint, tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()


def test_closing_frees_the_graph() -> None:
    """Though a recording is going on."""
    transcriber = Transcriber()
    pushed = transcriber.recording(16000, word_times=True)
    session = weakref.ref(transcriber._word_timer()._session)
    transcriber.close()
    gc.collect()
    assert session() is None
    with pytest.raises(StateError):
        pushed.push(beep(36 * 16000))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, '{\n  "alignment_heads": [[1, 2]]\n}\n'),
        ('{"alignment_heads": [[1, 3]]}', '{\n  "alignment_heads": [[1, 2]]\n}\n'),
        (
            (CHECKPOINT / "generation_config.json").read_text(),
            re.sub(r"\[\[.*\]\]", "[[1, 2]]", (CHECKPOINT / "generation_config.json").read_text()),
        ),
    ],
    ids=["no file", "nothing else", "the demonstration model's"],
)
def test_heads_that_are_chosen_are_written(
    before: str | None, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand; the rest of the file stays as it is."""
    from tools.words import __main__ as words

    monkeypatch.setattr(words, "export", lambda _, folder: shutil.copytree(DEMO_FOLDER, folder, dirs_exist_ok=True))
    monkeypatch.setattr(words, "write_align", lambda *_: None)
    monkeypatch.setattr(words, "choose", lambda *_: [[1, 2]])
    path = tmp_path / "generation_config.json"
    if before is not None:
        path.write_text(before)
    assert words.main([str(tmp_path), "--choose"]) == 0
    assert path.read_text() == after


def test_an_export_from_before_gets_it(tmp_path: Path) -> None:
    """Where it is: its other files stay."""
    folder = Path(shutil.copytree(DEMO_FOLDER, tmp_path / "model"))
    (folder / "align.int8.onnx").unlink()
    with pytest.raises(OptionError, match=r"python -m cohere_lite\.export"):
        Transcriber(folder).recording(16000, word_times=True)
    said = f"{folder} is in the fast layout already: align.int8.onnx, for word times, was added"
    assert export(folder, tmp_path / "out") == [said]
    assert not (tmp_path / "out").exists()
    assert export(folder, tmp_path / "out") == [f"{folder} is in the fast layout already: nothing to do"]
    assert read_graph_file(folder / "align.int8.onnx").outputs == (
        "attention_0",
        "attention_1",
    )  # unknown heads
    Transcriber(folder).recording(16000, word_times=True)
