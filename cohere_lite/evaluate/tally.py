"""The lines of a run -> counts of each utterance, model by model; and another file, with the alignments.

The run's file is read line by line, and of an utterance only its counts are kept: memory does not grow with texts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from numpy.typing import NDArray

from .run import Plan, key_of, keys, read_state
from .texts import BY_CHARACTERS, WAYS, Scored, characters, scored
from .times import Starts, start_errors_ms

COUNTS = ("errors", "words", "substitutions", "deletions", "insertions", "character_errors", "characters")
SEGMENTS = ("segments", "silent", "looped", "truncated")


class Tally:
    """Of a data set under a condition. Arrays are (utterances, models), in the plan's order.

    counts:   of each way to compare texts, by the names in COUNTS;  counted: where the reference counts in that way
    done:     where there is a result;  failures: utterance -> why each model that has none has none
    seconds, time_s: of sound, of work;  segments: by the names in SEGMENTS;  tokens: a digest
    starts_ms: errors of words' starts, of each place with word times;  without_words: models that tell none
    too_short: utterances whose sound ends before their words do
    """

    def __init__(self, n_utterances: int, n_models: int) -> None:
        shape = n_utterances, n_models
        self.counts = {way: {name: np.zeros(shape, np.int64) for name in COUNTS} for way in WAYS}
        self.counted = {way: np.zeros(shape, bool) for way in WAYS}
        self.done = np.zeros(shape, bool)
        self.failures: dict[str, dict[str, str]] = {}
        self.seconds, self.time_s = np.zeros(shape), np.zeros(shape)
        self.segments = {name: np.zeros(shape, np.int64) for name in SEGMENTS}
        self.tokens = np.zeros(shape, np.int64)
        self.n_cut_short = 0
        self.starts_ms: dict[tuple[int, int], NDArray[np.float32]] = {}
        self.without_words: set[str] = set()
        self.too_short: set[str] = set()

    def used(self, way: str) -> NDArray[np.bool_]:
        """Utterances (n,) that count: models are compared on the same ones, those that all of them have a result of."""
        return np.all(self.counted[way] & self.done, axis=1)

    def add(self, place: tuple[int, int], line: dict[str, Any], compared: dict[str, Scored | None]) -> None:
        """Counts a result, or a failure."""
        if "error" in line:
            self.failures.setdefault(line["id"], {})[line["model"]] = line["error"]
            return
        self.done[place] = True
        self.seconds[place], self.time_s[place] = line["seconds"], line["time_s"]
        self.tokens[place] = hash(tuple(line["tokens"]))
        self.n_cut_short += bool(line["sound_warnings"]) and place[1] == 0
        for name, counts in self.segments.items():
            counts[place] = line[name]
        for way, found in compared.items():
            if found is not None:
                self.counted[way][place] = True
                for name, count in _counts(found, line["language"]).items():
                    self.counts[way][name][place] = count

    def add_words(self, place: tuple[int, int], line: dict[str, Any], known: Starts) -> None:
        """Compares when a result's words begin with when they do."""
        if "error" in line:
            return
        if line["words"] is None:
            self.without_words.add(line["model"])
        elif known[-1][1] >= line["seconds"]:  # they are of another recording
            self.too_short.add(line["id"])
        else:
            self.starts_ms[place] = np.array(start_errors_ms(known, line["words"]), np.float32)


def compare(line: dict[str, Any]) -> dict[str, Scored | None]:
    """The texts of a result, in each way; of languages without words between spaces, their characters."""
    if "error" in line:
        return {}
    found = {way: scored(line["reference"], line["hypothesis"], line["language"], way) for way in WAYS}
    if line["language"] in BY_CHARACTERS:
        return {
            way: None if scores is None else _in_characters(scores, line["language"]) for way, scores in found.items()
        }
    return found


def _in_characters(found: Scored, language: str) -> Scored:
    said, heard = (characters(text, language) for text in (found.reference, found.hypothesis))
    apart = jiwer.process_characters(said, heard)
    pairs = [
        (said[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx])
        for chunk in apart.alignments[0]
    ]
    return Scored(said, heard, pairs, len(said), apart.substitutions, apart.deletions, apart.insertions)


def _counts(found: Scored, language: str) -> dict[str, int]:
    said, heard = (characters(text, language) for text in (found.reference, found.hypothesis))
    apart = jiwer.process_characters(said, heard)
    errors = found.substitutions, found.deletions, found.insertions
    of_characters = apart.substitutions + apart.deletions + apart.insertions
    return dict(zip(COUNTS, (sum(errors), found.words, *errors, of_characters, len(said)), strict=True))


def tally(plan: Plan, path: Path, out: Path) -> tuple[dict[tuple[str, str], Tally], dict[str, float | None]]:
    """Reads the run's file, and writes `out`: what it holds, and the alignment in each way. Gives what is counted, by
    data and condition, and each model's largest memory in MB. Raises OSError."""
    rows = {(data.spec, u.id): i for data in plan.data for i, u in enumerate(data.utterances)}
    utterances = {(data.spec, u.id): u for data in plan.data for u in data.utterances}
    columns = {model.spec: i for i, model in enumerate(plan.models)}
    n_models = len(plan.models)
    found = {(d.spec, c.name): Tally(len(d.utterances), n_models) for d in plan.data for c in plan.conditions}
    peaks_mb: dict[str, float | None] = {}
    with open(out, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        for line in results(plan, path):
            data, condition, name, model = (line[key] for key in ("data", "condition", "id", "model"))
            utterance, place = utterances[data, name], (rows[data, name], columns[model])
            line["reference"] = utterance.reference  # the data set's texts may have been corrected since
            compared = compare(line)
            found[data, condition].add(place, line, compared)
            if utterance.word_times is not None:
                found[data, condition].add_words(place, line, utterance.word_times)
            if line.get("peak_mb"):
                peaks_mb[model] = max(peaks_mb.get(model) or 0, line["peak_mb"])
            aligned = {way: None if scores is None else scores._asdict() for way, scores in compared.items()}
            file.write(json.dumps(line | aligned, ensure_ascii=False) + "\n")
    return found, peaks_mb


def results(plan: Plan, path: Path) -> Iterator[dict[str, Any]]:
    """The results in a run's file that belong to the plan: the file may hold others, of more data or models."""
    asked = {*keys(plan)}
    for line in read_state(path):
        if "facts" not in line and key_of(line) in asked:
            yield line
