"""The table of the demonstration model: what the test sets are made of, and how the figures are counted."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("jiwer")

from tools.demo import table
from tools.demo.heldout import write_recordings
from tools.demo.sentences import Grammar
from tools.demo.voices import HELD_OUT, TRAINING

pytestmark = pytest.mark.reference  # jiwer
SPOKEN = ("flite-slt", "festival-slt", "festival-ked", "piper-joe", "natural", "two", "nine", "words")


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict]]:
    """What the synthesisers were asked for: synthesiser, text, voice.  They say a short noise."""
    asked = []

    def speak(name: str, text: str, voice: dict, kokoro: Path) -> np.ndarray:
        asked.append((name, text, voice))
        return np.full(1600, 0.1, np.float32)

    monkeypatch.setattr(table, "speak", speak)
    return asked


@pytest.mark.parametrize("name", SPOKEN)
def test_nothing_of_training_is_tested(name: str, spoken: list) -> None:
    """By construction: voices that are held out; sentences that are, too, but for single words."""
    for language in table.SETS[name].languages:
        spoken.clear()
        grammar = Grammar(language)
        texts = [text for _, text, _ in table.SETS[name].make(language, Path("kokoro"))]
        assert texts
        for synthesiser, text, voice in spoken:
            assert voice.get("voice") in [None, *HELD_OUT[synthesiser]]
            assert voice.get("voice", "joe") not in TRAINING.get(synthesiser, [])
            assert grammar.held_out(text) != (name == "words"), text
        assert " ".join(text for _, text, _ in spoken).split() == " ".join(texts).split()


def test_sets_are_of_what_they_say(spoken: list) -> None:
    """By hand: the number of recordings, sentences in each, numbers from 0 to 20 by both synthesisers."""
    made = {name: [*table.SETS[name].make("en", Path("kokoro"))] for name in ("two", "nine", "words")}
    assert [len(made[name]) for name in ("two", "nine")] == [40, 10]
    assert {text.count(".") + text.count("?") for _, text, _ in made["two"]} == {2}
    assert {text.count(".") + text.count("?") for _, text, _ in made["nine"]} == {9}
    words = [text for _, text, _ in made["words"]]
    assert all(words.count(word) == 2 for word in ("Zero.", "Seven.", "Twenty.", "Monday.", "Yes."))
    # 0.1 s of margin on both sides, two sentences of 0.1 s, a pause of 0.3 to 0.8 s
    assert all(0.7 <= len(samples) / 16000 <= 1.2 for samples, *_ in made["two"])


class Hears(SimpleNamespace):
    """A model that hears the same in everything; `asked`: the options it was given."""

    def transcribe(self, samples: np.ndarray, **options) -> SimpleNamespace:
        self.asked.append(options)
        return SimpleNamespace(text=self.text)


def data(folder: Path, texts: list[str]) -> None:
    noise = np.random.default_rng(1).standard_normal(1600).astype(np.float32) / 10
    write_recordings(((noise, text, str(i)) for i, text in enumerate(texts)), folder)


def test_figures(tmp_path: Path) -> None:
    """By hand: of 3 + 2 words one is wrong and one missing; marks and capitals count for nothing."""
    data(tmp_path / "flite-slt" / "en", ["Turn it off.", "Turn, on!"])
    model = Hears(text="turn on", asked=[])
    assert table.figure(model, tmp_path, "flite-slt", "en", "clean") == pytest.approx(100 * 2 / 5)
    assert model.asked == [{"rate": 16000, "language": "en", "itn": False}] * 2


def test_empty_texts(tmp_path: Path) -> None:
    data(tmp_path / "no-speech" / "en", ["", ""])
    assert table.figure(Hears(text="", asked=[]), tmp_path, "no-speech", "en", "clean") == 100
    assert table.figure(Hears(text="Is it?", asked=[]), tmp_path, "no-speech", "en", "clean") == 0


def test_markdown(tmp_path: Path) -> None:
    """By hand, of a model that hears "Seven." everywhere; numbers in digits are asked for in their own row."""
    for language, text in (("en", "Seven."), ("de", "Nein."), ("fr", "Non."), ("es", "Seven.")):
        data(tmp_path / "itn" / language, [text])
    data(tmp_path / "no-speech" / "en", [""])
    model = Hears(text="Seven.", asked=[])
    lines = table.table(model, tmp_path, ["itn", "no-speech"]).splitlines()
    cell = "0.0 / 100.0 / 100.0 / 0.0"
    assert lines[0] == "| test, percent | target | clean | white noise, 10 dB | room, 0.5 s | telephone |"
    assert lines[2] == f"| the same, numbers in digits (`--itn`) (en/de/fr/es) |  | {cell} | {cell} | {cell} | {cell} |"
    assert lines[3] == "| silence, noise, music, hum, beeps: empty texts | 100 | 0.0 |  |  |  |"
    assert [options["itn"] for options in model.asked] == [True] * 16 + [False]


def test_conditions_change_every_recording() -> None:
    """By construction; the noise is 10 dB below the speech."""
    samples = np.sin(2 * np.pi * 200 / 16000 * np.arange(16000)).astype(np.float32)  # too low for a telephone
    heard = {name: change(samples, np.random.default_rng(1)) for name, change in table.CONDITIONS.items()}
    assert (heard["clean"] == samples).all()
    noise = heard["white noise, 10 dB"] - samples
    assert 10 * np.log10(np.mean(samples**2) / np.mean(noise**2)) == pytest.approx(10, abs=0.01)
    assert np.abs(heard["telephone"][100:-100]).max() < 0.1
    assert not np.allclose(heard["room, 0.5 s"], samples, atol=0.01)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "STAMPS", tmp_path / "none")
    reason = table.make_one("people-digits", "en", tmp_path, tmp_path)
    assert reason == f"{tmp_path / 'none'} is missing: apt install tuxpaint-stamps-default"
    assert not (tmp_path / "people-digits" / "en").exists()


def test_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """By construction: a set that is there is not made again."""
    data(tmp_path / "no-speech" / "en", [""])
    monkeypatch.setattr(table, "parallel", lambda function, jobs, *_: [function(*job) for job in jobs])
    assert table.make(["no-speech"], tmp_path, tmp_path) == {}
    assert len([*(tmp_path / "no-speech" / "en").glob("*.wav")]) == 1
    monkeypatch.setattr(table, "STAMPS", tmp_path / "none")
    assert [*table.make(["no-speech", "people-digits"], tmp_path, tmp_path)] == ["people-digits"]
    assert capsys.readouterr().err.startswith("people-digits is left out: ")


def test_phrases_of_known_words() -> None:
    words = table._vocabulary("en")
    assert words.issuperset(["living", "percent", "seven", "twenty-one", "dollars", "a", "i'm"])
    assert words.isdisjoint(["zebra", "{room}", "%", "7"])
