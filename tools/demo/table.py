"""How well the demonstration model hears: ``python -m tools.demo.table [--model FOLDER] [--data FOLDER] [--sets ...]``.

Reads   a model as `cohere_lite.Transcriber` takes it: the INT8 files as shipped, unless told otherwise.
Writes  the test sets into --data, SET/LANGUAGE/ID.wav and ID.txt; sets that are there are not made again: delete
        them when the grammar has changed.  The table in Markdown on stdout, everything else on stderr.
Needs   espeak-ng, jiwer; for the other sets what requirements.txt names, Kokoro's files (kokoro.py), and for people
        apt's tuxpaint-stamps-default and soundfile.  What is missing is left out, and said.

Every voice and every sentence here is kept from training; single words, digits and short phrases are not, but those who
say them are.
Percentages of words that are wrong (jiwer), without punctuation and case, asked for in words unless the set says so.
"""

import argparse
import re
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from random import Random
from typing import NamedTuple

import jiwer
import numpy as np

from cohere_lite import Transcriber

from .acoustics import SAMPLE_RATE, Samples, add_noise, at_peak, noise, resample, reverberate, silence, telephone
from .heldout import MARGIN, PEAK, heldout, write_recordings
from .numerals import in_words
from .sentences import LANGUAGES, Grammar, without_punctuation
from .stages import parallel
from .voices import random_voice, speak

DATA = Path("demo-table")
DEMO = Path(__file__).parents[2] / "cohere_lite" / "demo"
SENTENCES = 100  # a language
TWO, NINE = 40, 10  # recordings of two and of nine sentences, a language
PAUSE_SECONDS = (0.3, 0.8)  # between them
WORDS = {  # of the grammar's slots
    "en": ("word", "day", "month"),
    "de": ("wort", "tag", "monat"),
    "fr": ("mot", "jour", "mois"),
    "es": ("palabra", "dia", "mes"),
}
STAMPS = Path("/usr/share/tuxpaint/stamps")  # of apt's tuxpaint-stamps-default: NAME.txt, NAME_LANGUAGE.ogg, ...
SPEAKERS = {"en": ("", "_en_GB"), "de": ("_de",), "fr": ("_fr", "_desc_fr"), "es": ("_es",)}  # of the digits
PHRASES = {"en": "_desc", "fr": "_desc_fr", "es": "_desc_es"}
ROWS, IN_A_ROW, IN_A_ROW_SECONDS = 20, 3, (0.05, 0.3)  # a speaker; digits; pauses between them
EMPTY_RECORDINGS, EMPTY_SECONDS = 5, 6  # of each kind

Recordings = Iterator[tuple[Samples, str, str]]  # samples float32 (n,) at 16 kHz, what is said, id


# The conditions: one column each


def _white_noise(samples: Samples, rng: np.random.Generator) -> Samples:
    return add_noise(samples, noise("white", len(samples), rng, samples), 10)


def _room(samples: Samples, rng: np.random.Generator) -> Samples:
    return reverberate(samples, 0.5, rng)


CONDITIONS: dict[str, Callable[[Samples, np.random.Generator], Samples]] = {
    "clean": lambda samples, rng: samples,
    "white noise, 10 dB": _white_noise,
    "room, 0.5 s": _room,
    "telephone": lambda samples, rng: telephone(samples),
}


# The sets: one row each


def _variants(language: str, kokoro: Path) -> Recordings:
    return heldout(language, SENTENCES)


def _written(language: str, kokoro: Path) -> Recordings:
    """The same with their numbers in digits."""
    texts = Grammar(language).held_out_texts(SENTENCES, Random(f"held out {language}"))
    for (samples, spoken, name), text in zip(heldout(language, SENTENCES), texts, strict=True):
        assert text.spoken == spoken
        yield samples, text.written, name


def _synthesiser(name: str, **voice: str) -> Callable[[str, Path], Recordings]:
    """Held-out sentences, other ones than those of espeak-ng; voice: what is not left to chance."""

    def recordings(language: str, kokoro: Path) -> Recordings:
        rng = Random(f"{name} {language}")
        for i, text in enumerate(Grammar(language).held_out_texts(SENTENCES, rng)):
            drawn = random_voice(name, language, rng, held_out=True) | voice
            yield _recorded([speak(name, text.spoken, drawn, kokoro)], rng), text.spoken, f"{language}-{i:03}"

    return recordings


def _in_one(sentences: int, count: int) -> Callable[[str, Path], Recordings]:
    """Several sentences of one speaker, of espeak-ng and of Kokoro in turn, with pauses between them."""

    def recordings(language: str, kokoro: Path) -> Recordings:
        rng = Random(f"{sentences} {language}")
        texts = [text.spoken for text in Grammar(language).held_out_texts(sentences * count, rng)]
        for i in range(count):
            name = ("espeak", "kokoro")[i % 2]
            voice, said = random_voice(name, language, rng, held_out=True), texts[i::count]
            parts = [speak(name, text, voice, kokoro) for text in said]
            yield _recorded(parts, rng), " ".join(said), f"{language}-{i:03}"

    return recordings


def _words(language: str, kokoro: Path) -> Recordings:
    """Each number from 0 to 20 and each single word once by espeak-ng and once by Kokoro."""
    rng, slots = Random(f"words {language}"), Grammar(language).slots
    words = [in_words(number, language) for number in range(21)]
    words += [word for slot in WORDS[language] for word in slots[slot] if " " not in word]
    for i, word in enumerate(dict.fromkeys(words)):
        for name in ("espeak", "kokoro"):
            text = word.capitalize() + "."
            samples = speak(name, text, random_voice(name, language, rng, held_out=True), kokoro)
            yield _recorded([samples], rng), text, f"{language}-{i:03}-{name}"


def _digits(language: str, kokoro: Path) -> Recordings:
    for speaker, paths in _digit_paths(language).items():
        for digit, path in enumerate(paths):
            text = in_words(digit, language).capitalize() + "."
            yield at_peak(_read_stamp(path), PEAK), text, f"{language}{speaker}-{digit}"


def _digits_in_a_row(language: str, kokoro: Path) -> Recordings:
    """Digits of one speaker, one after the other."""
    rng = Random(f"row {language}")
    for speaker, paths in _digit_paths(language).items():
        spoken = [_trimmed(_read_stamp(path)) for path in paths]
        for i in range(ROWS):
            row = rng.choices(range(10), k=IN_A_ROW)
            text = " ".join(in_words(digit, language) for digit in row).capitalize() + "."
            yield (
                _recorded([spoken[digit] for digit in row], rng, IN_A_ROW_SECONDS),
                text,
                f"{language}{speaker}-{i:03}",
            )


def _phrases(language: str, kokoro: Path) -> Recordings:
    """Those of whose words the grammar has every one, though not in this order: "a dog". There are none in German."""
    words, ending = _vocabulary(language), PHRASES[language]
    for path in sorted(_stamps().rglob(f"*{ending}.ogg")):
        text = _stamp_text(path.with_name(path.name.removesuffix(f"{ending}.ogg") + ".txt"), language)
        said = _words_of(text)
        if said and words.issuperset(said) and not path.stem[0].isdigit():
            name = "-".join(path.relative_to(STAMPS).with_suffix("").parts)
            yield at_peak(_read_stamp(path), PEAK), text, f"{language}-{name}"


def _digit_paths(language: str) -> dict[str, list[Path]]:
    folder = _stamps() / "symbols" / "math"
    return {speaker: [folder / f"{digit}{speaker}.ogg" for digit in range(10)] for speaker in SPEAKERS[language]}


def _stamps() -> Path:
    if not STAMPS.exists():
        raise FileNotFoundError(f"{STAMPS} is missing: apt install tuxpaint-stamps-default")
    return STAMPS


def _vocabulary(language: str) -> set[str]:
    grammar = Grammar(language)
    values = [value for values in grammar.slots.values() for value in values]
    lines = [re.sub(r"{[^{}]*}", " ", line) for line in grammar.lines + grammar.short_lines + values]
    lines = [re.sub(r"\[([^][|]*)\|[^][|]*\]", r"\1", line) for line in lines]
    return {word for line in [*lines, *(in_words(n, language) for n in range(100))] for word in _words_of(line)}


def _words_of(text: str) -> list[str]:
    return without_punctuation(text).split()


def _stamp_text(path: Path, language: str) -> str:
    """English is the first line of the file, the others are LANGUAGE.utf8=TEXT; "" if there is none."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    if language == "en":
        return lines[0] if lines else ""
    return next((line.split("=", 1)[1] for line in lines if line.startswith(f"{language}.utf8=")), "")


def _read_stamp(path: Path) -> Samples:
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(samples.mean(axis=1), rate)


def _trimmed(samples: Samples) -> Samples:
    """Without the silence at both ends; 50 ms are left of it."""
    loud = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
    return at_peak(samples[max(0, loud[0] - SAMPLE_RATE // 20) : loud[-1] + SAMPLE_RATE // 20], PEAK)


def _recorded(parts: list[Samples], rng: Random, pause_seconds: tuple[float, float] = PAUSE_SECONDS) -> Samples:
    """One recording, with pauses between the parts."""
    pieces = [silence(MARGIN)]
    for part in parts:
        pieces += [part, silence(rng.uniform(*pause_seconds))]
    return at_peak(np.concatenate([*pieces[:-1], silence(MARGIN)]), PEAK)


def _no_speech(language: str, kokoro: Path) -> Recordings:
    """Everything that has to come out as nothing."""
    rng = np.random.default_rng(1)
    n = EMPTY_SECONDS * SAMPLE_RATE
    seconds = np.arange(n) / SAMPLE_RATE
    for i in range(EMPTY_RECORDINGS):
        quieter = 10 ** (-i * 10 / 20)  # each by 10 dB
        beep = np.sin(2 * np.pi * 1000 * seconds) * (seconds * 2 % 1 < 0.5)  # 1 kHz, at 2 Hz
        mains = sum(np.sin(2 * np.pi * 50 * k * seconds) / k for k in (1, 2, 3, 5))
        kinds = {"silence": np.zeros(n), "beep": beep, "hum": mains, "music": _tune(seconds, rng)}
        kinds |= {kind: noise(kind, n, rng, silence(1)) for kind in ("white", "pink", "brown")}
        for kind, samples in kinds.items():
            yield at_peak(np.asarray(samples, np.float32), 0.5 * quieter), "", f"{kind}-{i}"


def _tune(seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A chord of plucked strings every half second."""
    hertz = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11], (len(seconds) * 2 // SAMPLE_RATE + 1, 3)) / 12)
    since = seconds % 0.5
    chord = hertz[(seconds * 2).astype(int)].T
    return sum(np.exp(-since * 4 * k) * np.sin(2 * np.pi * k * chord * since).sum(axis=0) / k for k in (1, 2, 3, 4))


class Set(NamedTuple):
    """make: (language, Kokoro's folder) -> recordings;  itn: numbers are asked for in digits."""

    title: str
    target: str
    languages: tuple[str, ...]
    make: Callable[[str, Path], Recordings]
    itn: bool = False


SETS = {
    "espeak": Set("espeak-ng's held-out voices", "<= 3", LANGUAGES, _variants),
    "itn": Set("the same, numbers in digits (`--itn`)", "", LANGUAGES, _written, itn=True),
    "flite-slt": Set("flite slt", "<= 6", ("en",), _synthesiser("flite", voice="slt")),
    "festival-slt": Set("festival slt", "<= 6", ("en",), _synthesiser("festival", voice="cmu_us_slt_arctic_hts")),
    "festival-ked": Set("festival ked", "", ("en",), _synthesiser("festival", voice="ked_diphone")),
    "piper-joe": Set("Piper joe", "<= 6", ("en",), _synthesiser("piper")),
    "natural": Set("Kokoro's held-out voices", "<= 6 en, <= 10", LANGUAGES, _synthesiser("kokoro")),
    "two": Set("two sentences in one recording", "<= 5", LANGUAGES, _in_one(2, TWO)),
    "nine": Set("nine sentences in one recording", "<= 10", LANGUAGES, _in_one(9, NINE)),
    "words": Set("single words and numbers 0-20", "<= 5", LANGUAGES, _words),
    "people-digits": Set("people: digits", "<= 10 en, <= 20", LANGUAGES, _digits),
    "people-rows": Set(f"people: {IN_A_ROW} digits in a row", "<= 10 en, <= 20", LANGUAGES, _digits_in_a_row),
    "people-phrases": Set("people: short phrases of known words", "<= 10 en, <= 20", tuple(PHRASES), _phrases),
    "no-speech": Set("silence, noise, music, hum, beeps: empty texts", "100", ("en",), _no_speech),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo.table", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEMO, help="folder (default: the embedded model)")
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of the test sets (default: {DATA})")
    parser.add_argument("--kokoro", type=Path, default=Path("kokoro"), help="folder of its files (default: kokoro)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="NAME", help=", ".join(SETS))
    args = parser.parse_args()
    with redirect_stdout(sys.stderr):
        left_out = make(args.sets, args.data, args.kokoro)
    print(table(Transcriber(args.model), args.data, [name for name in args.sets if name not in left_out]))


def make(names: list[str], data: Path, kokoro: Path) -> dict[str, str]:
    """Make the sets that are not there; those that could not be made, and why."""
    jobs = [(name, language, data, kokoro) for name in names for language in SETS[name].languages]
    jobs = [job for job in jobs if not (data / job[0] / job[1]).exists()]
    said = parallel(make_one, jobs, "test sets", [f"{name} {language}" for name, language, *_ in jobs])
    left_out = {name: reason for (name, *_), reason in zip(jobs, said, strict=True) if reason}
    for name, reason in left_out.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    return left_out


def make_one(name: str, language: str, data: Path, kokoro: Path) -> str | None:
    """One language of a set; the reason if what it needs is missing, or fails."""
    folder, part = data / name / language, data / name / f"{language}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a run that was interrupted
    try:
        write_recordings(SETS[name].make(language, kokoro), part)
    except (ImportError, FileNotFoundError, RuntimeError) as error:
        return str(error)
    part.rename(folder)
    return None


def table(transcriber: Transcriber, data: Path, names: list[str]) -> str:
    """The figures of the sets, in Markdown: one row a set, one column a condition; in a cell one figure a language."""
    rows = [["test, percent", "target", *CONDITIONS], ["---"] * (2 + len(CONDITIONS))]
    for name in names:
        languages = SETS[name].languages
        row = [f"{SETS[name].title} ({'/'.join(languages)})" if name != "no-speech" else SETS[name].title]
        row.append(SETS[name].target)
        for condition in CONDITIONS if name != "no-speech" else ["clean"]:
            figures = [figure(transcriber, data, name, language, condition) for language in languages]
            row.append(" / ".join(f"{value:.1f}" for value in figures))
            print(f"{name}, {condition}: {row[-1]}", file=sys.stderr, flush=True)
        rows.append(row + [""] * (2 + len(CONDITIONS) - len(row)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def figure(transcriber: Transcriber, data: Path, name: str, language: str, condition: str) -> float:
    """Percent of the words that are wrong; of recordings without speech, percent of the texts that are empty."""
    said, heard = [], []
    for i, path in enumerate(sorted((data / name / language).glob("*.wav"))):
        samples = CONDITIONS[condition](_read_wav(path), np.random.default_rng(i))
        text = transcriber.transcribe(samples, rate=SAMPLE_RATE, language=language, itn=SETS[name].itn)
        heard.append(without_punctuation(text.text))
        said.append(without_punctuation(path.with_suffix(".txt").read_text("utf-8")))
    if name == "no-speech":
        return 100 * heard.count("") / len(heard)
    return 100 * jiwer.wer(said, heard)


def _read_wav(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)


if __name__ == "__main__":
    main()
