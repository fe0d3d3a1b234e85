"""One cell of one request to a family that is answered in batches."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from cellscribe.engine.service.families.base import Item, Work
from cellscribe.engine.service.orders import Box


@dataclass(eq=False)
class CallOrder:
    """One cell of one request, as :class:`cellscribe.engine.service.orders.Order` is one to be described.

    `task` is what it is counted under.
    """

    request: Box
    cell: int
    item: Item
    work: Work
    task: str
    client: str
    deadline: float
    wants_tokens: bool = False
    arrived: float = field(default_factory=time.monotonic)
    begun: float = float("nan")
    first_token: float = float("nan")
    is_over: bool = False  # answered, lost or given up

    def is_like(self, other: CallOrder) -> bool:
        """Whether both can be answered together."""
        return self.work == other.work
