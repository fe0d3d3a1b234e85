"""Orders in work at a desk of calls: who is told what, who has left, and whose time is over."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from cellscribe.engine.service.call_orders import CallOrder
from cellscribe.engine.service.metrics import Metrics
from cellscribe.engine.service.orders import Answered, Begun, Box, Happening, Lost
from cellscribe.engine.service.queue import Lines

_LOOK_S = 0.05  # how often deadlines are looked at
_WAITED = "the deadline passed while the cell waited; allow more time, or ask later."
_WORKED = "the deadline passed while the cell was worked on; allow more time."


class CallLedger:
    """For the thread that has the model; what happens is kept until :meth:`flush`.

    Attributes
    ----------
    has_leavers
        Whether a client has gone since the last look; any thread may say so.
    """

    def __init__(self, queue: Lines[CallOrder], metrics: Metrics) -> None:
        self._queue, self._metrics = queue, metrics
        self._outbox: defaultdict[Box, list[Happening]] = defaultdict(list)
        self._looked, self.has_leavers = 0.0, False

    def begin(self, order: CallOrder) -> bool:
        """Note that an order is in work; False where nobody waits for it any more."""
        if order.request.is_gone:
            self._metrics.cancelled.labels("client").inc()
            return False
        order.begun = time.monotonic()
        self._metrics.queue_seconds.observe(order.begun - order.arrived)
        self.tell(order, Begun(order.cell, order.begun - order.arrived))
        return True

    def finish(self, order: CallOrder, outcome: Any) -> None:
        """Tell what became of an order, where somebody still waits for it."""
        if not order.is_over:
            order.is_over, now = True, time.monotonic()
            self.tell(order, Answered(order.cell, outcome, order.begun - order.arrived, now - order.arrived))

    def lose(self, order: CallOrder, status: int, message: str) -> None:
        """Tell that nothing comes of an order, where somebody still waits for it."""
        if not order.is_over:
            order.is_over = True
            self.tell(order, Lost(order.cell, status, message))

    def look(self, open_orders: Iterable[CallOrder]) -> list[CallOrder]:
        """Give up what is late or no longer wanted; return which of the open orders that is."""
        now = time.monotonic()
        if not self.has_leavers and now - self._looked < _LOOK_S:
            return []
        self._looked, self.has_leavers = now, False
        for order in self._queue.overdue(now):
            self._metrics.cancelled.labels("deadline").inc()
            self.lose(order, 504, _WAITED)
        over = [one for one in open_orders if not one.is_over and (one.request.is_gone or one.deadline < now)]
        for order in over:
            self._metrics.cancelled.labels("client" if order.request.is_gone else "deadline").inc()
            if order.request.is_gone:
                order.is_over = True
            self.lose(order, 504, _WORKED)
        return over

    def tell(self, order: CallOrder, what: Happening) -> None:
        """Keep what happened to an order."""
        self._outbox[order.request].append(what)

    def flush(self) -> None:
        """Deliver what has happened."""
        if self._outbox:
            told, self._outbox = self._outbox, defaultdict(list)
            for box, happenings in told.items():
                box.deliver(happenings)
