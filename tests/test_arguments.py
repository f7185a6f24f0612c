"""Arguments that cannot be, of every public function: an OptionError that names the argument; and NumPy's numbers."""

import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_transcribe import SAMPLE, SAMPLE_TEXT

from cohere_lite import OptionError, Pauses, Transcriber, open_audio
from cohere_lite.errors import number

SAMPLES = np.zeros(16000, np.float32)
NAN = float("nan")
NO_NUMBERS = ["1", "0:01", True, False, np.True_, NAN, np.float32("nan"), [1], b"1", 1j, np.zeros(2), {}]
NO_WHOLE = [*NO_NUMBERS, 1.5, float("inf"), Fraction(3, 2)]
NO_FLAGS = ["no", "yes", 0, 1, None, 0.0, [], np.zeros(2, bool)]
NO_PATHS = [5, True, 0.5, b"folder", ["folder"], np.zeros(2)]

OF_TRANSCRIBER = {
    "model": NO_PATHS,
    "providers": ["cuda", "cpu", 5, None, [], [5], [None], {"cpu": 1}, [("cuda", {"device_id": 0})], b"cpu"],
    "threads": [*NO_WHOLE, 0, -1, 10**6],
    "spin": NO_FLAGS,
    "cache": NO_PATHS,
    "batch_size": [*NO_WHOLE, 0, -1],
    "precision": [8, True, b"int8", ["int8"]],
}
OF_RECORDINGS = {
    "rate": NO_NUMBERS,
    "language": [5, None, True, b"en", ["en", 5], [], {"en", "de"}, "english", "", "en,", "en,it", "en,auto", ["auto"]],
    "language_per": [5, None, True, b"phrase", ["phrase"], "Phrase", "", "phrase"],
    "punctuation": NO_FLAGS,
    "itn": NO_FLAGS,
    "prompt": [5, None, True, b"full", ["full"], "Full", ""],
    "start": [*NO_NUMBERS, None, -1, float("inf")],
    "end": [*NO_NUMBERS, 0, -1],
    "channel": [*NO_WHOLE, "left", "all"],
    "pauses": [0.5, True, 1, "0.6", Pauses, {"min_pause_s": 0.5}, []],
    "skip_silence": NO_FLAGS,
    "word_times": NO_FLAGS,
}
OF_PAUSES = {
    "threshold_db": [*NO_NUMBERS, None, 0, 100],
    "min_pause_s": [*NO_NUMBERS, None, 0, 40],
    "max_phrase_s": [*NO_NUMBERS, None, 0, 40],
}


def cases(table: dict, without: str = "") -> list:
    return [
        pytest.param(name, value, id=f"{name}={value!r}") for name in table if name != without for value in table[name]
    ]


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(threads=1)


@pytest.mark.parametrize(("name", "value"), cases(OF_TRANSCRIBER))
def test_of_a_transcriber(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name.removesuffix("s")):  # "unknown provider 'x'"
        Transcriber(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(OF_RECORDINGS))
def test_of_recordings(transcriber: Transcriber, name: str, value: object) -> None:
    """Before anything of the audio is read."""

    def blocks():
        pytest.fail("read")
        yield

    arguments = {"rate": 16000, name: value}
    for use in transcriber.transcribe, lambda audio, **more: [*transcriber.segments(audio, **more)]:
        with pytest.raises(OptionError, match=rf"\b{name}\b"):
            use(blocks(), **arguments)
    if name != "end":
        with pytest.raises(OptionError, match=rf"\b{name}\b"):
            transcriber.recording(**arguments)


@pytest.mark.parametrize(("name", "value"), cases(OF_PAUSES))
def test_of_pauses(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        Pauses(**{name: value})


@pytest.mark.parametrize("raw", [5, True, b"16000:s16le:1", ["16000:s16le:1"], "", "16000", NAN, (16000, "s16le", 1)])
def test_of_raw_samples(raw: object) -> None:
    with pytest.raises(OptionError, match=r"raw is .*; expected RATE:FORMAT:CHANNELS"), open_audio(b"", raw):
        pass


@pytest.mark.parametrize("track", [*NO_WHOLE, -1, b"0", [0]])
def test_of_tracks(track: object) -> None:
    message = r"track is .*; it must be a whole number from 0, or None"
    with pytest.raises(OptionError, match=message), open_audio(b"", track=track):
        pass


@pytest.mark.parametrize(
    "of", [int, float, np.int64, np.uint16, np.float32, np.float64, np.longdouble, np.array, Fraction]
)
def test_numbers(transcriber: Transcriber, of) -> None:
    """By construction: what a number is written as changes nothing."""
    samples = np.stack([np.zeros(48000), np.sin(np.arange(48000.0))], axis=1)
    given = {"rate": 16000, "start": 1, "end": 2, "channel": 1}
    expected = transcriber.transcribe(samples, pauses=Pauses(min_pause_s=1), **given)
    pauses = Pauses(min_pause_s=of(1), max_phrase_s=of(30))
    found = transcriber.transcribe(samples, pauses=pauses, **{name: of(value) for name, value in given.items()})
    assert found == expected
    assert {type(found.segments[0].start), type(found.segments[0].end)} == {float}
    assert Transcriber(threads=of(1), batch_size=of(2)).transcribe(SAMPLE, punctuation=np.True_).text == SAMPLE_TEXT


def test_a_number_by_hand() -> None:
    assert [number("n", value, "1 to 3", 1, 3) for value in (1, 3.0, np.int8(2))] == [1, 3.0, 2]
    assert type(number("n", np.float32(2), "1 to 3", whole=True)) is int
    for value in (0.99, 3.01, "2", NAN, 10**400):
        with pytest.raises(OptionError, match=f"^n is {re.escape(repr(value))}; it must be 1 to 3$"):
            number("n", value, "1 to 3", 1, 3)


class Tensor:
    """As other libraries' arrays: has axes, and NumPy can read it."""

    def __init__(self, samples: np.ndarray) -> None:
        self._samples, self.ndim = samples, samples.ndim

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        return self._samples


class AudioDecoder:
    """As torchcodec's, which datasets 4 has in its rows: no Mapping, and channels are the first axis."""

    def __init__(self, channels: np.ndarray) -> None:
        self._channels = channels

    def get_all_samples(self) -> SimpleNamespace:
        return SimpleNamespace(data=Tensor(self._channels), sample_rate=16000)


SPEECH = np.frombuffer(Path(SAMPLE).read_bytes()[44:], "<i2")


def test_samples_with_their_rate(transcriber: Transcriber) -> None:
    """As scipy, gradio, soundfile and datasets hand them over."""
    data = Path(SAMPLE).read_bytes()
    for audio in (
        (16000, SPEECH),
        (np.int64(16000), SPEECH / 2**15),
        (SPEECH, 16000),
        (SPEECH, np.array(16000)),
        {"array": SPEECH, "sampling_rate": 16000, "path": None},
        {"bytes": data, "path": "gone.wav"},
        {"bytes": None, "path": str(SAMPLE)},
        {"path": SAMPLE},
        [16000, SPEECH],
        (16000, (SPEECH / 2**15).tolist()),
        ((SPEECH / 2**15).tolist(), 16000),
        (Tensor(SPEECH), 16000),
        {"array": Tensor(SPEECH), "sampling_rate": 16000},
        {"audio": {"array": SPEECH, "sampling_rate": 16000}, "text": "unlike"},
        {"id": 1, "speech": {"bytes": data, "path": None}, "text": "unlike"},
        {"audio": {"path": SAMPLE}, "noise": {"array": SPEECH[:0], "sampling_rate": 16000}},
        AudioDecoder(SPEECH[None] / 2**15),
        {"audio": AudioDecoder(SPEECH[None]), "text": "unlike"},
        {"id": 1, "speech": AudioDecoder(SPEECH[None]), "text": "unlike"},
    ):
        assert transcriber.transcribe(audio).text == SAMPLE_TEXT
        assert [segment.text for segment in transcriber.segments(audio)] == [SAMPLE_TEXT]
    for audio in (16000, SPEECH), {"array": SPEECH, "sampling_rate": 16000}, {"array": SPEECH}, (SPEECH, SPEECH[:0]):
        assert transcriber.transcribe(audio, rate=16000).text == SAMPLE_TEXT


def test_channels_of_a_decoder(transcriber: Transcriber) -> None:
    """By construction: the second one has the speech."""
    audio = AudioDecoder(np.stack([SPEECH * 0, SPEECH]))
    heard = [s.channel for s in transcriber.transcribe(audio, channel="split").segments if s.text == SAMPLE_TEXT]
    assert heard == [1]
    assert transcriber.transcribe({"audio": audio}, rate=16000, channel=1).text == SAMPLE_TEXT


def test_samples_with_another_rate_than_said(transcriber: Transcriber) -> None:
    decoder = AudioDecoder(SPEECH[None])
    for audio in (16000, SPEECH), (SPEECH, 16000.0), {"array": SPEECH, "sampling_rate": 16000}, decoder:
        with pytest.raises(OptionError, match="rate is 8000, but the samples come with 16000"):
            transcriber.transcribe(audio, rate=8000)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (("16000", SPEECH), "rate is '16000'; it must be a number of Hz"),
        ((None, SPEECH), "rate is None"),
        ({"array": SPEECH, "sampling_rate": "16k"}, "rate is '16k'"),
        ((16000, None), "a tuple of (int, NoneType) is no recording: pass (samples, rate), "),
        (("a.wav", 16000), "a tuple of (str, int) is no recording: pass (samples, rate), "),
        (tuple(range(9)), "a tuple of (int, int, int, ...) is no recording: pass"),
        ([SPEECH, SPEECH], "samples need their sampling rate"),
        (
            {"array": SPEECH, "sample_rate": 1},
            "a recording without 'sampling_rate'; it has 'array', 'sample_rate': pass",
        ),
        ({"raw": SPEECH}, "a dict with 'raw' is no recording: pass"),
        ({"bytes": None, "path": None}, "a dict with 'bytes' (None), 'path' (None) is no recording: pass"),
        ({}, "a dict with nothing in it is no recording: pass"),
        ({"a": {"path": "1"}, "b": {"path": "2"}}, "a dict with 'a', 'b' is no recording: pass"),
        (([[0.0], [0.0, 1.0]], 16000), "samples as a list that is no NumPy array"),
    ],
)
def test_samples_without_a_rate(transcriber: Transcriber, audio: object, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        transcriber.transcribe(audio)
