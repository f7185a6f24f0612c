"""Speech whose words' times are known: espeak-ng tells them while it speaks, Kokoro by the durations of its sounds; and
words spoken one by one, laid out with known silences. Needs libespeak-ng.so.1, the program espeak-ng and NumPy, and for
Kokoro onnx and its files (tools/demo/kokoro.py)."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from ..demo.acoustics import SAMPLE_RATE, Samples, add_noise, at_peak, noise, resample, silence
from ..demo.sentences import Grammar
from ..demo.synthesisers import kokoro_inputs, onnx_session
from ..demo.voices import random_voice

ESPEAK_RATE = 22_050  # Hz, at which espeak-ng speaks
PEAK = 0.5
MARGIN = 0.3  # seconds of silence before and after
# speak_lib.h of espeak-ng 1.51
_SYNCHRONOUS, _UTF8, _RATE, _PITCH, _WORD, _LAST = 2, 1, 1, 3, 1, 0
KOKORO_RATE = 24_000  # Hz
KOKORO_FRAME = 600  # samples, in which it counts durations
# As its authors' join_timestamps has it (hexgrad/kokoro, pipeline.py): what is heard comes three frames before what the
# durations say. By the loudness so here, too.
KOKORO_EARLY = 3
_KOKORO_DURATIONS = "/encoder/Clip_output_0"  # in its graph: float32, frames of each sound
_AUDIBLE = 10 ** (-40 / 20)  # of a word's loudest sample: where its sound begins
_WORDS = re.compile(r"\S*\w\S*(?: [^\w\s]+(?= |$))*")  # French has a space before "?"


class Spoken(NamedTuple):
    """samples: float32 (n,), 16 kHz;  words: of the text, with punctuation;  starts: in seconds; None where espeak-ng
    does not tell, because it speaks several words as one"""

    samples: Samples
    language: str
    words: list[str]
    starts: list[float | None]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@cache
def _espeak() -> ctypes.CDLL:
    library = ctypes.CDLL("libespeak-ng.so.1")
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
    if rate != ESPEAK_RATE:
        raise RuntimeError(f"espeak-ng speaks at {rate} Hz, not at {ESPEAK_RATE}")
    return library


def speak_with_times(text: str, accent: str, voice: str, rate: int, pitch: int) -> tuple[Samples, dict[int, float]]:
    """As espeak (tools/demo); and when the word begins that stands at each place in the text: seconds."""
    library = _espeak()
    blocks: list[np.ndarray] = []
    starts: dict[int, float] = {}

    def receive(wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if count and wave:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type != _LAST:
            if events[i].type == _WORD:
                starts.setdefault(events[i].text_position - 1, events[i].sample / ESPEAK_RATE)
            i += 1
        return 0

    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    name = f"{accent}+{voice}".encode()
    # as the program does: first by the voice's name, then by its language
    by_language = ctypes.byref(_Voice(languages=name))
    if library.espeak_SetVoiceByName(name) and library.espeak_SetVoiceByProperties(by_language):
        raise RuntimeError(f"espeak-ng has no voice {accent}+{voice}")
    library.espeak_SetParameter(_RATE, rate, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    pcm = np.concatenate(blocks)
    return resample(pcm.astype(np.float32) / np.float32(32768), ESPEAK_RATE), starts


def sentences(language: str, count: int, snr_db: float | None = None, held_out: bool = True) -> Iterator[Spoken]:
    """Sentences with espeak-ng's own word events. held_out: those that the model was not trained on, and such voices"""
    rng = Random(f"word times {language}")
    grammar = Grammar(language)
    texts = grammar.held_out_texts(count, rng) if held_out else grammar.training(count, rng)
    for i, text in enumerate(written.spoken for written in texts):
        samples, starts = speak_with_times(text, **random_voice("espeak", language, rng, held_out))
        samples = np.concatenate([silence(MARGIN), samples, silence(MARGIN)])
        words = [*_WORDS.finditer(text)]
        begun = [[starts[i] for i in range(*word.span()) if i in starts] for word in words]  # not at "¿"
        known = [MARGIN + times[0] if times else None for times in begun]
        yield Spoken(_recorded(samples, snr_db, i), language, [word[0] for word in words], known)


def natural(language: str, count: int, snr_db: float | None = None, *, kokoro: Path) -> Iterator[Spoken]:
    """Held-out sentences by Kokoro's held-out voices, where its sounds fall into words as espeak-ng's events do.

    kokoro: the folder of its files.
    """
    rng = Random(f"natural {language}")
    for i, text in enumerate(written.spoken for written in Grammar(language).held_out_texts(count, rng)):
        voice = random_voice("kokoro", language, rng, held_out=True)
        samples, begun = _speak_with_durations(text, voice, kokoro)
        accent = {"en": "en-us", "fr": "fr-fr"}.get(voice["language"], voice["language"])
        places = sorted(speak_with_times(text, accent, "m1", 160, 50)[1])
        if len(places) == len(begun):
            starts = dict(zip(places, begun, strict=True))
            words = [*_WORDS.finditer(text)]
            times = [[starts[i] for i in range(*word.span()) if i in starts] for word in words]
            known = [MARGIN + found[0] if found else None for found in times]
            samples = np.concatenate([silence(MARGIN), samples, silence(MARGIN)])
            yield Spoken(_recorded(samples, snr_db, i), language, [word[0] for word in words], known)


def _speak_with_durations(text: str, voice: dict[str, Any], folder: Path) -> tuple[Samples, list[float]]:
    """As kokoro (tools/demo); and when each run of sounds begins, in seconds."""
    sounds, feeds = kokoro_inputs(text, **voice, folder=folder)
    samples, frames = (np.ravel(found) for found in _kokoro_with_durations(folder).run(None, feeds))
    ends = np.cumsum(frames)  # ends[i] is where sounds[i] begins: one was before
    begins = [run.start() for run in re.finditer(r"[^\s.,?!;:]+", sounds)]
    seconds = (ends - KOKORO_EARLY) * KOKORO_FRAME / KOKORO_RATE
    return resample(samples, KOKORO_RATE), [max(0.0, float(seconds[i])) for i in begins]


@cache
def _kokoro_with_durations(folder: Path) -> Any:
    import onnx

    model = onnx.load(folder / "model.onnx")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(_KOKORO_DURATIONS))
    return onnx_session(model.SerializeToString())


def with_a_pause(language: str, count: int, snr_db: float | None = None) -> Iterator[Spoken]:
    """The same sentences, with a silence of 0.3 to 3 s before one of their words."""
    rng = Random(f"pauses {language}")
    for spoken in sentences(language, count, snr_db):
        known = [start for start in spoken.starts[1:] if start is not None]
        if known:
            at, pause_s = rng.choice(known), rng.uniform(0.3, 3.0)
            cut = round(at * SAMPLE_RATE)
            floor = spoken.samples[: round(MARGIN * SAMPLE_RATE)]  # silence, or noise
            pause = np.resize(floor, round(pause_s * SAMPLE_RATE))
            samples = np.concatenate([spoken.samples[:cut], pause, spoken.samples[cut:]])
            starts = [start if start is None or start < at else start + pause_s for start in spoken.starts]
            yield spoken._replace(samples=samples, starts=starts)


def words_apart(language: str, count: int, snr_db: float | None = None) -> Iterator[Spoken]:
    """Held-out sentences whose words are spoken one by one, and follow each other after 20 to 400 ms of silence."""
    rng = Random(f"word by word {language}")
    for i, text in enumerate(Grammar(language).held_out_texts(count, rng)):
        voice = random_voice("espeak", language, rng, held_out=True)
        parts, starts = [silence(MARGIN)], []
        words = [word[0] for word in _WORDS.finditer(text.spoken)]
        for word in words:
            sound = _trimmed(speak_with_times(word, **voice)[0])
            starts.append(sum(map(len, parts)) / SAMPLE_RATE)
            parts += [sound, silence(rng.uniform(0.02, 0.4))]
        samples = np.concatenate([*parts, silence(MARGIN)])
        yield Spoken(_recorded(samples, snr_db, i), language, words, [*starts])


def _trimmed(samples: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(samples) > _AUDIBLE * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def _recorded(samples: Samples, snr_db: float | None, seed: int) -> Samples:
    if snr_db is not None:
        samples = add_noise(samples, noise("white", len(samples), np.random.default_rng(seed), silence(0)), snr_db)
    return at_peak(samples, PEAK)
