"""The thread that drives the model: orders take slots as these come free, and leave when nobody waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing

from cellscribe.engine.backends.base import Backend, SlotPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.decode.ahead import Ahead
from cellscribe.engine.decode.described import open_slots
from cellscribe.engine.decode.scheduler import Request, Scheduler
from cellscribe.engine.errors import BackendError
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.service.encoding import ENCODE_CELLS, Encoding, Floats
from cellscribe.engine.service.ledger import Ledger
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Box, FedCell, Order
from cellscribe.engine.service.queue import FairQueue
from cellscribe.engine.types import MAX_NEW_TOKENS, Sampling

_LOG = logging.getLogger("cellscribe.service")
_LOOK_S = 0.05  # how often deadlines are looked at
_MOST_FAILURES = 3  # of the device in a row, after which no more is tried
_FAILED = "the model failed several times in a row, and no more is tried; restart the service."


class Desk:
    """Runs one bundle's slots for as long as the service lives.

    Parameters
    ----------
    backend, bundle
        What runs, on one device.
    queue
        Where orders wait.
    num_slots
        Texts in progress at a time; fewer where there is no room for so many.
    longest
        Most tokens that a cell can have.
    metrics
        What is counted and timed.

    Attributes
    ----------
    num_slots, notice
        Slots that were opened, and a sentence where they are fewer than asked for.
    is_ready
        Whether orders are answered.
    has_failed
        Whether none will be any more, as the model failed again and again.
    """

    def __init__(
        self, backend: Backend, bundle: Bundle, queue: FairQueue, num_slots: int, longest: int, metrics: Metrics
    ) -> None:
        self._backend, self._queue, self._metrics = backend, queue, metrics
        prompt = bundle.manifest.prompt
        eos_ids = frozenset(prompt.eos_token_ids if prompt else ())
        self._plan = SlotPlan(num_slots, longest, MAX_NEW_TOKENS, Sampling(), eos_ids=eos_ids, mixes=True)
        self._ledger, self._encoding = Ledger(bundle, metrics), Encoding(backend, bundle)
        self._scheduler: Scheduler | None = None
        self._looked, self._failures, self._has_leavers = 0.0, 0, False
        self._is_giving_up = False
        self.num_slots, self.notice, self.is_ready, self.has_failed = num_slots, "", False, False
        self._thread = threading.Thread(target=self._work, name="cellscribe desk", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, which comes once the queue is closed and all is answered; say whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def leave(self, box: Box) -> None:
        """Forget a request whose client is gone: its slots are free before the next step."""
        box.is_gone = True
        self._has_leavers = True
        self._metrics.cancelled.labels("client").inc(len(self._queue.discard(box)))

    def embed(self, cells: Sequence[FedCell], client: str) -> Future[Floats]:
        """Embed cells, float32 [N, d] of length 1 each, between the steps of texts.

        They take places of the queue until they are done, or the future is cancelled.

        Raises
        ------
        RequestError
            429 where there are no places for them, 503 while the service shuts down.
        """
        hold = self._queue.hold(client, len(cells))
        future = self._encoding.submit(cells, client, lambda done: self._queue.free(hold, done))
        future.add_done_callback(lambda _: self._queue.free(hold))
        self._queue.wake()
        return future

    @property
    def busy(self) -> int:
        """Slots in use."""
        return self._scheduler.busy if self._scheduler else 0

    def _work(self) -> None:
        while self._failures < _MOST_FAILURES:
            try:
                self._run()
                break
            except Exception as error:
                _LOG.exception("the model failed")
                self._failures += 1
                self._scheduler = None
                what = str(error).removesuffix(".") if isinstance(error, BackendError) else type(error).__name__
                self._ledger.fail_all(500, f"the model failed ({what}); try again.")
        else:
            self.has_failed = True
            self._queue.close(_FAILED)
        self.is_ready = False
        self._queue.close()
        self._refuse_rest()

    def _run(self) -> None:
        """Answer orders until the queue is closed and empty."""
        self._is_giving_up = False
        slots, self.num_slots, self.notice = open_slots(self._backend, self._plan)
        self._metrics.slots.set(self.num_slots)
        with closing(Ahead(self._requests(), self._backend.cells_ahead)) as ready:
            self._scheduler = Scheduler(
                slots,
                self.num_slots,
                eos_ids=self._plan.eos_ids,
                max_new_tokens=self._plan.max_new_tokens,
                is_ready=ready.is_ready,
                between=self._between,
            )
            self.is_ready = True
            try:
                for event in self._scheduler.run(self._still_wanted(ready)):
                    if event.text.is_finished:
                        self._failures = 0
                    self._ledger.tell(event)
            except BaseException:  # the thread that encodes ahead may wait for an order, and is waited for
                self._is_giving_up = True
                self._queue.wake()
                raise
        while self._encoding.has_waiting:
            self._encoding.embed_some()
        self._between()

    def _requests(self) -> Iterator[Request | None]:
        """Yield orders with their memories for as long as the queue is open; None where texts must not wait for one."""
        while not self._is_giving_up:
            if self._backend.cells_ahead:
                self._encoding.embed_some()
            first = self._queue.take(until=self._must_go_on)
            if first is not None:
                yield from self._encoded([first, *self._more()])
                if self._ledger.has_unfed:  # told of between rounds, which must not wait for the next order
                    yield None
            elif self._queue.is_closed and not self._encoding.has_waiting:
                return
            elif not self._backend.cells_ahead:
                yield None

    def _must_go_on(self) -> bool:
        """Whether there is something else to do than to wait for orders."""
        is_needed = self.busy > 0 and not self._backend.cells_ahead
        return self._encoding.has_waiting or is_needed or self._is_giving_up

    def _more(self) -> Iterator[Order]:
        for _ in range(ENCODE_CELLS - 1):
            if (order := self._queue.take()) is None:
                return
            yield order

    def _encoded(self, orders: Sequence[Order]) -> Iterator[Request]:
        wanted = {self._ledger.register(order): order for order in orders}
        for index, order in wanted.items():
            if order.fed.failure:
                self._ledger.unfed(index, order.fed.failure)
        fed = {index: order for index, order in wanted.items() if not order.fed.failure}
        if not fed:
            return
        found = self._encoding.encode([order.fed for order in fed.values()])
        for i, (index, order) in enumerate(fed.items()):
            if not found.is_finite[i]:
                self._ledger.unfed(index, "its embedding is not finite")
                continue
            mask = order.fed.mask
            memory = found.memory[i][: len(mask)]
            yield Request(index, cell_key(order.fed.cell_id), memory, mask, order.max_new_tokens, order.sampling)

    def _still_wanted(self, requests: Iterator[Request | None]) -> Iterator[Request | None]:
        """Leave out what nobody waits for any more, at the very moment of its admission."""
        for request in requests:
            if request is None or self._ledger.begin(request.index):
                yield request
            else:
                self._ledger.drop(request.index, "client")

    def _between(self) -> None:
        """Before every round: embed, send away what is late or no longer wanted, and tell what has happened."""
        self._encoding.embed_some()
        now = time.monotonic()
        if self._has_leavers or now - self._looked > _LOOK_S:
            self._looked, self._has_leavers = now, False
            self._send_away(now)
            self._metrics.slots_in_use.set(self.busy)
        self._ledger.flush()

    def _send_away(self, now: float) -> None:
        for order in self._queue.overdue(now):
            self._metrics.cancelled.labels("deadline").inc()
            self._ledger.lose(
                order, 504, "the deadline passed while the cell waited for a slot; allow more time, or ask later."
            )
        for index, order in self._ledger.open_orders():
            if order.request.is_gone:
                self._drop(index, "client")
            elif order.deadline < now:
                self._drop(index, "deadline")
                self._ledger.lose(order, 504, "the deadline passed while the text was written; allow more time.")

    def _drop(self, index: int, reason: str) -> None:
        self._ledger.drop(index, reason)
        if self._scheduler is not None:
            self._scheduler.cancel(index, reason)

    def _refuse_rest(self) -> None:
        while (order := self._queue.take()) is not None:
            self._ledger.lose(order, 503, self._queue.why_closed)
        self._encoding.refuse(BackendError(self._queue.why_closed))
        self._ledger.flush()
