"""Pieces of many recordings -> what is heard in them: one thread, fair turns, batches of what waits."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import chain, count, islice
from threading import Condition, Thread
from typing import NamedTuple

from .log import logger
from .models import Encoded, Heard, Piece, Recogniser


class Share:
    """A recording's share of the model. used_s: seconds of audio up to which its turns are accounted for, on a clock
    that goes with what the model is given. Compared and kept by the scheduler alone."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.is_cancelled = False


Deliver = Callable[[list[Heard] | Exception], None]


class _Work(NamedTuple):
    start_s: float  # the clock's time at which its turn comes
    number: int  # of the order of arrival
    share: Share
    piece: Piece
    is_urgent: bool
    deliver: Deliver
    taken: Callable[[], object]


class Scheduler:
    """Owns the thread that has the model."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self._waiting: list[_Work] = []  # a heap
        self._changed = Condition()
        self._numbers = count()
        self._now_s = 0.0  # the start of the piece that was taken last
        self._is_closed = False
        self.n_batches = 0
        self._thread = Thread(target=self._run, name="model")
        self._thread.start()

    def put(
        self,
        share: Share,
        piece: Piece,
        urgent: bool,
        deliver: Deliver,
        taken: Callable[[], object] = lambda: None,
    ) -> None:
        """deliver: is called once, from the model's thread, with what was heard or why it failed; pieces of one share
        in their order; not at all once the share is cancelled. With nothing for a piece that waits for its language,
        and later with that, too.  urgent: nothing that waits is decoded with it but what came before;  taken: is called
        when the piece leaves the queue for the model"""
        with self._changed:
            if share.is_cancelled:
                return
            start_s = max(self._now_s, share.used_s)
            share.used_s = start_s + piece.seconds
            heapq.heappush(self._waiting, _Work(start_s, next(self._numbers), share, piece, urgent, deliver, taken))
            self._changed.notify()

    def cancel(self, share: Share) -> None:
        """Drop what waits of it; what the model is at work on is finished, and dropped then."""
        with self._changed:
            share.is_cancelled = True
            self._waiting = [work for work in self._waiting if work.share is not share]
            heapq.heapify(self._waiting)

    @property
    def n_waiting(self) -> int:
        """Pieces that wait."""
        return len(self._waiting)

    def close(self) -> None:
        """Ends the thread, after the batch that it is at work on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._encoded_batch():
            for work, heard in zip((w for w, _ in batch), self._decoded(batch), strict=True):
                if not work.share.is_cancelled:
                    try:
                        work.deliver(heard)
                    except RuntimeError:  # the event loop is closed
                        logger.debug("nobody is there to hear it", exc_info=True)
            self.n_batches += 1

    def _encoded_batch(self) -> list[tuple[_Work, list[Encoded] | Exception]]:
        """Waits for work. Takes one piece after the other through the encoder, each the one whose turn it is by then,
        until there are enough to decode, or one is urgent, or nothing waits. Empty at the end."""
        batch: list[tuple[_Work, list[Encoded] | Exception]] = []
        n_heard = 0
        while n_heard < self._recogniser.batch_size and (work := self._next(wait=not batch)):
            try:
                encoded = self._recogniser.encode(work.piece)
            except Exception as error:
                batch.append((work, error))
            else:
                batch.append((work, encoded))
                n_heard += sum(one.piece.seconds > 0 for one in encoded)
            if work.is_urgent:
                break
        return batch

    def _next(self, wait: bool) -> _Work | None:
        with self._changed:
            while wait and not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed or not self._waiting:
                return None
            work = heapq.heappop(self._waiting)
            self._now_s = work.start_s
        work.taken()
        return work

    def _decoded(self, batch: list[tuple[_Work, list[Encoded] | Exception]]) -> list[list[Heard] | Exception]:
        """What failed in the encoder stays as it is; if a batch fails in the decoder, each piece is tried alone, with
        those that waited for it."""
        wanted = [
            [] if work.share.is_cancelled or isinstance(encoded, Exception) else encoded for work, encoded in batch
        ]
        found: list[list[Heard] | Exception]
        try:
            heard = iter(self._recogniser.decode([*chain.from_iterable(wanted)]))
            found = [[*islice(heard, len(encoded))] for encoded in wanted]
        except Exception:
            found = [*map(self._alone, wanted)]
        return [
            encoded if isinstance(encoded, Exception) else one for (_, encoded), one in zip(batch, found, strict=True)
        ]

    def _alone(self, encoded: list[Encoded]) -> list[Heard] | Exception:
        try:
            return self._recogniser.decode(encoded)
        except Exception as error:
            return error


class Cancelled(Exception):
    """The recording is not wanted any more."""
