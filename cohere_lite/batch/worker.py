"""What runs on the cluster: a pool of actors with a model each, and the count of attempts that outlives them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..audio import open_audio
from ..cli.terminal import spent_since
from ..errors import CohereLiteError, ModelError
from ..extras.formats import render_json
from ..extras.prepared import alone_in, cache_folder
from ..transcribe import Transcriber
from ..transcript import Segment, Transcript
from .inputs import Item

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_LOCKED_S = 0.2  # between two looks at whether another process has loaded its model


class Attempts:
    """How often each recording was begun and not ended, because its process died.

    Ray restarts an actor that dies, and repeats its task, without end: whoever counts must not be in that process. So
    this is an actor of its own, on the driver's node; it needs no file system that all nodes share, and sees whatever
    ends a process: a crash, the system or Ray where memory runs out, the node's end."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """One more attempt -> how many that makes."""
        self._begun[name] += 1
        return self._begun[name]

    def end(self, name: str) -> None:
        """Its process has survived it."""
        del self._begun[name]


class Recogniser:
    """An actor of the pool. A block of recordings comes in, {"item": [JSON]}, and a block of lines goes out,
    {"line": [bytes]}: paths travel, no sound."""

    def __init__(self, attempts: ActorHandle, tries: int, threads: int, settings: dict[str, Any]) -> None:
        """tries: of a recording that kills its process;  threads: as many CPUs as Ray counts for this actor.

        A model that cannot be loaded is told by the first block: what an actor raises here, Ray tells at length."""
        self._attempts, self._tries, self._settings = attempts, tries, settings
        self._failure = None
        model = settings["model"]
        loading = f"{model} in {ray.get_runtime_context().get_actor_id()}"  # which a restart keeps
        try:
            if self._begin(loading) > tries:
                raise ModelError(f"{model}: loading it killed its process {tries} times, as where memory runs out")
            with _one_at_a_time():
                # onnxruntime does not read OMP_NUM_THREADS, which is what Ray sets; and other actors have work for a
                # core that would spin
                self._transcriber = Transcriber(model, precision=settings["precision"], threads=threads, spin=False)
        except (CohereLiteError, OSError) as error:
            self._failure = f"{error}"
        self._end(loading)

    def __call__(self, block: pa.Table) -> pa.Table:
        """The lines of a block's recordings; or {"failure": [what is wrong with the model]}."""
        if self._failure is not None:
            return pa.table({"failure": [self._failure]})
        return pa.table({"line": [self._line(Item(*json.loads(item))) for item in block["item"].to_pylist()]})

    def _line(self, item: Item) -> bytes:
        if self._begin(item.id) > self._tries:
            error = f"its process died in each of {self._tries} attempts, as where memory runs out"
            found = self._rendered(item, [], error, time.monotonic())
        else:
            found = self._recognise(item)
        self._end(item.id)
        line = json.dumps({"id": item.id, **found}, ensure_ascii=False)
        return f"{line}\n".encode("utf-8", "backslashreplace")  # of names that are not UTF-8, what JSON has for them

    def _recognise(self, item: Item) -> dict[str, Any]:
        began = time.monotonic()
        segments: list[Segment] = []
        warnings: list[str] = []
        missing: list[str] = []
        language, punctuation = item.language or self._settings["language"], self._settings["punctuation"]
        try:
            with open_audio(item.path) as audio:
                missing, warnings = audio.missing, audio.warnings
                for segment in self._transcriber.segments(audio, language=language, punctuation=punctuation):
                    segments.append(segment)  # what comes before a failure is kept
            error = "; ".join(missing) or None  # as of a copy that was still under way, for a later run to try again
        except Exception as failure:
            # Any: what is wrong with one recording must not end the work on a hundred thousand.
            kind = "" if isinstance(failure, (CohereLiteError, OSError)) else f"{type(failure).__name__}: "
            error = f"{kind}{failure}"
        return self._rendered(item, segments, error, began, [*missing, *warnings])

    def _rendered(
        self,
        item: Item,
        segments: Sequence[Segment],
        error: str | None,
        began: float,
        warnings: Sequence[str] = (),
    ) -> dict[str, Any]:
        """As --format json of the command, and the error."""
        language = item.language or self._settings["language"]
        language = language if language in self._transcriber.languages else None  # to be found
        transcript = Transcript.of(segments, language, warnings=warnings, complete=error is None)
        text = render_json(transcript, file=item.path, model=self._transcriber.facts, seconds=spent_since(began))
        return {"error": error, **json.loads(text)}

    def _begin(self, name: str) -> int:
        return ray.get(self._attempts.begin.remote(name))

    def _end(self, name: str) -> None:
        ray.get(self._attempts.end.remote(name))


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of the processes of a node, one loads the model at a time. The first prepares the copy that all others then map,
    so that a node holds its weights once; at the same time, each would load the model as it is."""
    # not the cache itself, whose lock is taken to prepare a copy
    folder = None if (cache := cache_folder()) is None else cache / "loading"
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    if folder is None or not os.access(folder, os.W_OK):  # no copy can be prepared there either
        yield
        return
    while True:
        with alone_in(folder) as is_alone:
            if is_alone:
                yield
                return
        time.sleep(_LOCKED_S)


def recognised(
    groups: Sequence[Sequence[Item]], n_actors: int, threads: int, tries: int, settings: dict[str, Any]
) -> Iterator[bytes]:
    """The lines of all recordings as they come, in no order; after the death of a node, a line may come twice.

    Raises ModelError where a node cannot load the model, and what Ray raises."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # else half an hour without a line, as of a long recording, is the end
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    attempts: ActorHandle = ray.remote(num_cpus=0)(Attempts).options(scheduling_strategy=here).remote()
    blocks = [pa.table({"item": [json.dumps(item) for item in group]}) for group in groups]
    lines = ray.data.from_arrow(blocks).map_batches(
        Recogniser,
        fn_constructor_args=(attempts, tries, threads, settings),
        batch_size=None,
        batch_format="pyarrow",
        # one task at an actor: a second one would wait behind a long recording while others are idle
        compute=ray.data.ActorPoolStrategy(size=min(n_actors, len(groups)), max_tasks_in_flight_per_actor=1),
        num_cpus=threads,
    )
    # nothing is fetched ahead, for which lines that are there would wait
    for block in lines.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        if "failure" in block.column_names:
            raise ModelError(block["failure"][0].as_py())
        yield from block["line"].to_pylist()
