"""What comes of a request's cells, as the event loop waits for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from cellscribe.engine.service.mailbox import Mailbox
from cellscribe.engine.service.orders import Answered, Box, Done, Happening, Lost
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import Lines
from cellscribe.engine.service.turns import W
from cellscribe.engine.service.visits import AGAIN_S, CUT_SHORT, here

D = TypeVar("D", Done, Answered)

_HEARTBEAT_S = 10.0
_GRACE_S = 5.0  # by which the desk tells of a deadline itself


def problem_of_lost(one: Lost) -> RequestError:
    """Return what a client is told of cells that come to nothing."""
    return RequestError(one.status, one.message, retry_after_s=AGAIN_S if one.status == 503 else None)


class Awaited(Generic[D]):
    """Cells in the queue or in work, and what comes of them; a base, made in the event loop.

    Parameters
    ----------
    last
        What ends a cell.
    count
        How many cells.
    deadline
        When they must be answered, on the monotonic clock.
    on_leave
        Hears of a request that is given up.

    Attributes
    ----------
    before
        Cells that waited already.

    Raises
    ------
    RequestError
        429 where there is no room in the queue, 503 while the service shuts down.
    """

    before: int

    def __init__(self, last: type[D], count: int, deadline: float, on_leave: Callable[[Box], None]) -> None:
        self._last: type[D] = last
        self._box, self._left, self._deadline, self._on_leave = Mailbox(), count, deadline, on_leave
        here().on_lose = lambda: self._box.deliver([Lost(0, 503, CUT_SHORT)])

    def _wait_in(self, queue: Lines[W], orders: Sequence[W]) -> None:
        """Let the orders of the request wait, all of them or none."""
        self.before = queue.put(orders)

    async def happenings(self) -> AsyncIterator[Happening | None]:
        """Yield what happens until all cells are answered or one is lost; None where nothing did for a while."""
        while self._left:
            found = await self._box.read(_HEARTBEAT_S)
            if not found:
                if time.monotonic() > self._deadline + _GRACE_S:
                    self.leave()
                    yield Lost(0, 504, "the deadline passed; allow more time.")
                    return
                yield None
            for one in found:
                yield one
                if isinstance(one, Lost):
                    self.leave()
                    return
                self._left -= isinstance(one, self._last)

    async def results(self) -> list[D]:
        """Wait for all answers, and return them in the order of the cells.

        Raises
        ------
        RequestError
            504 after the deadline, 500 where the model failed, 503 where the service ends before.
        """
        found: dict[int, D] = {}
        try:
            async for one in self.happenings():
                if isinstance(one, Lost):
                    raise problem_of_lost(one)
                if isinstance(one, self._last):
                    found[one.cell] = one
        finally:
            here().on_lose = None  # what is done with the answers is refused where it stands
        return [found[i] for i in sorted(found)]

    def leave(self) -> None:
        """Give up what is not answered yet."""
        if self._left:
            self._on_leave(self._box)
