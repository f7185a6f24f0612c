"""The Python interface: what may be passed, what comes back, what is refused."""

import io
import struct
import threading
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from scripted import END, A, B, C, write_model

from cohere_lite import AudioError, ModelError, OptionError, Segment, Transcriber
from cohere_lite.model import DEMO_FOLDER
from tools.export.__main__ import export
from tools.random_checkpoint import Shape, write_random_checkpoint

SAMPLE = DEMO_FOLDER / "sample.wav"
SAMPLE_TEXT = "Turn on the light in the living room."  # what the recording says


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    """16-bit mono."""
    data = np.asarray(samples, "<i2").tobytes()
    fmt = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture(scope="module")
def demo() -> Transcriber:
    return Transcriber()


@pytest.fixture
def scripted(tmp_path: Path) -> Transcriber:
    """Whatever the audio, "a b", after the full prompt of 10 tokens."""
    return Transcriber(write_model(tmp_path / "model", [C] * 9 + [A, B, END], max_positions=16))


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
    ]
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
    transcript = scripted.transcribe(wav(np.zeros(8000)), language="fr")
    (segment,) = transcript.segments
    assert (transcript.text, transcript.language, transcript.duration) == ("a b", "fr", 0.5)
    assert (transcript.truncated, transcript.warnings) == (False, ())
    assert (segment.start, segment.end, segment.text, segment.tokens, segment.truncated) == (
        0,
        0.5,
        "a b",
        (A, B),
        False,
    )
    with pytest.raises(FrozenInstanceError):
        transcript.text = ""  # type: ignore[misc]


def test_long_audio_is_cut_and_joined(scripted: Transcriber) -> None:
    """By hand: 80 s of noise but for 0.2 s of silence at 32 s and at 64 s, both in a 5 s search window; the cut is at
    the start of the first window of 0.1 s that is all silence."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 80 * 16000).astype(np.float32)
    for second in (32, 64):
        samples[second * 16000 : second * 16000 + 3200] = 0
    heard = []
    transcript = scripted.transcribe(samples, rate=16000, on_segment=lambda *call: heard.append(call))
    assert [(s.start, s.end) for s in transcript.segments] == [(0, 32), (32, 64), (64, 80)]
    assert transcript.text == "a b a b a b"
    assert heard == [(segment, 80.0) for segment in transcript.segments]


def test_truncated_is_said(tmp_path: Path) -> None:
    transcriber = Transcriber(write_model(tmp_path, [A] * 12, max_positions=12))
    transcript = transcriber.transcribe(np.zeros(8000, np.float32), rate=16000)
    assert transcript.truncated
    assert transcript.segments[0].truncated
    assert transcript.text == "a a a"  # positions 9, 10 and 11 answer


def test_header_that_promises_three_hours(demo: Transcriber) -> None:
    data = bytearray(SAMPLE.read_bytes())
    data[40:44] = struct.pack("<I", 3 * 3600 * 32000)
    transcript = demo.transcribe(bytes(data))
    assert transcript.text == SAMPLE_TEXT
    assert "promises 345600000 bytes (10800.00 s)" in transcript.warnings[0]


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
        (np.zeros(16000, np.int32), "samples of type int32"),
        (np.zeros(16000, np.complex64), "samples of type complex64"),
        (np.array([0, 0, np.nan] * 1000), "sample 2 is NaN or infinite"),
        (np.array([0, np.inf] * 1000, np.float32), "sample 1 is NaN or infinite"),
        (np.array([0, 1e300] * 1000), "sample 1 is NaN or infinite"),
        (np.zeros(159, np.float32), "holds 9.9 ms of sound"),
    ],
)
def test_samples_that_are_none(scripted: Transcriber, samples: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        scripted.transcribe(samples, rate=16000)


def test_options_that_make_no_sense(scripted: Transcriber) -> None:
    samples = np.zeros(16000, np.float32)
    with pytest.raises(OptionError, match="an array needs its sampling rate"):
        scripted.transcribe(samples)
    with pytest.raises(OptionError, match="a WAV file says its own"):
        scripted.transcribe(wav(samples), rate=16000)
    with pytest.raises(OptionError, match="'xx' is not among this model's: en, fr"):
        scripted.transcribe(samples, rate=16000, language="xx")
    with pytest.raises(AudioError, match="the array: sampling rate 0 Hz"):
        scripted.transcribe(samples, rate=0)
    with pytest.raises(OptionError, match=r"rate is 22050\.5; it must be a whole number"):
        scripted.transcribe(samples, rate=22050.5)  # type: ignore[arg-type]
    assert scripted.transcribe(samples, rate=np.int16(16000)).duration == 1  # type: ignore[arg-type]
    assert scripted.transcribe(samples, rate=16000.0).duration == 1  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        scripted.transcribe("no such file.wav")
    with open(SAMPLE, encoding="latin-1") as file, pytest.raises(TypeError, match="open it with mode 'rb'"):
        scripted.transcribe(file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not list"):
        scripted.transcribe([0.0, 0.1])  # type: ignore[arg-type]


def test_silence_is_no_error(demo: Transcriber) -> None:
    """By record: trained on silence with an empty answer, and to give none."""
    assert demo.transcribe(np.zeros(32000, np.float32), rate=16000).text == ""


def test_short_prompt(tmp_path: Path) -> None:
    """By hand: two prompt tokens, so position 1 gives the first answer."""
    transcriber = Transcriber(write_model(tmp_path, [C, A, END] + [C] * 9, max_positions=16))
    assert transcriber.transcribe(np.zeros(8000, np.float32), rate=16000, prompt="short").text == "a"


def test_threads_take_turns(demo: Transcriber) -> None:
    """Six threads, one Transcriber: each gets what it would get alone."""
    samples = np.frombuffer(SAMPLE.read_bytes()[44:], "<i2")
    sources = [samples, samples[: len(samples) // 2]] * 3
    expected = [demo.transcribe(source, rate=16000) for source in sources[:2]] * 3
    found: dict[int, object] = {}

    def work(i: int) -> None:
        found[i] = demo.transcribe(sources[i], rate=16000)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sources))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(sources))] == expected


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
    for layout in ("fast", "sherpa"):
        export(folder, folder / layout, "fp32", layout, max_audio_s=10)
    return folder


def test_pieces_decoded_together_or_one_by_one(exported: Path) -> None:
    """By construction: the same segments, in order, for every size of batch; 47 s are 5 pieces or more."""
    noise = np.random.default_rng(0).standard_normal(47 * 16000) * np.linspace(0.01, 0.3, 47 * 16000)
    expected = Transcriber(exported / "fast", batch_size=1).transcribe(noise, rate=16000)
    assert len(expected.segments) >= 5
    assert len({segment.tokens for segment in expected.segments}) > 2
    for batch_size in (None, 2, 3, 100):
        seen: list[Segment] = []
        transcriber = Transcriber(exported / "fast", batch_size=batch_size)
        found = transcriber.transcribe(noise, rate=16000, on_segment=lambda segment, _, seen=seen: seen.append(segment))
        assert found == expected
        assert seen == list(expected.segments)


def test_batch_sizes_that_cannot_be(exported: Path) -> None:
    with pytest.raises(OptionError, match="batch_size is 0; it must be 1 or more"):
        Transcriber(exported / "fast", batch_size=0)
    with pytest.raises(OptionError, match="batch_size is 2, but only exports in the fast layout"):
        Transcriber(exported / "sherpa", batch_size=2)
    Transcriber(exported / "sherpa", batch_size=1)
