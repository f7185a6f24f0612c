"""Whose turn it is to use the model: pieces of many recordings, by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from conftest import until

from cohere_lite import ModelError, Pauses, Transcriber, open_audio
from cohere_lite.serve import models
from cohere_lite.serve.models import Cutting, Encoded, Recogniser
from cohere_lite.serve.scheduler import Scheduler, Share

pytestmark = pytest.mark.folder


class Piece(NamedTuple):
    name: str
    seconds: float


class Model:
    """In place of the Recogniser. Notes what it encodes and decodes; waits before each piece until it is let on."""

    def __init__(self, batch_size: int = 1, fails_at: str = "") -> None:
        self.batch_size, self._fails_at = batch_size, fails_at
        self.encoded: list[str] = []
        self.batches: list[list[str]] = []
        self.steps: Queue[None] = Queue()
        self.entered = Event()

    def encode(self, piece: Piece) -> list[Encoded]:
        self.entered.set()
        self.steps.get()
        if piece.name == self._fails_at:
            raise ValueError(piece.name)
        self.encoded.append(piece.name)
        return [Encoded(piece, None, None)]  # type: ignore[arg-type]

    def decode(self, encoded: Sequence[Encoded]) -> list[Any]:
        names = [cast(Piece, one.piece).name for one in encoded]
        if self._fails_at in [f"decode {name}" for name in names]:
            raise ValueError(self._fails_at)
        self.batches.append(names)
        return [f"heard {name}" for name in names]


@contextmanager
def scheduling(model: Model) -> Iterator[tuple[Scheduler, Callable[..., None], list[Any]]]:
    """The scheduler, a function that puts pieces, and what has been heard."""
    scheduler, heard = Scheduler(model), list[Any]()  # type: ignore[arg-type]

    def deliver(found: list[Any] | Exception) -> None:
        heard.extend([found] if isinstance(found, Exception) else found)

    def put(share: Share, name: str, seconds: float, urgent: bool = False) -> None:
        scheduler.put(share, Piece(name, seconds), urgent, deliver)  # type: ignore[arg-type]

    try:
        yield scheduler, put, heard
    finally:
        closing = Thread(target=scheduler.close)
        closing.start()
        while closing.is_alive():
            model.steps.put(None)
            closing.join(0.01)


def test_turns_go_by_the_seconds_that_each_has_used() -> None:
    """A long recording of 30 s pieces, then one of 10 s pieces, then a clip of 3 s, which come while the first piece
    is in the model. The clock stands at 0 then: B and C start at 0, A's second piece at 30, B's others at 10 and 20."""
    model = Model()
    with scheduling(model) as (_, put, heard):
        a, b, c = Share(), Share(), Share()
        put(a, "A1", 30)
        assert model.entered.wait(60)
        for name in ("A2", "A3"):
            put(a, name, 30)
        for name in ("B1", "B2", "B3", "B4"):
            put(b, name, 10)
        put(c, "C", 3)
        for _ in range(8):
            model.steps.put(None)
        until(lambda: len(heard) == 8)
    assert model.encoded == ["A1", "B1", "C", "B2", "B3", "A2", "B4", "A3"]


def test_who_was_away_has_saved_nothing_up() -> None:
    """B comes when A has used 60 s. They alternate from there: B does not get 60 s at once."""
    model = Model()
    with scheduling(model) as (_, put, heard):
        a, b = Share(), Share()
        for name in ("A1", "A2", "A3", "A4", "A5"):
            put(a, name, 30)
        for _ in range(2):
            model.steps.put(None)
        until(lambda: len(heard) == 2)
        until(lambda: model.steps.empty())
        for name in ("B1", "B2", "B3"):
            put(b, name, 30)
        for _ in range(6):
            model.steps.put(None)
        until(lambda: len(heard) == 8)
    # the clock stands at 60, where A3 is in the model or about to be
    assert model.encoded[:2] == ["A1", "A2"]
    assert "".join(name[0] for name in model.encoded[2:]) in ("ABABAB", "ABAABB", "BABABA", "ABABBA")


def test_batches_are_of_what_waits() -> None:
    model = Model(batch_size=3)
    with scheduling(model) as (_, put, heard):
        shares = [Share() for _ in range(5)]
        put(shares[0], "a", 5)
        assert model.entered.wait(60)
        for share, name in zip(shares[1:], "bcde", strict=True):
            put(share, name, 5)
        for _ in range(5):
            model.steps.put(None)
        until(lambda: len(heard) == 5)
    assert model.batches == [["a", "b", "c"], ["d", "e"]]


def test_a_piece_that_is_urgent_ends_its_batch() -> None:
    model = Model(batch_size=4)
    with scheduling(model) as (_, put, heard):
        shares = [Share() for _ in range(4)]
        put(shares[0], "a", 5)
        assert model.entered.wait(60)
        put(shares[1], "b", 5, urgent=True)
        put(shares[2], "c", 5)
        for _ in range(3):
            model.steps.put(None)
        until(lambda: len(heard) == 3)
    assert model.batches == [["a", "b"], ["c"]]


def test_silence_fills_no_batch() -> None:
    model = Model(batch_size=2)
    with scheduling(model) as (_, put, heard):
        share = Share()
        put(share, "a", 5)
        assert model.entered.wait(60)
        put(share, "silence", 0)
        put(share, "b", 5)
        for _ in range(3):
            model.steps.put(None)
        until(lambda: len(heard) == 3)
    assert model.batches == [["a", "silence", "b"]]


def test_what_is_cancelled_leaves_the_queue() -> None:
    """a is in the model, and finished there; nobody hears of it."""
    model = Model()
    with scheduling(model) as (scheduler, put, heard):
        a, b = Share(), Share()
        put(a, "a", 5)
        assert model.entered.wait(60)
        for name in ("a2", "a3"):
            put(a, name, 5)
        put(b, "b", 5)
        scheduler.cancel(a)
        put(a, "a4", 5)  # its reader was just about to
        assert scheduler.n_waiting == 1
        for _ in range(2):
            model.steps.put(None)
        until(lambda: heard == ["heard b"])
    assert model.encoded == ["a", "b"]


@pytest.mark.parametrize("fails_at", ["b", "decode b"])
def test_a_piece_that_fails_takes_no_others_along(fails_at: str) -> None:
    model = Model(batch_size=3, fails_at=fails_at)
    with scheduling(model) as (_, put, heard):
        put(Share(), "a", 5)
        assert model.entered.wait(60)
        put(Share(), "b", 5)
        put(Share(), "c", 5)
        for _ in range(3):
            model.steps.put(None)
        until(lambda: len(heard) == 3)
    assert sorted(map(str, heard)) == sorted([fails_at, "heard a", "heard c"])


def test_one_recording_alone_is_heard_as_by_the_transcriber() -> None:
    """Cut here and recognised piece by piece, of two prompts side by side: the same segments."""
    transcriber = Transcriber(threads=1)
    sample = np.concatenate([np.zeros(4000), _sample(), np.zeros(32000), _sample()])
    english = transcriber.transcribe(sample, rate=16000, pauses=Pauses())
    bare = transcriber.transcribe(sample, rate=16000, pauses=Pauses(), punctuation=False)
    assert english.text != bare.text
    recogniser, pieces = Recogniser(transcriber), []
    for punctuation in (True, False):
        cutting = Cutting(transcriber, 16000, {"punctuation": punctuation, "pauses": Pauses()}, is_watched=False)
        for block in np.array_split(sample, 7):
            pieces += cutting.push(block[:, None])
        pieces += cutting.finish()
    heard = recogniser.decode([one for piece in pieces for one in recogniser.encode(piece)])
    expected = [*english.segments, *bare.segments]
    assert [h.segment.text for h in heard] == [segment.text for segment in expected]
    assert [(h.segment.start, h.segment.end, h.segment.tokens) for h in heard] == [
        (s.start, s.end, s.tokens) for s in expected
    ]
    assert [(p.start_s, p.end_s) for p in pieces] == [(s.start, s.end) for s in expected]
    for one, segment in zip(heard, expected, strict=True):
        assert len(one.tokens) == len(segment.tokens)
        if segment.avg_logprob is not None:  # which has end-of-text, too
            total = segment.avg_logprob * (len(one.tokens) + 1)
            assert sum(token.logprob for token in one.tokens) == pytest.approx(total, abs=0.5)


def _sample() -> np.ndarray:
    with open_audio(Path(__file__).parents[1] / "cohere_lite/demo/sample.wav") as audio:
        return np.concatenate([*audio.blocks])[:, 0]


# A sentence without its beginning and its end leaves its language unsure; of a sure one no more is listened to.
def _unsure(n: int) -> np.ndarray:
    return np.tile(np.concatenate([_sample()[20000:36000], np.zeros(16000)]), n)


def test_a_language_is_heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: a batch that fails is decoded again; what is stated is what is stated without that. Of what
    somebody sees as it comes, each piece is decoded as the likeliest so far."""
    transcriber, decode_rightly = Transcriber(threads=1), models.decode

    def stated(n_failures: int) -> list[float | None]:
        failures = iter([ModelError("out of memory")] * n_failures)

        def decode(*args: Any) -> Any:
            for failure in failures:
                raise failure
            return decode_rightly(*args)

        cutting = Cutting(transcriber, 16000, {"language": "auto", "pauses": Pauses()}, is_watched=True)
        recogniser = Recogniser(transcriber)
        pieces = cutting.push(_unsure(2)[:, None]) + cutting.finish()
        encoded = [recogniser.encode(piece) for piece in pieces]
        assert [len(of_piece) for of_piece in encoded] == [1] * len(pieces)
        with monkeypatch.context() as patch:
            patch.setattr(models, "decode", decode)
            for _ in range(n_failures):
                with pytest.raises(ModelError):
                    recogniser.decode([one for (one,) in encoded])
            heard = recogniser.decode([one for (one,) in encoded])
        return [one.segment.language_probability for one in heard]

    first, second = [probability for probability in stated(0) if probability is not None]
    assert first < 0.9
    assert first < second  # what is heard adds up
    assert stated(2) == stated(0)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_a_language_is_waited_for_as_by_the_transcriber(n: int) -> None:
    """Where nobody sees the text come: pieces wait for those that make it sure, up to 4, or for the end. Then more are
    to be decoded than its batches hold."""
    with Transcriber(threads=1, batch_size=2) as transcriber:
        expected = transcriber.transcribe(_unsure(n), rate=16000, language="auto", pauses=Pauses())
        cutting = Cutting(transcriber, 16000, {"language": "auto", "pauses": Pauses()}, is_watched=False)
        recogniser = Recogniser(transcriber)
        pieces = cutting.push(_unsure(n)[:, None]) + cutting.finish()
        heard = [one.segment for piece in pieces for one in recogniser.decode(recogniser.encode(piece))]
    assert [(s.text, s.start, s.end, s.language, s.language_probability) for s in heard] == [
        (s.text, s.start, s.end, s.language, s.language_probability) for s in expected.segments
    ]
    assert cutting.recording.warnings == [*expected.warnings]
