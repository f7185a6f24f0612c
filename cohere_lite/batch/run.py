"""From the recordings to the last line: what is not done yet, on the cluster, into the journal, with progress."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray

from ..cli.terminal import _terminal_columns, is_terminal, spent_since
from ..errors import OptionError
from ..extras.formats import one_line
from ..extras.prepared import alone_in
from ..model import find_model
from ..transcript import clock
from .inputs import Item, find_items, in_groups
from .journal import Journal
from .worker import recognised

_STORE_BYTES = 100_000_000  # of Ray's object store on this machine: paths and texts take little
_SHOWN_S, _TOLD_S = 1, 60  # how often progress is told: on a terminal, elsewhere
_CONNECT_S = 10
_SUMMARY = "summary.json"


class Plan(NamedTuple):
    """What is to be done, and how.

    names:    see find_items;  out: the folder of the journal;  as_table: parquet beside it, at the end
    settings: model (a folder, a name on the hub, or None), precision, language, punctuation: what transcripts depend on
    address:  of a running cluster; None for one on this machine, for as long as the work takes
    actors:   None for as many as the cluster has room for;  threads: of each;  tries: see Recogniser
    """

    names: Sequence[str]
    out: Path
    as_table: bool
    settings: dict[str, Any]
    address: str | None
    actors: int | None
    threads: int
    tries: int


@dataclass
class Summary:
    """Of this run. recordings: that were named, each once;  named_again: how often one was;  before: done by earlier
    runs;  audio_s, work_s: of all lines of this run, seconds of audio and of an actor's work;  seconds: from the first
    recording's start"""

    recordings: int
    named_again: int
    before: int
    done: int = 0
    failed: int = 0
    audio_s: float = 0.0
    work_s: float = 0.0
    seconds: float = 0.0

    def count(self, line: dict[str, Any]) -> None:
        """One more line."""
        self.done += line["error"] is None
        self.failed += line["error"] is not None
        self.audio_s += line["duration"]
        self.work_s += line["timing"]["seconds"]

    def __str__(self) -> str:
        failed = f" ({self.failed} failed)" if self.failed else ""
        before = f", {self.before} before" if self.before else ""
        again = f", {self.named_again} named again" if self.named_again else ""
        speed = f"{self.audio_s / max(self.seconds, 1e-3):.1f}x real time"
        n_now = self.done + self.failed
        return (
            f"{n_now} of {self.recordings} recordings{failed}{before}{again}, {clock(self.audio_s)} of audio, {speed}"
        )


def run(plan: Plan) -> Summary:
    """Does what the journal lacks, and says so on stderr. Ctrl-C and errors leave a journal to go on from.

    Raises OptionError, ModelError, OSError, and Ray's errors."""
    items, n_again = find_items(plan.names)
    _check(plan, items)
    plan.out.mkdir(parents=True, exist_ok=True)
    with alone_in(plan.out) as is_alone:
        if not is_alone:
            raise OptionError(f"another batch is at work in {plan.out}: wait for it, or use another --out")
        journal = Journal(plan.out, plan.settings, {item.id for item in items})
        todo = [item for item in items if item.id not in journal.done]
        summary = Summary(len(items), n_again, before=len(items) - len(todo))
        try:
            if todo:
                _work(plan, todo, journal, summary)
        finally:
            has_begun = summary.done or summary.failed or not todo
            if has_begun:
                print(summary, file=sys.stderr)  # first: on a full disk the rest fails
            journal.close()
            if has_begun:
                (plan.out / _SUMMARY).write_text(json.dumps(asdict(summary), indent=1), encoding="utf-8")
        if plan.as_table:
            journal.write_table()
    return summary


def _check(plan: Plan, items: Sequence[Item]) -> None:
    """Raises ModelError, OptionError: what would make every recording fail is said before the work begins."""
    known = find_model(plan.settings["model"], plan.settings["precision"], on_cpu=True).vocabulary.languages
    asked = {item.language or plan.settings["language"] for item in items} - {"auto"}
    for language in sorted(asked):
        for code in language.split(","):
            if code in ("", "auto"):  # as in extras/detect.py
                raise OptionError(f'language is {language!r}; it must be a code, "auto" alone or several, as "en,de"')
            if code not in known:
                raise OptionError(f"the language {code} is asked for; this model knows {', '.join(known)}")


def _work(plan: Plan, todo: Sequence[Item], journal: Journal, summary: Summary) -> None:
    sizes = {item.id: item.n_bytes for item in todo}
    with _cluster(plan.address), _progress(summary, sum(sizes.values())) as tell:
        n_cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        if plan.threads > max(n_cpus):  # Ray would wait for a node with more, without a word
            raise OptionError(f"--threads {plan.threads} is more than the {max(n_cpus)} CPUs of the largest node")
        n_actors = plan.actors or sum(n // plan.threads for n in n_cpus)
        groups = in_groups(todo, n_actors)
        for text in recognised(groups, n_actors, plan.threads, plan.tries, plan.settings):
            line = json.loads(text)
            if journal.add(text, line["id"]):
                summary.count(line)
                tell(sizes[line["id"]])


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Ray, as long as this block; quiet, and without its dashboard."""
    local = {} if address else {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        if address:
            _check_address(address)
        at_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:  # as of another version of Ray or Python
            # as clusters do that `ray start` began, as of Ray 2.60; its clients send it only when they are told to
            token = "" if "RAY_AUTH_MODE" in os.environ else "; if it wants a token, set RAY_AUTH_MODE=token"
            raise ConnectionError(one_line(f"{error}") + (token if address else "")) from error
        signal.signal(signal.SIGTERM, at_sigterm)  # Ray's own handlers end the process, with a dump of its stack
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raises OptionError where nobody listens: Ray would go on trying without a word."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except OSError as error:
            raise OptionError(f"--address {address}: no cluster is there ({error})") from error


@contextmanager
def _progress(summary: Summary, total: int) -> Iterator[Callable[[int], None]]:
    """What is to be called for each line, with the recording's bytes: on a terminal a line that changes, else one a
    minute. total: bytes"""
    began = told = time.monotonic()
    shown = is_terminal(sys.stderr)
    done = 0

    def tell(n_bytes: int) -> None:
        nonlocal done, told
        done += n_bytes
        summary.seconds = spent_since(began)
        if time.monotonic() - told >= (_SHOWN_S if shown else _TOLD_S):
            told = time.monotonic()
            left = f", {clock(summary.seconds * (total - done) / done)} left" if done else ""
            show(f"{summary}{left}")

    def show(text: str) -> None:
        columns = _terminal_columns() - 1  # what runs into a second row could not be written over
        print(f"\r{text[:columns]:{columns}}\r" if shown else f"{text}\n", file=sys.stderr, end="", flush=True)

    try:
        yield tell
    finally:
        summary.seconds = spent_since(began)
        if shown:
            show("")
