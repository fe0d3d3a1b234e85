"""Cells that wait for a slot: so many and no more, and clients take turns."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from cellscribe.engine.service.orders import Order
from cellscribe.engine.service.problems import RequestError

_RATE_WINDOW_S = 30.0
_SHUT = "the service is shutting down; try again later."


class Waiting(Protocol):
    """What may wait: for whom, as part of what, and until when."""

    client: str
    deadline: float

    @property
    def request(self) -> object:
        """What the orders of a request share."""


W = TypeVar("W", bound=Waiting)


class Lines(Generic[W]):
    """A bounded queue of orders; safe to use from several threads.

    Each client has a line of its own, and the lines are served in turn, a cell each: who asks for a hundred cells does
    not keep waiting who asks for one.

    Parameters
    ----------
    most
        Orders that may wait, of all clients together.

    Attributes
    ----------
    why_closed
        A sentence once no more orders are taken, else "".
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: OrderedDict[str, deque[W]] = OrderedDict()
        self._count = 0
        self._changed = threading.Condition()
        self.why_closed = ""
        self._taken: deque[float] = deque(maxlen=4_096)

    def __len__(self) -> int:
        return self._count

    @property
    def is_closed(self) -> bool:
        """Whether no more orders are taken."""
        return bool(self.why_closed)

    def put(self, orders: Sequence[W]) -> int:
        """Let the orders of one request wait, all of them or none; return how many wait before the first.

        Raises
        ------
        RequestError
            429 where they find no room, with the time after which there should be some; 503 once closed.
        """
        with self._changed:
            if self.is_closed:
                raise RequestError(503, self.why_closed, retry_after_s=10)
            if self._count + len(orders) > self._most:
                self._refuse(len(orders))
            before = self._count
            for order in orders:
                self._lines.setdefault(order.client, deque()).append(order)
            self._count += len(orders)
            self._changed.notify_all()
            return before

    def take(self, until: Callable[[], bool] | None = None, fits: Callable[[W], bool] | None = None) -> W | None:
        """Return the next order, None where there is none; with `until` wait for one, for that, or for the end.

        With `fits` it is the next that does, among those that stand first in their lines.
        """
        with self._changed:
            if until is not None:
                self._changed.wait_for(lambda: self._count or self.is_closed or until())
            client = next((one for one, line in self._lines.items() if fits is None or fits(line[0])), None)
            if client is None:
                return None
            line = self._lines[client]
            order = line.popleft()
            self._count -= 1
            del self._lines[client]
            if line:
                self._lines[client] = line  # behind the others
            self._taken.append(time.monotonic())
            return order

    def head(self) -> W | None:
        """Return the next order in turn, which stays where it is."""
        with self._changed:
            return next((line[0] for line in self._lines.values()), None)

    def discard(self, request: object) -> list[W]:
        """Take out the orders of one request that still wait, and return them."""
        with self._changed:
            gone: list[W] = []
            for client, line in list(self._lines.items()):
                mine = [one for one in line if one.request is request]
                if not mine:
                    continue
                gone += mine
                kept = deque(one for one in line if one.request is not request)
                if kept:
                    self._lines[client] = kept
                else:
                    del self._lines[client]
            self._count -= len(gone)
            return gone

    def overdue(self, now: float) -> list[W]:
        """Take out the orders whose deadline has passed, and return them."""
        with self._changed:
            late = {id(one.request): one.request for line in self._lines.values() for one in line if one.deadline < now}
        return [order for request in late.values() for order in self.discard(request)]

    def wake(self) -> None:
        """Have who waits look at its `until` again."""
        with self._changed:
            self._changed.notify_all()

    def close(self, why: str = _SHUT) -> None:
        """Take no more orders, for the reason given first; those that wait are still given out."""
        with self._changed:
            self.why_closed = self.why_closed or why
            self._changed.notify_all()

    def _refuse(self, count: int) -> None:
        if count > self._most:
            raise RequestError(
                413, f"{count} cells are more than the {self._most} that may wait; send them in several requests.",
                "cells",
            )  # fmt: skip
        now = time.monotonic()
        recent = [at for at in self._taken if now - at < _RATE_WINDOW_S]
        span = now - recent[0] if len(recent) > 1 else 0.0
        over = self._count + count - self._most
        wait = over * span / len(recent) if span else 1.0
        raise RequestError(
            429,
            f"{self._count} cells are waiting already, and {count} more do not fit the {self._most} that may; "
            "come again later, or send fewer.",
            retry_after_s=int(min(max(wait, 1.0), 60.0) + 0.999),
        )


class FairQueue(Lines[Order]):
    """Cells that wait to be described."""
