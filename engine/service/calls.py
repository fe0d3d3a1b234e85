"""One request's cells on their way through the desk of calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellscribe.engine.service.awaiting import Awaited
from cellscribe.engine.service.call_desk import CallDesk
from cellscribe.engine.service.call_orders import CallOrder
from cellscribe.engine.service.families.base import Item, Work
from cellscribe.engine.service.orders import Answered
from cellscribe.engine.service.queue import Lines


@dataclass(frozen=True)
class Caller:
    """Who asks for a task, and until when (on the monotonic clock)."""

    task: str
    client: str
    deadline: float
    wants_tokens: bool = False


class Call(Awaited[Answered]):
    """Cells that a bundle of another family is called for."""

    def __init__(
        self, desk: CallDesk, queue: Lines[CallOrder], items: Sequence[Item], work: Work, caller: Caller
    ) -> None:
        super().__init__(Answered, len(items), caller.deadline, desk.leave)
        task, client, deadline, wants_tokens = caller.task, caller.client, caller.deadline, caller.wants_tokens
        self._wait_in(
            queue,
            [CallOrder(self._box, i, one, work, task, client, deadline, wants_tokens) for i, one in enumerate(items)],
        )
