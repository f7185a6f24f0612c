"""The long part: every utterance, under every condition, through every model, and its result into a file.

The file is the state: a line is added when a result is there, and a run that goes on does what has no line yet. Models
take turns utterance by utterance, so that whatever else the machine does hurts all of them alike.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import AudioError
from ..mel import SAMPLE_RATE
from ..transcript import clock
from .errors import EvaluateError
from .models import Model, Worker, WorkerDied, open_worker
from .noise import Babble, Condition, hear
from .sound import Sound, mono, read_sound
from .utterances import Data, Utterance

# data, condition, utterance, its sound, model, language, with word times or not
Key = tuple[str, str, str, str, str, str, bool]
_KEYS = {"model", "facts", "load_s"}, {"data", "condition", "id", "model", "language"}  # of a start, of a result
_TOLD_S = 60  # how often progress is told where there is no terminal


class Plan(NamedTuple):
    """What is to be done: all of them with all of them."""

    data: Sequence[Data]
    conditions: Sequence[Condition]
    models: Sequence[Model]


@dataclass
class State:
    """The file of a run.

    done: the results that it holds, failures left out;  loads_s: of each model, how long it took to load, each time
    """

    path: Path
    done: set[Key] = field(default_factory=set)
    loads_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        """Writes a line, and takes note of it."""
        # Of a file name that is not UTF-8, "\\udcff" is what JSON has for it, too.
        with open(self.path, "a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.note(line)

    def note(self, line: dict[str, Any]) -> None:
        """Takes note of a line that is in the file."""
        if "facts" in line:
            self.loads_s.setdefault(line["model"], []).append(line["load_s"])
        elif "error" not in line:
            self.done.add(key_of(line))


def key_of(line: dict[str, Any]) -> Key:
    """Of a result. One from before sounds were told is none that a plan has."""
    of = line["data"], line["condition"], line["id"], line.get("sound", ""), line["model"], line["language"]
    return *of, line.get("timed", False)


def open_state(path: Path, models: Sequence[Model]) -> State:
    """The state that a run left, or an empty one. Raises EvaluateError for a file of something else, or of other models
    or settings; OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {model.spec: model.facts for model in models}
    state = State(path)
    for line in read_state(path):
        state.note(line)
        now = facts.get(line["model"])
        if "facts" in line and now is not None and line["facts"] != now:
            changed = ", ".join(sorted(key for key in now if line["facts"].get(key) != now[key]))
            raise EvaluateError(f"{path} holds results of {line['model']} with other {changed}: use another --out")
    with open(path, "a+b") as file:
        file.seek(0)
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(whole)  # what was being written when the process was killed is no line
    _leave_out_failures(path)
    return state


def _leave_out_failures(path: Path) -> None:
    """They are tried again: a recording may have been mended, or there is more memory."""
    rewritten = path.with_name(f"{path.name}.new")
    with open(path, "rb") as file, open(rewritten, "wb") as new:
        new.writelines(line for line in file if "error" not in json.loads(line))
    rewritten.replace(path)


def read_state(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a run's file, one after the other; none where there is no file. Raises EvaluateError."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not (isinstance(found, dict) and any(keys <= {*found} for keys in _KEYS)):
                raise EvaluateError(f"{path}, line {number}, is none of an evaluation: use another --out")
            yield found


def run(plan: Plan, state: State) -> None:
    """Does what the state lacks. Raises EvaluateError, ModelError; Ctrl-C and errors leave a state to go on from."""
    todo = {key for key in keys(plan) if key not in state.done}
    if not todo:
        return
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        stack.callback(lambda: [*map(Worker.close, workers.values())])
        needed = [model for model in plan.models if any(key[4] == model.spec for key in todo)]
        for model in needed:
            workers[model.spec] = open_worker(model, settles=len(needed) > 1)
            state.add({"model": model.spec, "facts": model.facts, "load_s": workers[model.spec].load_s})
        with _progress(len(todo)) as advance:
            for data in plan.data:
                babble = Babble(data.utterances)
                for i, utterance in enumerate(data.utterances):
                    turns = [*plan.models[i % len(plan.models) :], *plan.models[: i % len(plan.models)]]
                    waiting = {c: [m for m in turns if _key(data, c, utterance, m) in todo] for c in plan.conditions}
                    for line in _results(waiting, data, utterance, babble, workers):
                        state.add(line)
                        advance()


def keys(plan: Plan) -> Iterator[Key]:
    """Of all results of a plan."""
    for data in plan.data:
        for utterance in data.utterances:
            for condition in plan.conditions:
                for model in plan.models:
                    yield _key(data, condition, utterance, model)


def _key(data: Data, condition: Condition, utterance: Utterance, model: Model) -> Key:
    of = data.spec, condition.name, utterance.id, utterance.sound, model.spec, utterance.language
    return *of, utterance.word_times is not None


def _results(
    waiting: dict[Condition, list[Model]],
    data: Data,
    utterance: Utterance,
    babble: Babble,
    workers: dict[str, Worker],
) -> Iterator[dict[str, Any]]:
    """The lines of an utterance.  waiting: the models that have none yet, under each condition."""
    if not any(waiting.values()):
        return
    clean = _sound_or_why_not(lambda: read_sound(utterance))
    for condition, models in waiting.items():
        sound = clean
        if models and condition.kind != "clean" and isinstance(clean, Sound):
            sound = _sound_or_why_not(lambda: _heard(condition, clean, utterance, babble))  # noqa: B023 - called at once
        for model in models:
            line: dict[str, Any] = {
                **{"data": data.spec, "condition": condition.name, "id": utterance.id, "model": model.spec},
                **{"language": utterance.language, "reference": utterance.reference},
                **{"timed": utterance.word_times is not None, "sound": utterance.sound},
                **{"speaker": utterance.speaker, "recording": utterance.recording},
            }
            if isinstance(sound, str):
                yield line | {"error": sound}
                continue
            line |= {"seconds": round(sound.seconds, 3), "sound_warnings": sound.warnings}
            try:
                worker, language = workers[model.spec], utterance.language
                yield line | worker.recognise(sound.frames, sound.rate, language, line["timed"])
            except WorkerDied as error:
                yield line | {"error": str(error)}
                workers[model.spec].close()
                workers[model.spec] = open_worker(model, settles=len(workers) > 1)


def _sound_or_why_not(read: Callable[[], Sound]) -> Sound | str:
    try:
        return read()
    except (AudioError, OSError, MemoryError) as error:
        return str(error) or type(error).__name__


def _heard(condition: Condition, clean: Sound, utterance: Utterance, babble: Babble) -> Sound:
    samples = hear(condition, mono(clean), utterance, babble)
    return Sound(samples[:, None], SAMPLE_RATE, clean.warnings)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Gives what is to be called when one more is done. The time that is left is told on stderr, where that is no
    terminal in a line a minute."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    times = TextColumn("spent"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    # twice a second: to draw it takes 2 ms
    bar = Progress(*columns, *times, console=console, refresh_per_second=2, disable=not console.is_terminal)
    told_s = time.monotonic()
    with bar:
        bar.add_task("transcribing", total=total)
        (task,) = bar.tasks

        def advance() -> None:
            nonlocal told_s
            bar.advance(task.id)
            if not console.is_terminal and time.monotonic() > told_s + _TOLD_S and task.time_remaining is not None:
                told_s = time.monotonic()
                print(
                    f"{task.completed:.0f} of {total}, {clock(task.time_remaining)} left", file=console.file, flush=True
                )

        yield advance
