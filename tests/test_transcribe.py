"""The Python interface: what may be passed, what comes back, what is refused."""

import io
import struct
import threading
import tracemalloc
from collections.abc import Iterable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
from scripted import END, PIECES, A, B, C, write_model

from cohere_lite import AudioError, ModelError, OptionError, Pauses, Segment, Transcriber, open_audio
from cohere_lite.export.__main__ import export
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
    assert segment == Segment(0, 0.5, "a b", (A, B), pytest.approx(logprob, rel=1e-6), None, False, False, False)
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
        (np.zeros(16000, np.int32), "samples of type int32"),
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
    with pytest.raises(OptionError, match=r"rate is 22050\.5; it must be a whole number"):
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
        transcriber = Transcriber(exported / "fast", batch_size=batch_size)
        assert without_logprobs(transcriber.segments(noise, rate=16000)) == without_logprobs(expected.segments)


def without_logprobs(segments: Iterable[Segment]) -> list[Segment]:
    """They differ in a last bit with the size of the batch."""
    return [replace(segment, avg_logprob=None) for segment in segments]


def test_batch_sizes_that_cannot_be(exported: Path) -> None:
    with pytest.raises(OptionError, match="batch_size is 0; it must be 1 or more"):
        Transcriber(exported / "fast", batch_size=0)
    with pytest.raises(OptionError, match="batch_size is 2, but only exports in the fast layout"):
        Transcriber(exported / "sherpa", batch_size=2)
    Transcriber(exported / "sherpa", batch_size=1)


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
    with pytest.raises(OptionError, match="channel is 2, but the array has 2, counted from 0"):
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
