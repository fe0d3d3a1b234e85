"""The thread that drives a model that is called: orders share open slots, or are answered together with their like."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from cellscribe.engine.errors import BackendError
from cellscribe.engine.service.call_ledger import CallLedger
from cellscribe.engine.service.call_orders import CallOrder
from cellscribe.engine.service.families.base import Family
from cellscribe.engine.service.lane import Lane
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Box
from cellscribe.engine.service.problems import RequestError, problem_of
from cellscribe.engine.service.queue import Lines

T = TypeVar("T")

_LOG = logging.getLogger("cellscribe.service")
_MOST_FAILURES = 3  # of the device in a row, after which no more is tried
_FAILED = "the model failed several times in a row, and no more is tried; restart the service."


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
        Most orders of a batch, or texts in open slots.
    metrics
        What is counted and timed.

    Attributes
    ----------
    is_ready
        Whether orders are answered.
    has_failed
        Whether none will be any more, as the model failed again and again.
    """

    def __init__(self, family: Family, queue: Lines[CallOrder], num_slots: int, metrics: Metrics) -> None:
        self._family, self._queue, self.num_slots, self._metrics = family, queue, num_slots, metrics
        self._ledger = CallLedger(queue, metrics)
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._batch: list[CallOrder] = []
        self._lane = Lane(family.speaker, queue, num_slots, self._ledger, metrics) if family.speaker else None
        self._left, self._tokens, self._failures = 0, 0, 0
        self.is_ready = self.has_failed = False
        self._thread = threading.Thread(target=self._work, name="cellscribe desk", daemon=True)

    @property
    def busy(self) -> int:
        """Orders in work."""
        return self._left + (self._lane.busy if self._lane else 0)

    def start(self) -> None:
        """Begin to work."""
        self._metrics.slots.set(self.num_slots)
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, which comes once the queue is closed and all is answered; say whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def leave(self, box: Box) -> None:
        """Forget a request whose client is gone: its slots are free before the next step.

        A batch that nobody else waits for ends at its next step.
        """
        box.is_gone = True
        self._ledger.has_leavers = True
        self._metrics.cancelled.labels("client").inc(len(self._queue.discard(box)))

    def beside(self, job: Callable[[], T]) -> Future[T]:
        """Let the thread that has the model do something between two batches."""
        future: Future[T] = Future()
        if self._queue.is_closed:
            raise BackendError(self._queue.why_closed)
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
        self.is_ready, self.has_failed = False, self._failures >= _MOST_FAILURES
        self._queue.close(*([_FAILED] if self.has_failed else ()))
        while (order := self._queue.take()) is not None:
            self._ledger.lose(order, 503, self._queue.why_closed)
        while self._jobs:
            job = self._jobs.popleft()[1]
            if job.set_running_or_notify_cancel():
                job.set_exception(BackendError(self._queue.why_closed))
        self._ledger.flush()

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
        """Answer an order, and those behind it that can be answered beside it."""
        try:
            if self._lane is not None and self._lane.takes(first):
                self._lane.run(first, lambda: bool(self._jobs))
            else:
                self._run(first)
            self._failures = 0
        except AbandonedError:
            pass
        except Exception as error:
            self._fail(error)
        finally:
            self._batch, self._left = [], 0
            self._ledger.flush()

    def _run(self, first: CallOrder) -> None:
        """Answer an order together with those that are like it."""
        self._batch, self._tokens = [first], 0
        while len(self._batch) < self.num_slots and (more := self._queue.take(fits=first.is_like)) is not None:
            self._batch.append(more)
        self._batch = [one for one in self._batch if self._ledger.begin(one)]
        if self._batch:
            self._tick(0, 0)
            found = self._family.run(first.work, [one.item for one in self._batch], self._tick)
            for order, outcome in zip(self._batch, found, strict=True):
                self._ledger.finish(order, outcome)

    def _tick(self, done: int, tokens: int) -> None:
        """Count, look at deadlines and who has left, and tell of it; AbandonedError where nobody waits any more."""
        self._left = len(self._batch) - done
        self._metrics.tokens.inc(max(0, tokens - self._tokens))
        self._tokens = max(tokens, self._tokens)
        self._ledger.look(self._batch)
        self._ledger.flush()
        if all(one.is_over for one in self._batch):
            raise AbandonedError

    def _fail(self, error: Exception) -> None:
        problem = problem_of(error)
        if problem.status >= 500 and not isinstance(error, RequestError):
            _LOG.error("the model failed", exc_info=error)
            self._failures += 1
        for order in [*self._batch, *(self._lane.close() if self._lane else ())]:
            self._ledger.lose(order, problem.status, problem.message)
