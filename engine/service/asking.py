"""One request's cells on their way through the desk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellscribe.engine.service.awaiting import Awaited
from cellscribe.engine.service.desk import Desk
from cellscribe.engine.service.orders import Done, FedCell, Order
from cellscribe.engine.service.queue import FairQueue
from cellscribe.engine.types import Sampling


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


class Asking(Awaited[Done]):
    """Cells that are to be described."""

    def __init__(self, desk: Desk, queue: FairQueue, cells: Sequence[FedCell], wanted: Wanted) -> None:
        super().__init__(Done, len(cells), wanted.deadline, desk.leave)
        self.wanted = wanted
        self._wait_in(
            queue,
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
            ],
        )
