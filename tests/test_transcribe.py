"""The Python interface: what may be passed, what comes back, what is refused."""

import io
import struct
import threading
import tracemalloc
from collections.abc import Iterable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from scripted import END, PIECES, A, B, C, write_model

from cohere_lite import (
    AudioError,
    ModelError,
    OptionError,
    Pauses,
    Segment,
    Transcriber,
    Transcript,
    open_audio,
    recording,
)
from cohere_lite.contracts.contract import Clip, Contract
from cohere_lite.decode import Decoded
from cohere_lite.export.__main__ import export
from cohere_lite.extras.polarity import Polarity
from cohere_lite.model import DEMO_FOLDER
from tools.random_checkpoint import Shape, write_random_checkpoint

SAMPLE = DEMO_FOLDER / "sample.wav"
SAMPLE_TEXT = "Turn on the light in the living room."  # what the recording says


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    """16-bit; samples (n,) or (n, channels)."""
    samples = np.asarray(samples, "<i2")
    data, channels = samples.tobytes(), 1 if samples.ndim == 1 else samples.shape[1]
    fmt = struct.pack("<HHIIHH", 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture(scope="module")
def demo() -> Transcriber:
    return Transcriber()


@pytest.fixture
def scripted(tmp_path: Path) -> Transcriber:
    """Whatever the audio, "a b", after the full prompt of 10 tokens."""
    return Transcriber(write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16))


def beep(n: int = 8000) -> np.ndarray:
    """n samples, float32: a tone in silence, so that something stands out; the scripted model hears nothing anyway."""
    samples = np.zeros(n, np.float32)
    middle = slice(n // 4, n - n // 4)
    samples[middle] = 0.1 * np.sin(2 * np.pi * 0.05 * np.arange(n))[middle]
    return samples


def test_every_kind_of_source_gives_the_same(demo: Transcriber) -> None:
    """By hand: the recording says SAMPLE_TEXT."""
    data = SAMPLE.read_bytes()
    samples = np.frombuffer(data[44:], "<i2")  # written by us: a plain 44-byte header, 16 kHz, mono
    transcripts = [
        demo.transcribe(SAMPLE),
        demo.transcribe(str(SAMPLE)),
        demo.transcribe(data),
        demo.transcribe(io.BytesIO(data)),
        demo.transcribe(samples, rate=16000),
        demo.transcribe(samples / 2.0**15, rate=16000),
        demo.transcribe((samples / 2.0**15).astype(np.float32), rate=16000),
        demo.transcribe(np.stack([samples, samples], axis=1), rate=16000),
        demo.transcribe((samples[i : i + 777] for i in range(0, len(samples), 777)), rate=16000),
    ]
    with open_audio(data[44:], raw="16000:s16le:1") as audio:
        transcripts.append(demo.transcribe(audio))
    assert {transcript.text for transcript in transcripts} == {SAMPLE_TEXT}
    assert len(set(transcripts)) == 1


def test_punctuation_switch(demo: Transcriber) -> None:
    assert demo.transcribe(SAMPLE, punctuation=False).text == SAMPLE_TEXT.lower().rstrip(".")


def test_resampled(demo: Transcriber) -> None:
    """The same words at three times the rate. Linear interpolation adds images, which the resampler must remove."""
    samples = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2").astype(np.float32) / 2**15
    n = len(samples)
    tripled = np.interp(np.arange(3 * n) / 3, np.arange(n), samples)
    transcript = demo.transcribe(tripled, rate=48000)
    assert transcript.text == SAMPLE_TEXT
    assert transcript.duration == n / 16000


def test_transcript_fields(scripted: Transcriber) -> None:
    """By hand: 0.5 s in one segment, "a b" from the script."""
    transcript = scripted.transcribe(wav(32767 * beep(8000)), language="fr")
    (segment,) = transcript.segments
    assert (transcript.text, transcript.language, transcript.duration) == ("a b", "fr", 0.5)
    assert (transcript.truncated, transcript.warnings) == (False, ())
    # the script's logits: 1 for the answer, -1 for each of the other 17 pieces
    logprob = -np.log(1 + (len(PIECES) - 1) * np.exp(-2))
    assert segment == Segment(0, 0.5, "a b", (A, B), pytest.approx(logprob, rel=1e-6), None, False, False, False, "fr")
    with pytest.raises(FrozenInstanceError):
        transcript.text = ""  # type: ignore[misc]


def test_long_audio_is_cut_and_joined(scripted: Transcriber) -> None:
    """By hand: 80 s of noise but for 0.2 s of silence at 32 s and at 64 s, both in a 5 s search window; the cut is at
    the start of the first window of 0.1 s that is all silence."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 80 * 16000).astype(np.float32)
    for second in (32, 64):
        samples[second * 16000 : second * 16000 + 3200] = 0
    transcript = scripted.transcribe(samples, rate=16000, skip_silence=False)
    assert [(s.start, s.end) for s in transcript.segments] == [(0, 32), (32, 64), (64, 80)]
    assert transcript.text == "a b a b a b"
    assert tuple(scripted.segments(samples, rate=16000, skip_silence=False)) == transcript.segments


def test_truncated_is_said(tmp_path: Path) -> None:
    transcriber = Transcriber(write_model(tmp_path, [A] * 12, max_positions=12))
    transcript = transcriber.transcribe(beep(), rate=16000)
    assert transcript.truncated
    assert transcript.segments[0].truncated
    assert transcript.text == "a a a"  # positions 9, 10 and 11 answer


def test_header_that_promises_three_hours(demo: Transcriber) -> None:
    data = bytearray(SAMPLE.read_bytes())
    data[40:44] = struct.pack("<I", 3 * 3600 * 32000)
    transcript = demo.transcribe(bytes(data))
    assert transcript.text == SAMPLE_TEXT
    assert "promises 345600000 bytes (10800.00 s)" in transcript.warnings[0]
    assert not transcript.complete


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (wav(np.zeros(0)), r"holds 0\.0 ms of sound; 10 ms is the least"),
        (wav(np.zeros(1)), r"holds 0\.1 ms of sound"),
        (wav(np.zeros(1), rate=8000), r"holds 0\.1 ms of sound"),
        (b"hello, this is a text file", "a text file, beginning 'hello"),
    ],
)
def test_audio_that_is_none(scripted: Transcriber, audio: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        scripted.transcribe(audio)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 16000), np.float32), r"samples of shape \(2, 16000\)"),
        (np.zeros((160, 1, 1), np.float32), r"samples of shape \(160, 1, 1\)"),
        (np.zeros(16000, np.int64), "samples of type int64"),
        (np.zeros(16000, np.complex64), "samples of type complex64"),
        (np.array([0, 0, np.nan] * 1000), r"the array: NaN, .* at 0\.000 s"),
        (np.array([0, np.inf] * 1000, np.float32), r"the array: NaN, infinity or a number beyond 1e15 at 0\.000 s"),
        (np.array([0, 1e300] * 1000), r"the array: NaN, infinity or a number beyond 1e15 at 0\.000 s"),
        (np.zeros(159, np.float32), "holds 9.9 ms of sound"),
    ],
)
def test_samples_that_are_none(scripted: Transcriber, samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        scripted.transcribe(samples, rate=16000)


def test_options_that_make_no_sense(scripted: Transcriber) -> None:
    samples = np.zeros(16000, np.float32)
    with pytest.raises(OptionError, match="samples need their sampling rate"):
        scripted.transcribe(samples)
    with pytest.raises(OptionError, match="a file says its own"):
        scripted.transcribe(wav(samples), rate=16000)
    with pytest.raises(OptionError, match="'xx' is not among this model's: en, fr"):
        scripted.transcribe(samples, rate=16000, language="xx")
    with pytest.raises(AudioError, match="the array: sampling rate 0 Hz"):
        scripted.transcribe(samples, rate=0)
    with pytest.raises(AudioError, match=r"sampling rate 22050\.5 Hz; supported: 1000 to 1000000 Hz, whole numbers"):
        scripted.transcribe(samples, rate=22050.5)  # type: ignore[arg-type]
    assert scripted.transcribe(samples, rate=np.int16(16000)).duration == 1  # type: ignore[arg-type]
    assert scripted.transcribe(samples, rate=16000.0).duration == 1  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        scripted.transcribe("no such file.wav")
    with open(SAMPLE, encoding="latin-1") as file, pytest.raises(TypeError, match="open it with mode 'rb'"):
        scripted.transcribe(file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        scripted.transcribe(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="NumPy arrays, not float"):
        scripted.transcribe([0.0, 0.1], rate=16000)  # type: ignore[arg-type]


def test_a_failure_keeps_what_was_before(demo: Transcriber) -> None:
    """By construction: nothing is complete when the failure comes; pieces that wait for others in a batch, and an
    array of which the last part is bad."""

    def blocks() -> Iterable[np.ndarray]:
        yield phrase(0, 0)[:20000]
        yield phrase(0, 0)[20000:]
        raise OSError("unplugged")

    silence = np.zeros(33 * 16000, np.float32)
    bad = np.concatenate([phrase(0, 0) / np.float32(2**15), silence] * 2 + [np.full(1, np.nan)]).astype(np.float32)
    texts: list[str] = []
    with pytest.raises(OSError, match="unplugged"):
        texts.extend(segment.text for segment in demo.segments(blocks(), rate=16000))
    assert texts == [SAMPLE_TEXT]
    texts = []
    with pytest.raises(AudioError, match=r"NaN, infinity or a number beyond 1e15 at 70\.960 s"):
        texts.extend(segment.text for segment in demo.segments(bad, rate=16000, pauses=Pauses()))
    assert [text for text in texts if text] == [SAMPLE_TEXT] * 2


@pytest.mark.slow
@pytest.mark.parametrize("pauses", [None, Pauses()])
def test_memory_of_one_large_block(demo: Transcriber, pauses: Pauses | None) -> None:
    """As for a stream: 20 minutes of it take what 10 take; as float64 they would be 77 MB more."""

    def peak_mb(minutes: int) -> float:
        block = np.zeros(minutes * 60 * 16000, np.int16)
        tracemalloc.start()
        try:
            for _ in demo.segments([block], rate=16000, pauses=pauses):
                pass
            return tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()

    assert peak_mb(20) < peak_mb(10) + 10


def test_where_numbers_are_not_finite_is_told(scripted: Transcriber) -> None:
    """By hand: frame 384000 is at 24 s. In another channel, or before the stretch, it does not matter."""
    frames = np.zeros((400_000, 2))
    frames[384_000, 1] = frames[390_000, 0] = np.nan
    for channel, at in (None, "24.000"), (0, "24.375"):
        for start in 0.0, 23.9:
            with pytest.raises(AudioError, match=f"the array: NaN, infinity or a number beyond 1e15 at {at} s"):
                scripted.transcribe(frames, rate=16000, channel=channel, start=start)
    assert scripted.transcribe(frames, rate=16000, channel=0, start=24.5).duration == 0.5


def test_silence_is_no_error(demo: Transcriber) -> None:
    """By record: trained on silence with an empty answer, and to give none."""
    assert demo.transcribe(np.zeros(32000, np.float32), rate=16000, skip_silence=False).text == ""


def test_silence_is_skipped(scripted: Transcriber) -> None:
    """The scripted model says "a b" to anything it is asked."""
    silence = np.zeros(16000, np.float32)
    (skipped,) = scripted.transcribe(silence, rate=16000).segments
    assert skipped == Segment(0, 1, "", (), None, None, silent=True, truncated=False, looped=False)
    assert scripted.transcribe(silence, rate=16000, skip_silence=False).text == "a b"


def test_short_prompt(tmp_path: Path) -> None:
    """By hand: two prompt tokens, so position 1 gives the first answer."""
    transcriber = Transcriber(write_model(tmp_path, [C, A, END] + [C] * 9, max_positions=16))
    assert transcriber.transcribe(beep(), rate=16000, prompt="short").text == "a"


def test_threads_take_turns() -> None:
    """Eight threads, one Transcriber, five rounds: each gets what it would get alone."""
    transcriber = Transcriber(threads=1)
    samples = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")
    sources = [samples, samples[: len(samples) // 2], phrase(8000, 0), phrase(0, 16000)] * 2
    expected = [transcriber.transcribe(source, rate=16000) for source in sources]
    start = threading.Barrier(len(sources))
    found: list[list[object]] = [[] for _ in sources]

    def work(i: int) -> None:
        for _ in range(5):
            start.wait()
            found[i].append(transcriber.transcribe(sources[i], rate=16000))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sources))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[transcript] * 5 for transcript in expected]


def test_languages(demo: Transcriber) -> None:
    assert demo.languages == ("de", "en", "es", "fr")


def test_a_model_that_is_not_one() -> None:
    with pytest.raises(ModelError):
        Transcriber(Path(__file__).parent)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, pieces of up to 10 s."""
    folder = tmp_path_factory.mktemp("exported")
    write_random_checkpoint(folder, Shape(2, 64, 4, 128, 16, 9, 128, 2, 128, 4, 96, 40, 300))
    for contract in ("fast", "static"):
        export(folder, folder / contract, "fp32", contract, max_audio_s=10)
    return folder


def test_pieces_decoded_together_or_one_by_one(exported: Path) -> None:
    """By construction: the same segments, in order, for every size of batch; 47 s are 5 pieces or more."""
    noise = np.random.default_rng(0).standard_normal(47 * 16000) * np.linspace(0.01, 0.3, 47 * 16000)
    expected = Transcriber(exported / "fast", batch_size=1).transcribe(noise, rate=16000)
    assert len(expected.segments) >= 5
    assert len({segment.tokens for segment in expected.segments}) > 2
    for batch_size in (None, 2, 3, 100):
        transcriber = Transcriber(exported / "fast", batch_size=batch_size)
        assert without_logprobs(transcriber.segments(noise, rate=16000)) == without_logprobs(expected.segments)


def without_logprobs(segments: Iterable[Segment]) -> list[Segment]:
    """They differ in a last bit with the size of the batch."""
    return [replace(segment, avg_logprob=None) for segment in segments]


def test_batch_sizes_that_cannot_be(exported: Path) -> None:
    with pytest.raises(OptionError, match="batch_size is 0; it must be 1 or more"):
        Transcriber(exported / "fast", batch_size=0)
    with pytest.raises(OptionError, match='batch_size is 2, but only exports of the "fast" contract'):
        Transcriber(exported / "static", batch_size=2)
    Transcriber(exported / "static", batch_size=1)


# Pauses, live blocks, channels, stretches


def phrase(n_before: int, n_after: int) -> np.ndarray:
    """The sample recording with silence around it: int16."""
    samples = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")
    return np.concatenate([np.zeros(n_before, "<i2"), samples, np.zeros(n_after, "<i2")])


def test_phrases(demo: Transcriber) -> None:
    """By construction: the sentence twice, 2 s of silence between; laid end to end the segments are the recording."""
    samples = np.concatenate([phrase(0, 32000), phrase(0, 16000)])
    segments = list(demo.segments(samples, rate=16000, pauses=Pauses()))
    assert [segment.text for segment in segments if segment.text] == [SAMPLE_TEXT] * 2
    assert [segment.start for segment in segments] == [0, *(segment.end for segment in segments[:-1])]
    assert segments[-1].end == len(samples) / 16000


def test_a_phrase_comes_as_soon_as_the_speaker_pauses(demo: Transcriber) -> None:
    """Blocks of 0.1 s: the sentence (2.48 s) is there before 4 s have been heard, of 2.48 s + 0.6 s of pause."""
    samples = phrase(0, 10 * 16000)
    n_taken = 0

    def blocks() -> Iterable[np.ndarray]:
        nonlocal n_taken
        for i in range(0, len(samples), 1600):
            n_taken += 1
            yield samples[i : i + 1600]

    segment = next(iter(demo.segments(blocks(), rate=16000, pauses=Pauses())))
    assert segment.text == SAMPLE_TEXT
    assert n_taken < 40


def test_phrases_do_not_outgrow_the_model(exported: Path) -> None:
    """By hand: an export that takes 10 s; noise without a pause, so a phrase ends at 10 s or at a quieter place in the
    5 s before."""
    noise = np.random.default_rng(0).standard_normal(47 * 16000) * np.linspace(0.01, 0.3, 47 * 16000)
    segments = list(Transcriber(exported / "fast").segments(noise, rate=16000, pauses=Pauses()))
    assert max(segment.end - segment.start for segment in segments) <= 10
    assert segments[-1].end == 47


def test_channels(demo: Transcriber) -> None:
    """By construction: the sentence on the left, then on the right. Each alone, both by themselves, and their mean."""
    samples = np.stack([phrase(0, 48000), phrase(48000, 0)], axis=1)
    left = demo.transcribe(samples, rate=16000, channel=0, pauses=Pauses())
    assert left.text == SAMPLE_TEXT
    assert left.segments[0].start == 0
    right = demo.transcribe(samples, rate=16000, channel=1, pauses=Pauses())
    assert right.text == SAMPLE_TEXT
    assert right.segments[0].silent
    both = demo.transcribe(wav(samples), channel="split", pauses=Pauses())
    assert both.text == f"[0] {SAMPLE_TEXT}\n[1] {SAMPLE_TEXT}"
    assert [s.start for s in both.segments] == sorted(s.start for s in both.segments)
    for channel, alone in enumerate((left, right)):
        of_channel = [replace(s, channel=None) for s in both.segments if s.channel == channel]
        assert without_logprobs(of_channel) == without_logprobs(alone.segments)
    with pytest.raises(OptionError, match="channel is 2, but the recording has only channels 0 to 1"):
        demo.transcribe(samples, rate=16000, channel=2)


def test_a_stretch(demo: Transcriber) -> None:
    """By construction: the sentence at 3 s, in noise that the stretch leaves out; times stay those of the recording."""
    noise = np.random.default_rng(0).integers(-20000, 20000, 48000).astype("<i2")
    samples = np.concatenate([noise, phrase(0, 0), noise])
    transcript = demo.transcribe(samples, rate=16000, start=3, end=5.48)
    assert transcript.text == SAMPLE_TEXT
    assert transcript.duration == pytest.approx(2.48)
    (segment,) = transcript.segments
    assert (segment.start, segment.end) == (3, 5.48)
    with pytest.raises(OptionError, match=r"ends at 8\.48 s; there is nothing from 9 s on"):
        demo.transcribe(samples, rate=16000, start=9)
    with pytest.raises(OptionError, match="0 <= start < end"):
        demo.transcribe(samples, rate=16000, start=3, end=3)


def test_wrong_options_are_said_before_anything_is_opened(demo: Transcriber) -> None:
    with pytest.raises(OptionError, match="'xx' is not among"):
        demo.segments("no such file.wav", language="xx")
    with pytest.raises(TypeError, match="speed"):
        demo.transcribe(SAMPLE, speed=2)


def test_a_loop_is_cut_and_said(tmp_path: Path) -> None:
    """By hand: "a b" without end in 100 positions. 12 times two tokens make a loop; the first time stays."""
    transcriber = Transcriber(write_model(tmp_path, [C] * 9 + [A, B] * 45, max_positions=99))
    transcript = transcriber.transcribe(beep(), rate=16000)
    assert transcript.text == "a b"
    (segment,) = transcript.segments
    assert (segment.looped, segment.truncated) == (True, False)


def test_segments_of_split_channels_come_in_order(scripted: Transcriber) -> None:
    """By hand: on the left sound from 0 to 5 s, on the right from 1 to 2 s, which is over first."""
    samples = np.zeros((8 * 16000, 2), np.float32)
    seconds = np.arange(8 * 16000, dtype=np.float32) / 16000
    tone = np.sin(2 * np.pi * 1000 * seconds) * (0.1 + 0.09 * np.sin(2 * np.pi * 4 * seconds))  # even sound is noise
    for channel, (begin, end) in enumerate([(0, 5), (1, 2)]):
        samples[begin * 16000 : end * 16000, channel] = tone[begin * 16000 : end * 16000]
    segments = scripted.segments(samples, rate=16000, channel="split", pauses=Pauses())
    spoken = [segment for segment in segments if segment.text]
    assert [segment.channel for segment in spoken] == [0, 1]
    assert spoken[0].end > spoken[1].end


def test_silence_comes_at_once(exported: Path) -> None:
    """Of a recording, pieces with sound wait for others to be decoded with; the silent ones before them do not."""
    n_taken = 0

    def blocks() -> Iterable[np.ndarray]:
        nonlocal n_taken
        for _ in range(60):
            n_taken += 1
            yield np.zeros(16000, np.float32)

    with open_audio(wav(np.zeros(16000))) as audio:
        recording = replace(audio, blocks=(block[:, None] for block in blocks()))
        segment = next(Transcriber(exported / "fast").segments(recording))
    assert segment.silent
    assert n_taken == 11  # the export takes 10 s


# Pushed


def test_pushed_is_as_given(demo: Transcriber) -> None:
    """By construction: the same words however the samples are cut. (Where a silence on one of two channels ends depends
    on when the other's phrase comes.)"""
    samples = np.stack([phrase(0, 48000), phrase(48000, 0)], axis=1)
    for options in ({"pauses": Pauses()}, {"channel": 1}, {"channel": "split", "pauses": Pauses()}):
        expected = list(demo.segments([samples], rate=16000, **options))  # type: ignore[arg-type]
        for size in (len(samples), 50_000, 1_237):
            pushed = demo.recording(16000, **options)  # type: ignore[arg-type]
            found = [s for i in range(0, len(samples), size) for s in pushed.push(samples[i : i + size])]
            found += pushed.finish()
            spoken, expected_spoken = ([(s.channel, s.text) for s in all_ if s.text] for all_ in (found, expected))
            assert spoken == expected_spoken
            assert sum(s.end - s.start for s in found) == pytest.approx(sum(s.end - s.start for s in expected))


def test_a_pushed_phrase_comes_with_the_push_that_completes_it(demo: Transcriber) -> None:
    """By hand: 2.48 s of sentence, which ends in 0.1 s of quiet, and 0.6 s of pause; times count from `start`."""
    pushed = demo.recording(16000, pauses=Pauses(), start=100.0)
    assert pushed.push(phrase(0, 0)) == []
    (segment,) = pushed.push(np.zeros(16000, np.int16))
    assert (segment.text, segment.start) == (SAMPLE_TEXT, 100.0)
    (rest,) = pushed.finish()
    assert (rest.silent, rest.end) == (True, 103.48)


def test_each_pushed_phrase_comes_at_once(demo: Transcriber) -> None:
    """None waits for others, also after silence at the beginning."""
    pushed = demo.recording(16000, pauses=Pauses())
    assert [s.silent for s in pushed.push(np.zeros(40 * 16000, np.int16))] == [True]
    for _ in range(3):
        pushed.push(phrase(0, 0))
        assert [s.text for s in pushed.push(np.zeros(2 * 16000, np.int16)) if s.text] == [SAMPLE_TEXT]


def test_pauses_pass_by_the_clock(demo: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a source that sends nothing in silence. By hand: the sample is 2.48 s long. Sent in no time it is ahead of the
    clock until then, so a pause of a second is over after 3.48 s; if it was sent in the 10 s before, after 1 s."""
    now = 100.0
    monkeypatch.setattr(recording, "monotonic", lambda: now)
    samples = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")[:-3200]  # 2.28 s; the pause at the end is part of a pause
    nothing = samples[:0]
    pushed = demo.recording(16000, pauses=Pauses())
    now += 50  # of nothing, before it begins
    assert pushed.push(nothing) == []
    assert pushed.push(samples) == []
    now += 3.27
    assert pushed.push(nothing) == []
    now += 0.02
    assert [segment.text for segment in pushed.push(nothing)] == [SAMPLE_TEXT]
    assert pushed.push(nothing) == []
    now += 10
    assert pushed.push(samples) == []
    now += 0.99
    assert pushed.push(nothing) == []
    now += 0.02
    assert [segment.text for segment in pushed.push(nothing)] == [SAMPLE_TEXT]
    chunks = demo.recording(16000)
    chunks.push(samples)
    now += 100
    assert chunks.push(nothing) == []
    assert [segment.text for segment in chunks.finish()] == [SAMPLE_TEXT]


def test_pauses_pass_by_the_clock_in_split_channels(demo: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(recording, "monotonic", lambda: now)
    left = np.zeros((36480, 2), "<i2")
    left[:, 0] = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")[:36480]
    pushed = demo.recording(16000, pauses=Pauses(), channel="split")
    assert pushed.push(left) == []
    now += 100
    assert [(s.channel, s.text) for s in pushed.push(left[:0]) if s.text] == [(0, SAMPLE_TEXT)]


def test_a_short_word_in_split_channels(demo: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: as alone, though the silence of the other channel is shorter than a pause, and does not end."""
    now = 100.0
    monkeypatch.setattr(recording, "monotonic", lambda: now)
    word = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")[1600:9600]
    expected = demo.transcribe(word, rate=16000).text
    pushed = demo.recording(16000, pauses=Pauses(), channel="split")
    assert pushed.push(np.stack([word, 0 * word], axis=1)) == []
    now += 100
    found = pushed.push(np.zeros((0, 2), "<i2"))
    assert [(s.channel, s.text) for s in found if s.text] == [(0, expected)]
    found += pushed.finish()
    assert [s.start for s in found] == sorted(s.start for s in found)


CANCEL = "the channels cancel each other out: where they do, the loudest is used instead of their mean"


SPEECH = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2") / 2**15


@pytest.mark.parametrize(
    ("left", "right", "warnings"),
    [(1.0, -1.0, (CANCEL,)), (-0.5, 0.6, (CANCEL,)), (0.5, 0.5, ()), (1.0, 0.0, ()), (-0.4, 0.8, ())],
)
@pytest.mark.parametrize("rate", [16000, 48000])
def test_channels_that_cancel(
    demo: Transcriber, rate: int, left: float, right: float, warnings: tuple[str, ...]
) -> None:
    """By formula: (l + r)^2 / (l^2 + r^2) is 0, 0.016, 2, 1 and 0.2; less than 0.1 is lost in the mean. Pushed in
    blocks it is the same, and one channel that is asked for is taken as it is."""
    stereo = np.repeat(np.stack([left * SPEECH, right * SPEECH], 1).astype(np.float32), rate // 16000, axis=0)
    transcript = demo.transcribe(stereo, rate=rate)
    assert (transcript.text, transcript.warnings, transcript.complete) == (SAMPLE_TEXT, warnings, True)
    for n_blocks in 2, 10, 400:
        pushed = demo.recording(rate)
        for block in np.array_split(stereo, n_blocks):
            pushed.push(block)
        assert [segment.text for segment in pushed.finish()] == [SAMPLE_TEXT]
        assert tuple(pushed.warnings) == warnings
    assert demo.transcribe(stereo, rate=rate, channel=0).warnings == ()


@pytest.mark.parametrize("n_pushed", [1, 2, 5, 9, 1000])
def test_channels_that_cancel_in_pushes_of_any_size(n_pushed: int) -> None:
    """By construction: their mean is 0, and after 0.04 s and a few frames the first one is used. At 8 kHz a frame is
    compared with the second one before it, at 48 kHz six with six."""
    stereo = np.stack([SPEECH, -SPEECH], 1)[8000:12000]
    for rate in 8000, 16000, 48000:
        polarity, used = Polarity(rate), np.zeros((len(stereo), 1), np.float32)
        for first in range(0, len(stereo), n_pushed):
            pushed = slice(first, first + n_pushed)
            polarity.replace_cancelled(stereo[pushed], used[pushed])
        after = rate // 25 + 20
        np.testing.assert_array_equal(used[after:, 0], stereo[after:, 0].astype(np.float32))


def test_channels_that_cancel_but_for_what_they_have_in_common(demo: Transcriber) -> None:
    """An offset, as of cheap sound cards; hum as loud as the speech; noise of their own, 15 dB below; a third one."""
    random = np.random.default_rng(0)
    level = np.sqrt(np.mean(SPEECH**2))
    hum = np.sqrt(2) * level * np.sin(2 * np.pi * 50 / 16000 * np.arange(len(SPEECH)))
    reversed_ = np.stack([SPEECH, -SPEECH], 1)
    noise = random.normal(0, level * 10 ** (-15 / 20), (len(SPEECH), 3))
    for stereo in (
        reversed_ + 0.02,
        reversed_ + hum[:, None],
        reversed_ + noise[:, :2],
        np.concatenate([reversed_, noise[:, 2:]], axis=1),
    ):
        transcript = demo.transcribe(stereo, rate=16000)
        assert (transcript.text, transcript.warnings) == (SAMPLE_TEXT, (CANCEL,))


@pytest.mark.parametrize("first", [1, -1])
def test_channels_that_cancel_for_a_while(demo: Transcriber, first: int) -> None:
    """A second of silence between; in one block."""
    spoken = np.concatenate([SPEECH, np.zeros(16000)])
    stereo = np.concatenate([np.stack([spoken, first * spoken], 1), np.stack([spoken, -first * spoken], 1)])
    transcript = demo.transcribe(stereo, rate=16000, pauses=Pauses())
    assert (transcript.text, transcript.warnings) == (f"{SAMPLE_TEXT} {SAMPLE_TEXT}", (CANCEL,))


def test_blocks_of_more_channels_than_the_ones_before(scripted: Transcriber) -> None:
    pushed = scripted.recording(16000)
    pushed.push(np.ones((800, 2)))
    with pytest.raises(AudioError, match="a block of 3 channels after blocks of 2"):
        pushed.push(np.ones((800, 3)))


def test_what_does_not_cancel(scripted: Transcriber) -> None:
    """Noises that have nothing to do with each other, of any number of channels, in blocks of 10 ms and of 5 samples,
    too; silence; speech that comes to a second microphone later (17 samples are the worst); numbers that are none."""
    random = np.random.default_rng(0)
    for frames in (
        random.normal(0, 0.1, (16000, 2)),
        random.normal(0, 0.1, (16000, 60)),
        np.zeros((16000, 2)),
        np.stack([SPEECH, np.roll(SPEECH, 17)], 1),
    ):
        for n_blocks in 1, 100, 3200:
            pushed = scripted.recording(16000)
            for block in np.array_split(frames, n_blocks):
                pushed.push(block)
            assert pushed.warnings == []
    for number in np.nan, np.inf, 1e300:
        wrong = np.stack([np.where(SPEECH > 0, sign * number, 0) for sign in (1, -1)], axis=1)
        with pytest.raises(AudioError, match="NaN, infinity or a number beyond"):
            scripted.recording(16000).push(wrong)


def test_blocks_that_are_empty_or_the_wrong_way_round(demo: Transcriber) -> None:
    pushed = demo.recording(16000, channel="split")
    assert pushed.push(np.zeros(0, np.float32)) == []  # of how many channels does not matter
    pushed.push(np.stack([phrase(0, 0), phrase(0, 0)], axis=1).astype(">i2"))
    pushed.push(np.zeros((0, 5)))
    assert [segment.text for segment in pushed.finish()] == [SAMPLE_TEXT] * 2
    with pytest.raises(AudioError, match=r"the recording: samples of shape \(2, 160\): so many channels\?"):
        demo.recording(16000).push(np.zeros((2, 160)))
    for none in (None, 3.0, [0.0, 0.1]):
        with pytest.raises(TypeError, match="expected samples as NumPy arrays"):
            demo.recording(16000).push(none)  # type: ignore[arg-type]
    for start in (-5, float("inf")):
        with pytest.raises(OptionError, match="is no stretch"):
            demo.recording(16000, start=start)


def test_the_last_pieces_of_split_channels_are_in_order(demo: Transcriber) -> None:
    """By hand: the right one's last phrase begins before the left one's."""
    samples = np.stack([phrase(24000, 0), phrase(0, 24000)], axis=1)
    pushed = demo.recording(16000, channel="split", pauses=Pauses())
    found = [*pushed.push(samples), *pushed.finish()]
    assert [s.start for s in found] == sorted(s.start for s in found)
    assert [s.channel for s in found if s.text] == [1, 0]


def test_the_threshold_of_pauses_is_that_of_silence(demo: Transcriber) -> None:
    """By hand: nothing stands out by 60 dB from noise of 1 % of full scale, -40 dB."""
    noisy = phrase(0, 16000) / 2**15 + 0.01 * np.random.default_rng(0).standard_normal(55680)
    for threshold_db, silent in (4.5, False), (60.0, True):
        transcript = demo.transcribe(noisy, rate=16000, pauses=Pauses(threshold_db=threshold_db))
        assert all(segment.silent for segment in transcript.segments) == silent


def test_less_than_a_frame_is_not_given_to_the_model(scripted: Transcriber) -> None:
    """By hand: of 10.005 s cut at 10 s the rest is 80 samples; a mel frame takes 160."""
    pushed = scripted.recording(16000, channel="split", skip_silence=False)
    pushed.push(np.stack([beep(160), beep(160)], axis=1))
    assert [segment.text for segment in pushed.finish()] == ["a b", "a b"]
    with pytest.raises(AudioError, match=r"holds 9\.9 ms of sound"):
        scripted.transcribe(beep(159), rate=16000, skip_silence=False)


def test_finish_can_be_called_again(exported: Path) -> None:
    """What an error or Ctrl-C kept from being recognised comes then."""
    transcriber = Transcriber(exported / "fast")
    noise = np.random.default_rng(0).standard_normal(15 * 16000) * np.linspace(0.01, 0.3, 15 * 16000)
    expected = transcriber.transcribe(noise, rate=16000, skip_silence=False).segments
    for error in (KeyboardInterrupt(), MemoryError(), ModelError("broken")):
        pushed = transcriber.recording(16000, skip_silence=False)
        found = pushed.push(noise)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transcriber._model.contract, "encode", Mock(side_effect=error))
            with pytest.raises(type(error)):
                pushed.finish()
        assert without_logprobs([*found, *pushed.finish()]) == without_logprobs(expected)


def test_an_error_keeps_no_samples_out(demo: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is worked on in parts, the first of which fails: once it works again, all of it comes."""
    monkeypatch.setattr(recording, "_PUSHED_FRAMES", 70_000)
    samples = np.concatenate([phrase(0, 32000)] * 3)
    pushed = demo.recording(16000, pauses=Pauses())
    encode = demo._model.contract.encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo._model.contract, "encode", Mock(side_effect=ModelError("broken")))
        with pytest.raises(ModelError, match="broken"):
            pushed.push(samples)
    assert demo._model.contract.encode == encode
    assert [segment.text for segment in pushed.finish() if segment.text] == [SAMPLE_TEXT] * 3


def test_many_channels(demo: Transcriber) -> None:
    """Blocks may be of fewer frames than channels once it is known how many there are."""
    pushed = demo.recording(16000)
    for block in np.array_split(np.tile(phrase(0, 0)[:, None], 100), [160, 259, 260]):
        pushed.push(block)
    assert [segment.text for segment in pushed.finish()] == [SAMPLE_TEXT]


def test_a_finished_recording_takes_no_more(demo: Transcriber) -> None:
    pushed = demo.recording(16000)
    pushed.push(phrase(0, 0))
    pushed.finish()
    with pytest.raises(AudioError, match="the recording: is finished; begin another one"):
        pushed.push(phrase(0, 0))
    assert pushed.finish() == []


def test_what_was_pushed_before_an_error_comes_later(demo: Transcriber) -> None:
    pushed = demo.recording(16000, pauses=Pauses())
    bad = np.concatenate([phrase(0, 16000) / np.float32(2**15), [np.nan]]).astype(np.float32)
    with pytest.raises(AudioError, match=r"the recording: NaN, infinity or a number beyond 1e15 at 3\.480 s"):
        pushed.push(bad)
    assert [segment.text for segment in pushed.finish() if segment.text] == [SAMPLE_TEXT]
    pushed = demo.recording(16000)
    pushed.push(np.zeros(10, np.float32))
    with pytest.raises(AudioError, match=r"the recording: a block of 2 channels after blocks of 1"):
        pushed.push(np.zeros((10, 2), np.float32))
    with pytest.raises(AudioError, match=r"the audio: a block of 2 channels after blocks of 1"):
        list(demo.segments([np.zeros(10), np.zeros((10, 2))], rate=16000))


def test_nothing_pushed(demo: Transcriber) -> None:
    with pytest.raises(AudioError, match=r"the recording: holds 0\.0 ms of sound; 10 ms is the least"):
        demo.recording(16000).finish()
    with pytest.raises(AudioError, match="the recording: sampling rate 7 Hz; supported: 1000 to"):
        demo.recording(7)
    with pytest.raises(OptionError, match="'xx' is not among"):
        demo.recording(16000, language="xx")


def test_what_is_too_short_is_no_segment(demo: Transcriber) -> None:
    """By hand: 100 samples at 16 kHz are 6.25 ms. Nothing of them is left for the next call, either."""
    pushed = demo.recording(16000)
    assert pushed.push(np.zeros(100)) == []
    with pytest.raises(AudioError, match=r"holds 6\.2 ms of sound; 10 ms is the least"):
        pushed.finish()
    assert pushed.finish() == []


def test_pauses_longer_than_the_model_takes_are_told_at_once(exported: Path) -> None:
    """By hand: an export that takes 10 s."""
    with pytest.raises(OptionError, match="min_pause_s is 20"):
        Transcriber(exported / "fast").recording(16000, pauses=Pauses(min_pause_s=20))


def test_the_first_piece_waits_for_no_other(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: pieces of up to 10 s of a file that is read in blocks of 8.2 s (2**18 bytes), the first half as long. A
    piece comes after two blocks, and then they are decoded four at a time."""
    transcriber = Transcriber(exported / "fast")
    n_read = 0

    def blocks(frames: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        nonlocal n_read
        for block in frames:
            n_read += len(block)
            yield block

    sizes = []
    decode = recording.decode

    def counted(contract: Contract, clips: list[Clip], *more: Any) -> list[Decoded]:
        sizes.extend([len(clips)] * bool(clips))
        return decode(contract, clips, *more)

    monkeypatch.setattr(recording, "decode", counted)
    noise = np.random.default_rng(0).standard_normal(60 * 16000) * np.linspace(0.01, 0.3, 60 * 16000)
    with open_audio(wav(32767 * noise / np.abs(noise).max())) as audio:
        segments = transcriber.segments(replace(audio, blocks=blocks(audio.blocks)), skip_silence=False)
        first = next(segments)
        assert n_read == 2**16 + 2**17  # 128 KiB were looked at when it was opened
        rest = list(segments)
    assert (first.start, rest[-1].end) == (0, 60)
    whole, left = divmod(len(rest), 4)
    assert sizes == [1, *[4] * whole, *[left] * (left > 0)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError])
@pytest.mark.parametrize("at", [1, 2, 4, -1])
def test_an_interrupted_encoder_loses_one_piece(exported: Path, at: int, error: type[BaseException]) -> None:
    """By construction: at the at-th piece. Those before it, which may wait to be decoded with it, are given."""
    transcriber = Transcriber(exported / "fast")
    noise = np.random.default_rng(0).standard_normal(60 * 16000) * np.linspace(0.01, 0.3, 60 * 16000)
    expected = list(transcriber.segments(noise, rate=16000, skip_silence=False))
    at = at if at > 0 else len(expected)
    encode, count = transcriber._model.contract.encode, 0

    def interrupted(samples: np.ndarray) -> object:
        nonlocal count
        count += 1
        if count == at:
            raise error
        return encode(samples)

    transcriber._model.contract.encode = interrupted  # type: ignore
    found: list[Segment] = []
    with pytest.raises(error):
        found.extend(transcriber.segments(noise, rate=16000, skip_silence=False))
    assert without_logprobs(found) == without_logprobs(expected[: at - 1])


@pytest.mark.parametrize("batch", [0, 1, -1])
def test_ctrl_c_in_the_decoder_loses_none(exported: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: the batch that was being decoded is decoded again, and then it is raised."""
    transcriber = Transcriber(exported / "fast")
    noise = np.random.default_rng(0).standard_normal(60 * 16000) * np.linspace(0.01, 0.3, 60 * 16000)
    expected = list(transcriber.segments(noise, rate=16000, skip_silence=False))
    sizes = [1, *[4] * ((len(expected) - 1) // 4), *[(len(expected) - 1) % 4] * ((len(expected) - 1) % 4 > 0)]
    batch %= len(sizes)
    decode, count = recording.decode, -1

    def interrupted(*how: Any) -> list[Decoded]:
        nonlocal count
        count += 1
        if count == batch:
            raise KeyboardInterrupt
        return decode(*how)

    monkeypatch.setattr(recording, "decode", interrupted)
    found: list[Segment] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(transcriber.segments(noise, rate=16000, skip_silence=False))
    assert without_logprobs(found) == without_logprobs(expected[: sum(sizes[: batch + 1])])


def test_ctrl_c_while_a_segment_is_used_loses_none(exported: Path) -> None:
    """By construction: thrown in at every segment, as the command does; the rest of its batch is given."""
    transcriber = Transcriber(exported / "fast")
    noise = np.random.default_rng(0).standard_normal(60 * 16000) * np.linspace(0.01, 0.3, 60 * 16000)
    n_segments = len(list(transcriber.segments(noise, rate=16000, skip_silence=False)))
    for at in range(1, n_segments + 1):
        segments = transcriber.segments(noise, rate=16000, skip_silence=False)
        found = [next(segments) for _ in range(at)]
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            found.append(segments.throw(KeyboardInterrupt()))
            found.extend(segments)
        assert len(found) == min(n_segments, 1 + -(-(at - 1) // 4) * 4)


def test_a_line_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes "a", a line break as a byte, "b": one line in the segment, and so wherever it is shown."""
    folder = write_model(tmp_path, [C] * 9 + [A, A, B, END], max_positions=20)
    tokens = (folder / "tokens.txt").read_text(encoding="utf-8").replace("▁c ", "<0x0A> ")
    (folder / "tokens.txt").write_text(tokens, encoding="utf-8")
    transcriber = Transcriber(folder)
    assert transcriber._model.vocabulary.decode([A, C, B]) == "a\n b"
    monkeypatch.setattr(recording, "decode", lambda *_: [Decoded((A, C, B), False, False, 0.0)])
    transcript = transcriber.transcribe(beep(), rate=16000)
    assert transcript.text == transcript.segments[0].text == "a  b"


def test_what_is_said_of_a_transcript() -> None:
    """By hand: warnings of the audio, then of the segments, in order; duration of what there is."""
    silent = Segment(1.0, 2.0, "", (), None, None, silent=True, truncated=False, looped=False)
    cut = replace(silent, start=62.0, end=3663.0, text="one", silent=False, truncated=True)
    looped = replace(cut, start=3663.0, end=3664.5, text="two", truncated=False, looped=True)
    transcript = Transcript.of([silent, cut, looped], "en", warnings=["cut short"], complete=False)
    assert transcript == Transcript(
        text="one two",
        segments=(silent, cut, looped),
        language="en",
        duration=3663.5,
        complete=False,
        truncated=True,
        warnings=(
            "cut short",
            "1:02 to 1:01:03: the model reached its limit of tokens; words are missing",
            "1:01:03 to 1:01:04: the model repeated itself without end and was stopped; words may be missing",
        ),
    )
    assert Transcript.of([], "en") == Transcript("", (), "en", 0.0, True, False, ())
    split = [replace(cut, channel=1, text=" a "), replace(silent, channel=0), replace(looped, channel=0, text="b")]
    assert Transcript.of(split, "ja").text == "[1] a\n[0] b"
    assert Transcript.of(split, "ja").warnings[0].startswith("[1] 1:02 to")
