"""How far off word times are, on speech whose words' times are known: ``python -m tools.words [--sentences 60]``.

    python -m tools.words [CHECKPOINT] [--choose] [--kokoro FOLDER]

Reads     a checkpoint (default: the demonstration model's), which it exports to INT8
Measures  the error of words' starts, in ms: median, and what 95 % are within; by the heads that the checkpoint's
          generation_config.json names (alignment_heads), by those that each piece tells, and by the share of letters.
          Of words in texts that were heard rightly, in
            fluent   held-out sentences by held-out voices; espeak-ng tells when each word begins
            natural  held-out sentences by Kokoro's held-out voices, by the durations of its sounds; with --kokoro
            pause    fluent ones with a silence of 0.3 to 3 s before a word
            apart    the words spoken one by one, with silences of 20 to 400 ms; the model has not learnt such speech
          clean and in white noise, 10 dB below the speech
--choose  chooses the heads by sentences and voices of the training, and writes them into generation_config.json
Needs     libespeak-ng.so.1, and what the export needs
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cohere_lite import Segment, Transcriber
from cohere_lite.export.__main__ import export
from cohere_lite.export.align import NAME, read_alignment_heads, write_align
from cohere_lite.extras.word_times import WordTimer, token_times
from cohere_lite.extras.words import split_words

from ..demo.sentences import LANGUAGES
from .spoken import Spoken, natural, sentences, with_a_pause, words_apart

CHECKPOINT = Path(__file__).parents[1] / "demo" / "checkpoint"
SPEECH: dict[str, Callable[..., Iterator[Spoken]]] = {
    "fluent": sentences,
    "pause": with_a_pause,
    "apart": words_apart,
}
NOISES = {"clean": None, "10 dB": 10.0}
WORST_MS = 500  # an error counts no more when heads are chosen: that is another word
GAIN_MS = 0.5  # by which another head has to make the mean error smaller


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.words", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--sentences", type=int, default=60, help="of each language and kind (default: 60)")
    parser.add_argument("--kokoro", type=Path, metavar="FOLDER", help="of its files (python -m tools.demo voices)")
    parser.add_argument("--choose", action="store_true", help="choose the heads, and write them to the checkpoint")
    args = parser.parse_args(argv)
    path = args.checkpoint / NAME
    config = json.loads(path.read_bytes()) if args.choose and path.exists() else {}
    with TemporaryDirectory() as folder:
        decoder = Path(folder) / "decoder.int8.onnx"
        export(args.checkpoint, decoder.parent)
        write_align(decoder, None)
        with Transcriber(folder) as by_piece:
            if args.choose:
                config["alignment_heads"] = heads = choose(by_piece, args.sentences)
                lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in config.items()]
                path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
                print(f"{path}: alignment_heads {heads}")
                return 0
            by_piece._word_timer()  # opens it
            models = {"chosen on each piece": by_piece}
            if (table := read_alignment_heads(args.checkpoint)) is not None:
                write_align(decoder, table)
                models = {f"heads {table}": Transcriber(folder), **models}
            more = {"natural": partial(natural, kokoro=args.kokoro)} if args.kokoro else {}
            report(models, args.sentences, SPEECH | more)
    return 0


def report(models: dict[str, Transcriber], count: int, speech: dict[str, Callable[..., Iterator[Spoken]]]) -> None:
    """Prints a table."""
    names = [*models, "share of letters"]
    print(f"| words' starts, median and 95 %, ms | words | {' | '.join(names)} |")
    print("|---" * (2 + len(names)) + "|")
    for kind, speak in speech.items():
        for noise, snr_db in NOISES.items():
            for language in LANGUAGES:
                found: dict[str, list[float]] = {name: [] for name in names}
                for spoken in speak(language, count, snr_db):
                    for name, errors in errors_ms(models, spoken).items():
                        found[name] += errors
                cells = [summary(found[name]) for name in names]
                print(f"| {kind}, {noise}, {language} | {len(found[names[0]])} | {' | '.join(cells)} |", flush=True)


def summary(errors: list[float]) -> str:
    return "{:.0f}, {:.0f}".format(*np.percentile(np.abs(errors), (50, 95))) if errors else "-"


def errors_ms(models: dict[str, Transcriber], spoken: Spoken) -> dict[str, list[float]]:
    """Of words' starts, by each way of telling them; none if the text is not the spoken one."""
    errors = {}
    for name, transcriber in models.items():
        found = transcriber.transcribe(spoken.samples, rate=16000, language=spoken.language, word_times=True)
        (segment,) = found.segments
        if letters(word.text for word in segment.words or ()) != letters(spoken.words):
            return {}
        errors[name] = differences([word.start for word in segment.words or ()], spoken)
        errors["share of letters"] = differences(naive_starts(segment), spoken)
    return errors


def differences(starts: list[float], spoken: Spoken) -> list[float]:
    """In ms, of the words whose time is known."""
    return [1e3 * (found - known) for found, known in zip(starts, spoken.starts, strict=True) if known is not None]


def naive_starts(segment: Segment) -> list[float]:
    """The segment's time shared by letters, as subtitles without word times have it."""
    sizes = [len(word.text) + 1 for word in segment.words or ()]
    duration = segment.end - segment.start
    return [segment.start + duration * sum(sizes[:i]) / sum(sizes) for i in range(len(sizes))]


def letters(words: Iterable[str]) -> list[str]:
    """What makes them equal: no capitals, no marks."""
    return [re.sub(r"\W", "", word.lower()) for word in words]


def choose(transcriber: Transcriber, count: int) -> list[list[int]]:
    """The heads that make the mean error smallest, of training sentences, clean and noisy: the best one, then whatever
    makes it better with those before."""
    timer: WordTimer = transcriber._word_timer()
    model = transcriber._model
    n_heads = model.contract._heads  # type: ignore[attr-defined]
    known = []
    for language in LANGUAGES:
        prompt = model.vocabulary.prompt(language)
        for snr_db in NOISES.values():
            for spoken in sentences(language, count, snr_db, held_out=False):
                (segment,) = transcriber.transcribe(spoken.samples, rate=16000, language=language).segments
                words = split_words(model.vocabulary, segment.tokens)
                if letters(word.text for word in words) == letters(spoken.words):
                    weights = timer.attention(model.contract.encode(spoken.samples), prompt, segment.tokens)
                    known.append((weights, [int(word.first) for word in words], spoken))
    if not known:
        raise SystemExit("no sentence was heard rightly: nothing to choose heads by")

    def mean_error(heads: list[int]) -> float:
        found = [differences([*token_times(w[heads])[0][firsts]], spoken) for w, firsts, spoken in known]
        return float(np.minimum(np.abs(np.concatenate(found)), WORST_MS).mean())

    chosen: list[int] = []
    least = np.inf
    while True:
        errors = {head: mean_error([*chosen, head]) for head in range(len(known[0][0])) if head not in chosen}
        best = min(errors, key=errors.__getitem__, default=None)
        if best is None or errors[best] > least - GAIN_MS:
            return sorted([*divmod(head, n_heads)] for head in chosen)
        chosen, least = [*chosen, best], errors[best]
        print(f"{[divmod(head, n_heads) for head in chosen]}: mean error {least:.1f} ms", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
