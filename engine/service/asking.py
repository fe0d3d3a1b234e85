"""One request's cells on their way through the desk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from cellscribe.engine.service.desk import Desk
from cellscribe.engine.service.mailbox import Mailbox
from cellscribe.engine.service.orders import Done, FedCell, Happening, Lost, Order
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import FairQueue
from cellscribe.engine.types import Sampling

_HEARTBEAT_S = 10.0
_GRACE_S = 5.0  # by which the desk tells of a deadline itself


@dataclass(frozen=True)
class Wanted:
    """How the cells of a request are to be described, until when (on the monotonic clock), and for whom."""

    sampling: Sampling
    max_new_tokens: int
    top_genes: int
    deadline: float
    client: str
    wants_tokens: bool = False
    wants_weights: bool = False


class Asking:
    """Cells in the queue or in slots, and what comes of them; made in the event loop.

    Attributes
    ----------
    before
        Cells that waited already.

    Raises
    ------
    RequestError
        429 where there is no room in the queue, 503 while the service shuts down.
    """

    def __init__(self, desk: Desk, queue: FairQueue, cells: Sequence[FedCell], wanted: Wanted) -> None:
        self._desk, self._box, self.wanted, self._left = desk, Mailbox(), wanted, len(cells)
        self.before = queue.put(
            [
                Order(
                    self._box,
                    i,
                    one,
                    wanted.client,
                    wanted.deadline,
                    wanted.sampling,
                    wanted.max_new_tokens,
                    wanted.top_genes,
                    wanted.wants_tokens,
                    wanted.wants_weights,
                )
                for i, one in enumerate(cells)
            ]
        )

    async def happenings(self) -> AsyncIterator[Happening | None]:
        """Yield what happens until all cells are answered or one is lost; None where nothing did for a while."""
        while self._left:
            found = await self._box.read(_HEARTBEAT_S)
            if not found:
                if time.monotonic() > self.wanted.deadline + _GRACE_S:
                    self.leave()
                    yield Lost(0, 504, "the deadline passed; allow more time.")
                    return
                yield None
            for one in found:
                yield one
                if isinstance(one, Lost):
                    self.leave()
                    return
                self._left -= isinstance(one, Done)

    async def results(self) -> list[Done]:
        """Wait for all descriptions, and return them in the order of the cells.

        Raises
        ------
        RequestError
            504 after the deadline, 500 where the model failed.
        """
        found: dict[int, Done] = {}
        async for one in self.happenings():
            if isinstance(one, Lost):
                raise RequestError(one.status, one.message)
            if isinstance(one, Done):
                found[one.cell] = one
        return [found[i] for i in sorted(found)]

    def leave(self) -> None:
        """Give up what is not answered yet."""
        if self._left:
            self._desk.leave(self._box)
