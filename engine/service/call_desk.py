"""The thread that drives a model that is called for batches: orders that are alike are answered together."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from cellscribe.engine.errors import BackendError
from cellscribe.engine.service.call_orders import CallOrder
from cellscribe.engine.service.families.base import Family
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Answered, Begun, Box, Happening, Lost
from cellscribe.engine.service.problems import RequestError, problem_of
from cellscribe.engine.service.queue import Lines

T = TypeVar("T")

_LOG = logging.getLogger("cellscribe.service")
_LOOK_S = 0.05  # how often deadlines are looked at
_MOST_FAILURES = 3  # of the device in a row, after which no more is tried
_SHUT = "the service is shutting down; try again later."
_LATE = "the deadline passed while the cell waited; allow more time, or ask later."


class AbandonedError(Exception):
    """Nobody waits for a batch any more."""


class CallDesk:
    """Runs one bundle for as long as the service lives.

    Parameters
    ----------
    family
        What is called, from one thread.
    queue
        Where orders wait.
    num_slots
        Most orders of a batch.
    metrics
        What is counted and timed.

    Attributes
    ----------
    is_ready
        Whether orders are answered.
    busy
        Orders in work.
    """

    def __init__(self, family: Family, queue: Lines[CallOrder], num_slots: int, metrics: Metrics) -> None:
        self._family, self._queue, self.num_slots, self._metrics = family, queue, num_slots, metrics
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._outbox: defaultdict[Box, list[Happening]] = defaultdict(list)
        self._batch: list[CallOrder] = []
        self._looked, self._tokens, self._failures, self._has_leavers = 0.0, 0, 0, False
        self.is_ready, self.busy = False, 0
        self._thread = threading.Thread(target=self._work, name="cellscribe desk", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._metrics.slots.set(self.num_slots)
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, which comes once the queue is closed and all is answered; say whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def leave(self, box: Box) -> None:
        """Forget a request whose client is gone; a batch that nobody else waits for ends at its next step."""
        box.is_gone = True
        self._has_leavers = True
        self._metrics.cancelled.labels("client").inc(len(self._queue.discard(box)))

    def beside(self, job: Callable[[], T]) -> Future[T]:
        """Let the thread that has the model do something between two batches."""
        future: Future[T] = Future()
        if self._queue.is_closed:
            raise BackendError(_SHUT)
        self._jobs.append((job, future))
        self._queue.wake()
        return future

    def _work(self) -> None:
        self.is_ready = True
        while self._failures < _MOST_FAILURES:
            first = self._queue.take(until=lambda: bool(self._jobs))
            if first is not None:
                self._answer(first)
            elif self._queue.is_closed:
                break
            self._do_jobs()
        self.is_ready = False
        self._queue.close()
        while (order := self._queue.take()) is not None:
            self._tell(order, Lost(order.cell, 503, _SHUT))
        while self._jobs:
            self._jobs.popleft()[1].set_exception(BackendError(_SHUT))
        self._flush()

    def _do_jobs(self) -> None:
        for _ in range(len(self._jobs)):
            job, future = self._jobs.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)

    def _answer(self, first: CallOrder) -> None:
        """Answer an order, and those beside it that are like it."""
        batch = [first]
        while len(batch) < self.num_slots and (more := self._queue.take(fits=first.is_like)) is not None:
            batch.append(more)
        self._batch, self._tokens, self._looked = [one for one in batch if self._begin(one)], 0, 0.0
        try:
            self._tick(0, 0)
            if self._batch:
                found = self._family.run(first.work, [one.item for one in self._batch], self._tick)
                self._finish(self._batch, found)
        except AbandonedError:
            pass
        except Exception as error:
            self._fail(error)
        finally:
            self._batch, self.busy = [], 0
            self._flush()

    def _begin(self, order: CallOrder) -> bool:
        """Note that an order is in work; False where nobody waits for it any more."""
        if order.request.is_gone:
            self._metrics.cancelled.labels("client").inc()
            return False
        order.begun = time.monotonic()
        self._metrics.queue_seconds.observe(order.begun - order.arrived)
        self._tell(order, Begun(order.cell, order.begun - order.arrived))
        return True

    def _tick(self, done: int, tokens: int) -> None:
        """Count, look at deadlines and who has left, and tell of it; AbandonedError where nobody waits any more."""
        self.busy = len(self._batch) - done
        self._metrics.tokens.inc(max(0, tokens - self._tokens))
        self._tokens = max(tokens, self._tokens)
        now = time.monotonic()
        if self._has_leavers or now - self._looked > _LOOK_S:
            self._looked, self._has_leavers = now, False
            self._look(now)
        self._flush()

    def _look(self, now: float) -> None:
        for order in self._queue.overdue(now):
            self._lose_late(order, _LATE)
        for order in self._batch:
            if order.is_over:
                continue
            if order.request.is_gone:
                order.is_over = True
                self._metrics.cancelled.labels("client").inc()
            elif order.deadline < now:
                self._lose_late(order, "the deadline passed while the cell was worked on; allow more time.")
        if self._batch and all(one.is_over for one in self._batch):
            raise AbandonedError

    def _finish(self, batch: Sequence[CallOrder], found: Sequence[Any]) -> None:
        self._failures = 0
        now = time.monotonic()
        for order, outcome in zip(batch, found, strict=True):
            if not order.is_over:
                self._tell(order, Answered(order.cell, outcome, order.begun - order.arrived, now - order.arrived))

    def _fail(self, error: Exception) -> None:
        problem = problem_of(error)
        if problem.status >= 500 and not isinstance(error, RequestError):
            _LOG.error("the model failed", exc_info=error)
            self._failures += 1
        for order in (one for one in self._batch if not one.is_over):
            self._tell(order, Lost(order.cell, problem.status, problem.message))

    def _lose_late(self, order: CallOrder, why: str) -> None:
        order.is_over = True
        self._metrics.cancelled.labels("deadline").inc()
        self._tell(order, Lost(order.cell, 504, why))

    def _tell(self, order: CallOrder, what: Happening) -> None:
        self._outbox[order.request].append(what)

    def _flush(self) -> None:
        if self._outbox:
            told, self._outbox = self._outbox, defaultdict(list)
            for box, happenings in told.items():
                box.deliver(happenings)
