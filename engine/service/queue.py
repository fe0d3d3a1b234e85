"""Cells that wait for the model: so many and no more, some room for everybody, and clients take turns."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from cellscribe.engine.service.limits import granted
from cellscribe.engine.service.orders import Order
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.turns import Turns, W

_RATE_WINDOW_S = 30.0
_SHUT = "the service is shutting down; try again later."


@dataclass(eq=False)
class Hold:
    """Places that a client's cells take which wait elsewhere, `left` of them still."""

    client: str
    left: int


class Lines(Generic[W]):
    """A bounded queue of orders; safe to use from several threads.

    Clients are served in turn, and the requests of each of them in turn, a cell each: who asks for a hundred cells does
    not keep waiting who asks for one, not even behind the same key or the same proxy.

    Parameters
    ----------
    most
        Orders that may wait, of all clients together.
    share
        Part of the places that the others leave which one client may take, so that whoever comes next finds some free,
        however much one of them asks for.

    Attributes
    ----------
    why_closed
        A sentence once no more orders are taken, else "".
    """

    def __init__(self, most: int, share: float = 1.0) -> None:
        self._most, self._share = most, share
        self._turns: Turns[W] = Turns()
        self._held = 0
        self._mine: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.why_closed = ""
        self._taken: deque[float] = deque(maxlen=4_096)

    def __len__(self) -> int:
        """Cells that wait, here or where places are held for them."""
        return len(self._turns) + self._held

    @property
    def is_closed(self) -> bool:
        """Whether no more orders are taken."""
        return bool(self.why_closed)

    def put(self, orders: Sequence[W]) -> int:
        """Let the orders of one request wait, all of them or none; return how many waited already.

        Raises
        ------
        RequestError
            429 where they find no room, with the time after which there should be some; 503 once closed.
        """
        with self._changed:
            before = len(self)
            self._let_in(orders[0].client if orders else "", len(orders))
            self._turns.add(orders)
            self._changed.notify_all()
            return before

    def hold(self, client: str, count: int) -> Hold:
        """Take places for cells that wait elsewhere, until :meth:`free`; as :meth:`put` where there are none."""
        with self._changed:
            self._let_in(client, count)
            self._held += count
            return Hold(client, count)

    def free(self, hold: Hold, count: int | None = None) -> None:
        """Give up places that are held, all of them for None; more than are left is no fault."""
        with self._changed:
            gone = hold.left if count is None else min(count, hold.left)
            hold.left -= gone
            self._held -= gone
            self._leave(hold.client, gone)
            if count is not None:  # answered, and not given up
                self._taken.extend([time.monotonic()] * gone)

    def take(self, until: Callable[[], bool] | None = None, fits: Callable[[W], bool] | None = None) -> W | None:
        """Return the next order, None where there is none; with `until` wait for one, for that, or for the end.

        With `fits` it is the next that does, among those that stand first in their lines.
        """
        with self._changed:
            if until is not None:
                self._changed.wait_for(lambda: len(self._turns) or self.is_closed or until())
            order = self._turns.take(fits)
            if order is not None:
                self._leave(order.client, 1)
                self._taken.append(time.monotonic())
            return order

    def head(self) -> W | None:
        """Return the next order in turn, which stays where it is."""
        with self._changed:
            return self._turns.head()

    def discard(self, request: object) -> list[W]:
        """Take out the orders of one request that still wait, and return them."""
        with self._changed:
            return self._gone(self._turns.remove(request))

    def overdue(self, now: float) -> list[W]:
        """Take out the orders whose deadline has passed, and return them."""
        with self._changed:
            return self._gone(self._turns.overdue(now))

    def wake(self) -> None:
        """Have who waits look at its `until` again."""
        with self._changed:
            self._changed.notify_all()

    def close(self, why: str = _SHUT) -> None:
        """Take no more orders, for the reason given first; those that wait are still given out."""
        with self._changed:
            self.why_closed = self.why_closed or why
            self._changed.notify_all()

    def check(self, client: str, count: int) -> None:
        """Raise what :meth:`put` would, before cells are made ready that would find no room."""
        with self._changed:
            self._refuse(client, count)

    def _let_in(self, client: str, count: int) -> None:
        self._refuse(client, count)
        if count:
            self._mine[client] += count

    def _refuse(self, client: str, count: int) -> None:
        """Raise RequestError where there is no place for so many cells of a client."""
        if self.is_closed:
            raise RequestError(503, self.why_closed, retry_after_s=10)
        if count > self._most:
            raise RequestError(
                413, f"{count} cells are more than the {self._most} that may wait; send them in several requests.",
                "cells",
            )  # fmt: skip
        if (over := len(self) + count - self._most) > 0:
            raise RequestError(
                429,
                f"{len(self)} cells are waiting already, and {count} more do not fit the {self._most} that may; "
                "come again later, or send fewer.",
                retry_after_s=self._wait_s(over),
            )
        mine = self._mine[client]
        most = granted(self._most, len(self) - mine, self._share)
        if mine + count > most:
            raise RequestError(
                429,
                f"{mine} cells of yours and {len(self) - mine} of others are waiting, and {count} more are above the "
                f"{most} that one client may have waiting now; come again when some are answered, or send fewer.",
                retry_after_s=self._wait_s((mine + count - most) * max(1, self._turns.clients)),
            )

    def _gone(self, orders: list[W]) -> list[W]:
        for order in orders:
            self._leave(order.client, 1)
        return orders

    def _leave(self, client: str, count: int) -> None:
        self._mine[client] -= count
        if not self._mine[client]:
            del self._mine[client]

    def _wait_s(self, cells: int) -> int:
        """Return after how many seconds so many cells should be gone, by the pace of late."""
        now = time.monotonic()
        recent = [at for at in self._taken if now - at < _RATE_WINDOW_S]
        span = now - recent[0] if len(recent) > 1 else 0.0
        wait = cells * span / len(recent) if span else 1.0
        return int(min(max(wait, 1.0), 60.0) + 0.999)


class FairQueue(Lines[Order]):
    """Cells that wait to be described."""
