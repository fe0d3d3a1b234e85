"""Whose turn it is: clients take turns, and so do the requests of each of them, an order at a time."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence, Sized
from itertools import islice
from typing import Generic, Protocol, TypeVar

_LOOKS = 16  # requests of a client that are looked at for an order that fits
_NEVER = float("inf")


class Waiting(Protocol):
    """What may wait: for whom, as part of what, and until when."""

    client: str
    deadline: float

    @property
    def request(self) -> object:
        """What the orders of a request share."""


W = TypeVar("W", bound=Waiting)
K = TypeVar("K")
L = TypeVar("L", bound=Sized)


class Turns(Generic[W]):
    """Orders of one thread, or behind somebody's lock.

    Clients behind one key or one address are one client here. A turn of theirs goes to one of their requests, so that
    none of these waits for a large one. No question looks at more than the requests; most look at one.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[int, deque[W]]] = OrderedDict()
        self._count, self._soonest = 0, _NEVER

    def __len__(self) -> int:
        return self._count

    @property
    def clients(self) -> int:
        """How many clients wait."""
        return len(self._clients)

    @property
    def requests(self) -> int:
        """How many requests wait."""
        return sum(len(requests) for requests in self._clients.values())

    def add(self, orders: Sequence[W]) -> None:
        """Let orders wait, each behind those of its request."""
        for order in orders:
            requests = self._clients.setdefault(order.client, OrderedDict())
            requests.setdefault(id(order.request), deque()).append(order)
            self._soonest = min(self._soonest, order.deadline)
        self._count += len(orders)

    def head(self) -> W | None:
        """Return the next order, which stays where it is."""
        return next((orders[0] for requests in self._clients.values() for orders in requests.values()), None)

    def take(self, fits: Callable[[W], bool] | None = None) -> W | None:
        """Take the next order out; with `fits` the next that does, among the first of requests whose turn is near."""
        found = self._next(fits)
        if found is None:
            return None
        client, key = found
        requests = self._clients[client]
        orders = requests[key]
        order = orders.popleft()
        _end_turn(requests, key)
        _end_turn(self._clients, client)
        self._count -= 1
        return order

    def remove(self, request: object) -> list[W]:
        """Take the orders of a request out."""
        for client, requests in self._clients.items():
            if (orders := requests.pop(id(request), None)) is not None:
                if not requests:
                    del self._clients[client]
                self._count -= len(orders)
                return list(orders)
        return []

    def overdue(self, now: float) -> list[W]:
        """Take the orders out whose deadline, which is that of their request, has passed."""
        if now <= self._soonest:
            return []
        firsts = [orders[0] for requests in self._clients.values() for orders in requests.values()]
        self._soonest = min((one.deadline for one in firsts if one.deadline >= now), default=_NEVER)
        return [order for one in firsts if one.deadline < now for order in self.remove(one.request)]

    def _next(self, fits: Callable[[W], bool] | None) -> tuple[str, int] | None:
        for client, requests in self._clients.items():
            for key, orders in islice(requests.items(), _LOOKS):
                if fits is None or fits(orders[0]):
                    return client, key
        return None


def _end_turn(lines: OrderedDict[K, L], key: K) -> None:
    """Put a line behind the others; it goes where nothing is left of it."""
    if lines[key]:
        lines.move_to_end(key)
    else:
        del lines[key]
