"""How well the language is found (cohere_lite/extras/detect.py), by each way to compare the texts; and the constants of
its probabilities.

    python -m tools.language [--sentences 150] [--write FOLDER]                 of the embedded model, on espeak-ng's
    python -m tools.language --model FOLDER --data de=SPEC ... [--write FOLDER] of another one, on recordings of people
                                                                                (SPEC: as for cohere_lite.evaluate)
Measures  held-out sentences: whole, their first 1 and 2 s, the first 5 s of three in a row; clean, and in white noise
          at 10 dB. Half of them fit the constants, the other half is what the tables are about. Negatives: sentences in
          five other languages, music; noise and silence
Writes    tables to stdout; --write: language.json into FOLDER, which is the model's
Needs     espeak-ng, for the embedded model and for negatives; the extra `evaluate` for --data
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohere_lite.errors import AudioError, CohereLiteError
from cohere_lite.evaluate.sound import mono, read_sound
from cohere_lite.extras import detect
from cohere_lite.model import Model, load_model

from .demo import sentences
from .demo.acoustics import SAMPLE_RATE, Samples, add_noise, at_peak, noise, silence
from .demo.heldout import MARGIN, PEAK
from .demo.synthesisers import espeak
from .demo.voices import HELD_OUT, random_voice

if TYPE_CHECKING:
    from cohere_lite.evaluate.utterances import Data

LENGTHS = ("1 s", "2 s", "5 s", "whole")
SNR_DB = 10
PAUSE_S = 0.3  # between the sentences of which 5 s are heard
WHOLE = 80  # tokens; the longest held-out sentence has half as many
NEGATIVES = {
    "it": "Accendi la luce nel soggiorno.|Domani mattina devo andare al lavoro.|Quanto costa un biglietto per Roma?|"
    "La riunione comincia alle dieci.|Ho comprato dodici mele e tre bottiglie di vino.|Il treno parte tra poco.",
    "nl": "Doe het licht in de woonkamer aan.|Morgenochtend moet ik naar mijn werk.|Hoeveel kost een kaartje naar "
    "Utrecht?|De vergadering begint om tien uur.|Ik heb twaalf appels gekocht.|De trein vertrekt over twintig minuten.",
    "pl": "Włącz światło w salonie.|Jutro rano muszę iść do pracy.|Ile kosztuje bilet do Warszawy?|Spotkanie zaczyna "
    "się o dziesiątej.|Kupiłem dwanaście jabłek i trzy butelki wina.|Pociąg odjeżdża za dwadzieścia minut.",
    "pt": "Acende a luz da sala.|Amanhã de manhã tenho de ir trabalhar.|Quanto custa um bilhete para Lisboa?|A reunião "
    "começa às dez horas.|Comprei doze maçãs e três garrafas de vinho.|O comboio parte dentro de vinte minutos.",
    "tr": "Oturma odasındaki ışığı aç.|Yarın sabah işe gitmem gerekiyor.|Ankara'ya bilet ne kadar?|Toplantı saat onda "
    "başlıyor.|On iki elma ve üç şişe şarap aldım.|Tren yirmi dakika sonra kalkıyor.",
}
BINS = (0, 0.3, 0.5, 0.7, 0.9, 0.97, 1)
TEMPERATURES, OTHERS = np.geomspace(0.02, 5, 56), np.linspace(-1.5, -0.05, 59)


class Heard(NamedTuple):
    """What the decoder makes of a clip. language: as spoken;  half: 0 fits the constants, 1 is measured;  n_letters,
    logprobs: of each candidate's text, end-of-text included;  one_step: log-probabilities of the language tokens after
    a prompt cut before them"""

    language: str
    condition: str
    length: str
    half: int
    seconds: float
    n_letters: list[int]
    logprobs: list[list[float]]
    one_step: NDArray[np.float64]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.language", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, help="folder (default: the embedded model)")
    parser.add_argument("--data", nargs="+", metavar="LANGUAGE=SPEC", help="recordings (default: espeak-ng's)")
    parser.add_argument("--sentences", type=int, default=150, help="of each language (default: 150)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help=f"write {detect.CALIBRATION} there")
    args = parser.parse_args(argv)
    if wrong := [pair for pair in args.data or [] if not re.match(r"\w+=.", pair)]:
        parser.error(f"--data {wrong[0]!r}: name the language first, as de=SPEC")
    if args.write and not args.write.is_dir():
        parser.error(f"--write {args.write} is no folder: name the model's")
    specs = dict(pair.split("=", 1) for pair in args.data or [])
    try:
        model = load_model(args.model)
        data = open_all(specs, args.sentences)
    except (CohereLiteError, OSError, ImportError) as error:
        parser.error(f"{error}")
    codes, known = [*(data or sentences.LANGUAGES)], model.vocabulary.languages
    if unknown := {*codes} - {*known}:
        parser.error(f"the model knows {', '.join(known)}; not {', '.join(sorted(unknown))}")
    clips = from_data(data, model.max_chunk_s) if data else from_espeak(args.sentences)
    heard = [hear(model, codes, *clip) for clip in clips]
    if lacking := {*codes} - {h.language for h in heard}:
        raise SystemExit(f"no recording in {', '.join(sorted(lacking))} can be used")
    unspoken = [hear(model, codes, *clip) for clip in negatives(codes)]
    print_ways(heard, codes)
    chosen = ways()["compared"]
    fitted = fit([h for h in [*heard, *unspoken] if h.half == 0 and h.condition != "no sound"], codes)
    print_accuracy(heard, codes)
    print_reliability([h for h in heard if h.half], [h for h in unspoken if h.half], codes, fitted)
    print(f"\ntemperature {fitted.temperature:.3f}, other {fitted.other:.3f}; scores: {chosen.__doc__}")
    if fitted.temperature in (TEMPERATURES[0], TEMPERATURES[-1]):
        print("the temperature is at the end of those tried: too few sentences, or all too easy or too hard")
    if args.write:
        (args.write / detect.CALIBRATION).write_text(json.dumps(rounded(fitted)) + "\n", encoding="utf-8")
    return 0


def rounded(constants: detect.Calibration) -> dict[str, float]:
    """As language.json has them."""
    return {name: round(value, 4) for name, value in constants._asdict().items()}


Clip = tuple[str, str, str, int, Samples]  # language, condition, length, half, samples


def from_espeak(count: int) -> Iterator[Clip]:
    """Held-out sentences by held-out voices, the same ones every time."""
    for language in sentences.LANGUAGES:
        rng = Random(f"language {language}")
        texts = sentences.Grammar(language).held_out_texts(3 * count, rng)
        for i in range(count):
            voice = random_voice("espeak", language, rng, held_out=True)
            spoken = [espeak(text.spoken, **voice) for text in texts[3 * i : 3 * i + 3]]
            yield from cut(language, i, spoken[0], np.concatenate([x for s in spoken for x in (s, silence(PAUSE_S))]))


def open_all(specs: dict[str, str], count: int) -> dict[str, Data]:
    """The data of each language. Raises EvaluateError."""
    from cohere_lite.evaluate.utterances import open_data

    return {language: open_data(spec, count=count, language=language) for language, spec in specs.items()}


def from_data(data: dict[str, Data], longest_s: float) -> Iterator[Clip]:
    """Recordings of people, each by itself. What cannot be used is left out, and told on stderr.  longest_s: what the
    encoder takes"""
    for language, of_language in data.items():
        usable, left_out = 0, Counter(of_language.left_out)
        for utterance in of_language.utterances:
            try:
                samples = mono(read_sound(utterance))
                if len(samples) / SAMPLE_RATE + 2 * MARGIN > longest_s:
                    raise AudioError(f"longer than the {longest_s:g} s that the model takes at once")
                if not np.isfinite(samples).all():
                    raise AudioError("holds what is no number")
            except (CohereLiteError, OSError) as error:
                left_out[str(error)] += 1
                continue
            yield from cut(language, usable, samples, samples)
            usable += 1
        for reason, n in left_out.items():
            print(f"{language}: {n} left out: {reason}", file=sys.stderr)


def cut(language: str, number: int, sentence: Samples, longer: Samples) -> Iterator[Clip]:
    """A recording in each condition and length."""
    for condition in ("clean", f"{SNR_DB} dB"):
        whole, talk = (np.concatenate([silence(MARGIN), part, silence(MARGIN)]) for part in (sentence, longer))
        if condition != "clean":
            rng = np.random.default_rng(number)
            whole, talk = (add_noise(x, noise("white", len(x), rng, silence(0)), SNR_DB) for x in (whole, talk))
        parts = whole[:SAMPLE_RATE], whole[: 2 * SAMPLE_RATE], talk[: 5 * SAMPLE_RATE], whole
        for length, part in zip(LENGTHS, parts, strict=True):
            yield language, condition, length, number % 2, at_peak(part, PEAK)


def negatives(codes: list[str]) -> Iterator[Clip]:
    """What is none of the candidates."""
    for language, texts in NEGATIVES.items():
        for i, text in enumerate(texts.split("|") if language not in codes else []):
            for voice in HELD_OUT["espeak"][::2]:
                spoken = [silence(MARGIN), espeak(text, language, voice, 170, 50), silence(MARGIN)]
                yield language, "other language", "whole", i % 2, at_peak(np.concatenate(spoken), PEAK)
    rng = np.random.default_rng(0)
    for i in range(20):
        yield "music", "music", "4 s", i % 2, music(rng)
        for kind in ("white", "pink"):
            yield kind, "no sound", "4 s", i % 2, at_peak(noise(kind, 4 * SAMPLE_RATE, rng, silence(0)), 0.1)
        yield "silence", "no sound", "2 s", i % 2, silence(2 + i / 10)


def music(rng: np.random.Generator) -> Samples:
    """4 s: a chord of three notes with five partials each, struck every half second."""
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    found = np.zeros(len(time))
    for beat in range(8):
        since = np.maximum(0, time - beat / 2)
        root = 220 * 2 ** (rng.integers(24) / 12)
        partials = sum(np.sin(2 * np.pi * root * note * k * time) / k for note in (1, 1.26, 1.5) for k in range(1, 6))
        found += np.where(time >= beat / 2, np.exp(-3 * since), 0) * partials
    return at_peak(found.astype(np.float32), 0.3)


def hear(
    model: Model, codes: list[str], language: str, condition: str, length: str, half: int, samples: Samples
) -> Heard:
    contract, vocabulary = model.contract, model.vocabulary
    clip = contract.encode(samples)
    prompts = [vocabulary.prompt(code) for code in codes]
    tokens = detect.first_tokens(contract, clip, prompts, vocabulary.end_of_text, WHOLE, len(prompts))
    languages = [vocabulary.id(f"<|{code}|>") for code in codes]
    contract.start([clip])
    logits = contract.step([prompts[0][: prompts[0].index(languages[0])]])[0, languages].astype(np.float64)
    contract.release()
    n_letters = [max(1, len(vocabulary.decode(ids))) for ids, _ in tokens]
    seconds = len(samples) / SAMPLE_RATE
    return Heard(language, condition, length, half, seconds, n_letters, [lps for _, lps in tokens], logits)


def ways() -> dict:
    """Name -> what gives the candidates' scores."""

    def compared(h: Heard) -> list[float]:
        """the mean over the tokens that can have been said: 4 a second, 2 to 16"""
        return [float(np.mean(logprobs[: detect.n_compared(h.seconds)])) for logprobs in h.logprobs]

    def first(n: int):
        return lambda h: [sum(logprobs[:n]) for logprobs in h.logprobs]

    return {
        "one step, language tokens": lambda h: h.one_step,
        "whole text, in all": lambda h: [sum(logprobs) for logprobs in h.logprobs],
        "whole text, by token": lambda h: [sum(lps) / len(lps) for lps in h.logprobs],
        "whole text, by character": lambda h: [sum(lps) / n for n, lps in zip(h.n_letters, h.logprobs, strict=True)],
        **{f"first {n} tokens": first(n) for n in (1, 2, 4, 8, 16)},
        "compared": compared,
    }


def print_ways(heard: list[Heard], codes: list[str]) -> None:
    groups = [(condition, length) for condition in ("clean", f"{SNR_DB} dB") for length in LENGTHS]
    print("\n| right, percent | " + " | ".join(f"{condition}, {length}" for condition, length in groups) + " |")
    print("|---" * (len(groups) + 1) + "|")
    for name, way in ways().items():
        print(f"| {name} | " + " | ".join(share(heard, codes, way, *group) for group in groups) + " |")


def print_accuracy(heard: list[Heard], codes: list[str]) -> None:
    groups = [(condition, length) for condition in ("clean", f"{SNR_DB} dB") for length in LENGTHS]
    print("\n| right, percent, as compared | " + " | ".join(f"{c}, {length}" for c, length in groups) + " |")
    print("|---" * (len(groups) + 1) + "|")
    for code in codes:
        of_code = [h for h in heard if h.language == code]
        print(f"| {code} | " + " | ".join(share(of_code, codes, ways()["compared"], *g) for g in groups) + " |")


def share(heard: list[Heard], codes: list[str], way, condition: str, length: str) -> str:
    """Of the measured half, where the spoken language has the highest score."""
    group = [h for h in heard if h.half and (h.condition, h.length) == (condition, length)]
    right = [codes[int(np.argmax(way(h)))] == h.language for h in group]
    return f"{100 * np.mean(right):.1f}" if right else "-"


def fit(heard: list[Heard], codes: list[str]) -> detect.Calibration:
    """The likeliest constants. The languages, and what is none of them, weigh the same."""
    scores = np.array([ways()["compared"](h) for h in heard])
    spoken = np.array([codes.index(h.language) if h.language in codes else len(codes) for h in heard])
    weights = 1 / np.bincount(spoken)[spoken]
    rows = np.arange(len(spoken))

    def loss(temperature: float, other: float) -> float:
        evidence = np.column_stack([scores, np.full(len(scores), other)]) / temperature
        exps = np.exp(evidence - evidence.max(axis=1, keepdims=True))
        return -float(np.sum(weights * np.log(exps[rows, spoken] / exps.sum(axis=1) + 1e-9)))

    return detect.Calibration(
        *min(((t, o) for t in TEMPERATURES for o in OTHERS), key=lambda constants: loss(*constants))
    )


def print_reliability(heard: list[Heard], unspoken: list[Heard], codes: list[str], fitted: detect.Calibration) -> None:
    """Among stated probabilities, how many are right; and what is stated of negatives."""

    def stated(h: Heard) -> tuple[float, bool]:
        if all(len(logprobs) == 1 for logprobs in h.logprobs):  # end-of-text alone: no language is told
            return 0.0, False
        scores = ways()["compared"](h)
        found = detect.probabilities(np.array([*scores, fitted.other]) / fitted.temperature)[:-1]
        return float(found.max()), codes[int(found.argmax())] == h.language

    of_speech, kinds = [stated(h) for h in heard], sorted({h.condition for h in unspoken})
    of_others = {kind: [stated(h)[0] for h in unspoken if h.condition == kind] for kind in kinds}
    print("\n| stated probability | clips | mean stated | right | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 4) + "|")
    for low, high in pairwise(BINS):
        inside = [(p, right) for p, right in of_speech if low <= p < high or p == high == 1]
        means = [f"{mean:.3f}" for mean in np.mean(inside, axis=0)] if inside else ["", ""]
        others = [str(sum(low <= p < high or p == high == 1 for p in of_others[kind])) for kind in kinds]
        print(f"| {low:g} to {high:g} | {len(inside)} | " + " | ".join([*means, *others]) + " |")


if __name__ == "__main__":
    raise SystemExit(main())
