"""Noise, rooms, the telephone: by formula."""

import wave
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cohere_lite.errors import AudioError
from cohere_lite.evaluate.errors import EvaluateError
from cohere_lite.evaluate.layouts.layout import Utterance
from cohere_lite.evaluate.noise import (
    CLEAN,
    Babble,
    Condition,
    add_noise,
    hear,
    parse_conditions,
    pink,
    room,
    telephone,
)
from cohere_lite.evaluate.sound import mono, read_sound

pytestmark = pytest.mark.folder
RATE = 16000


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def strength(samples: np.ndarray, hz: float) -> float:
    """The amplitude of a tone in one second."""
    return 2 * abs(np.fft.rfft(samples)[round(hz)]) / len(samples)


def utterance(folder: Path, name: str, samples: np.ndarray, speaker: str | None = None) -> Utterance:
    path = folder / f"{name}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return Utterance(name, "a text", "en", partial(Path, path), speaker=speaker)


def test_noise_is_so_many_decibels_below() -> None:
    speech = tone(440)
    for snr_db in (20.0, 0.0, -5.0):
        noise = add_noise(speech, np.random.default_rng(0).standard_normal(RATE).astype(np.float32), snr_db) - speech
        assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.01)


def test_pink_noise_has_as_much_in_each_octave() -> None:
    power = np.abs(np.fft.rfft(pink(1 << 18, np.random.default_rng(0)))) ** 2
    octaves = [power[1 << i : 2 << i].sum() for i in range(8, 17)]
    assert max(octaves) < 1.2 * min(octaves)


def test_telephone() -> None:
    heard = telephone(tone(100) + tone(1000) + tone(5000))
    assert [strength(heard[4000:-4000], 0.5 * hz) for hz in (100, 1000, 5000)] == pytest.approx([0, 0.5, 0], abs=0.01)


def test_a_room_echoes() -> None:
    """Of a click: itself, then an echo that has 0.65² of its energy, and falls by 60 dB in 0.5 s."""
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    heard = room(click, 0.5, np.random.default_rng(0)).astype(float)
    assert heard[0] == pytest.approx(1, abs=1e-5)
    assert np.sum(heard[1:] ** 2) == pytest.approx(0.65**2, rel=0.01)
    early, late = (np.mean(heard[start : start + 800] ** 2) for start in (400, 4400))  # 0.25 s apart: 30 dB
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=1.5)
    assert np.abs(heard[8001:]).max() < 1e-5


def test_the_same_noise_at_every_run(tmp_path: Path) -> None:
    one, other = (utterance(tmp_path, name, tone(440)) for name in ("one", "other"))
    condition = parse_conditions("white:10")[1]
    first, again, of_other = (hear(condition, tone(440), u, Babble([])) for u in (one, one, other))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, of_other)


def test_babble_is_made_of_others(tmp_path: Path) -> None:
    """Of three speakers, a tone each: whose tone is heard."""
    said = [("a", 500, "x"), ("b", 700, "x"), ("c", 900, "y"), ("d", 1100, None)]
    utterances = [utterance(tmp_path, name, tone(hz), speaker) for name, hz, speaker in said]
    babble = Babble(utterances)
    heard = {u.id: babble.around(u, RATE, np.random.default_rng(0)) for u in utterances}
    loud = {name: {other for other, hz, _ in said if strength(samples, hz) > 0.5} for name, samples in heard.items()}
    assert loud == {"a": {"c", "d"}, "b": {"c", "d"}, "c": {"a", "b", "d"}, "d": {"a", "b", "c"}}


def test_babble_where_nobody_says_who_speaks(tmp_path: Path) -> None:
    """The utterance itself is not among the voices, and one that cannot be read is left out."""
    utterances = [utterance(tmp_path, name, tone(hz)) for name, hz in (("a", 500), ("b", 700), ("c", 900))]
    (tmp_path / "c.wav").write_bytes(b"no sound")
    heard = Babble(utterances).around(utterances[0], RATE, np.random.default_rng(0))
    assert [round(strength(heard, hz)) for hz in (500, 700, 900)] == [0, 1, 0]
    with pytest.raises(AudioError, match="no other recording"):
        Babble(utterances[::2]).around(utterances[0], RATE, np.random.default_rng(0))


def test_conditions() -> None:
    assert parse_conditions("") == [CLEAN]
    assert parse_conditions(" White:10, babble:5,room:0.50,telephone,white:10.0,clean") == [
        CLEAN,
        Condition("white:10", "white", 10),
        Condition("babble:5", "babble", 5),
        Condition("room:0.5", "room", 0.5),
        Condition("telephone", "telephone", 0),
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("white", "white:", "white:loud", "white:nan", "white:5000", "pink:-5000", "babble:100.5"),
        *("room:0", "room:1e6", "room", "brown:5", "telephone:5"),
    ],
)
def test_conditions_that_are_not_known(text: str) -> None:
    with pytest.raises(EvaluateError, match=f"--noise '{text}' is not known; known are white:DB.*; -100 to 100"):
        parse_conditions(text)


@pytest.mark.parametrize("level", [-100, 100])
def test_the_most_and_the_least_noise(level: int, tmp_path: Path) -> None:
    """By formula: so many decibels, in numbers that float32 holds."""
    (_, condition) = parse_conditions(f"white:{level}")
    heard = hear(condition, tone(440), utterance(tmp_path, "a", tone(440)), Babble([])).astype(float)
    noise = heard - tone(440)
    assert 10 * np.log10(np.mean(tone(440) ** 2) / np.mean(noise**2)) == pytest.approx(level, abs=0.01)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    """By hand: from 0.25 to 0.75 s; of that no more than 0.1 s."""
    samples = np.linspace(0, 0.5, RATE, dtype=np.float32)
    part = replace(utterance(tmp_path, "a", samples), start_s=0.25, end_s=0.75)
    assert mono(read_sound(part)) == pytest.approx(samples[4000:12000], abs=1e-4)
    assert [len(mono(read_sound(part, seconds))) for seconds in (0.1, 5.0)] == [1600, 8000]
    with pytest.raises(AudioError, match=r"the recording ends at 1\.00 s"):
        read_sound(replace(part, start_s=2.0, end_s=3.0))
