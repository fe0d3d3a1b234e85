"""A request on its way through the service: since when it is here, until when, and whether its client still is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import Receive

from cellscribe.engine.service.problems import RequestError

T = TypeVar("T")
AGAIN_S = 10  # after which another service may have begun
CUT_SHORT = "the service is shutting down, and its time to finish this was over; ask again later."
_LATE = "the deadline passed while the cells were made ready; allow more time, or ask later."


@dataclass(eq=False)
class Visit:
    """One request.

    Parameters
    ----------
    client
        Who asks.
    receive
        What the client sends; None where it cannot be watched.
    arrived, deadline
        When it came, and when it must be answered, on the monotonic clock.

    Attributes
    ----------
    is_begun
        Whether its answer is on its way.
    is_lost
        Whether it is refused after all, as the time to finish is over.
    on_lose
        Hears that it is lost; without it what is done for the request is cancelled.
    """

    client: str = "?"
    receive: Receive | None = None
    arrived: float = field(default_factory=time.monotonic)
    deadline: float = float("inf")
    is_begun: bool = field(default=False, init=False)
    is_lost: bool = field(default=False, init=False)
    on_lose: Callable[[], None] | None = field(default=None, init=False)

    def begin_again(self) -> None:
        """Count from now on, as where a large body took long to come."""
        now = time.monotonic()
        self.arrived, self.deadline = now, self.deadline + now - self.arrived

    async def bounded(self, work: asyncio.Future[T]) -> T:
        """Wait for work that is done for this request, whose body was read; it is given up where nobody needs it.

        Raises
        ------
        RequestError
            504 once the deadline has passed, 499 once the client is gone.
        """
        watching = asyncio.ensure_future(gone(self.receive)) if self.receive is not None else None
        waiting: set[asyncio.Future[Any]] = {work} if watching is None else {work, watching}
        left = None if self.deadline == float("inf") else max(0.0, self.deadline - time.monotonic())
        try:
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if watching is not None and watching.done():
                raise RequestError(499, "the client went away.")
            raise RequestError(504, _LATE)
        finally:
            for one in waiting:
                one.cancel()


class Visits:
    """The requests that are being answered; for the event loop."""

    def __init__(self) -> None:
        self._tasks: dict[Visit, asyncio.Task[Any] | None] = {}

    @contextmanager
    def one(self, visit: Visit) -> Iterator[None]:
        """Count a request in, which the running task answers."""
        self._tasks[visit] = asyncio.current_task()
        try:
            yield
        finally:
            del self._tasks[visit]

    def lose(self) -> None:
        """Let whatever is not answered be refused: waiting cells by a message, all else where it stands."""
        for visit, task in list(self._tasks.items()):
            visit.is_lost = True
            if visit.on_lose is not None:
                visit.on_lose()
            elif task is not None and not visit.is_begun:
                task.cancel()


async def gone(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


VISIT: ContextVar[Visit | None] = ContextVar("cellscribe request", default=None)


def here() -> Visit:
    """Return the request that is being answered; one that has just come where there is none."""
    return VISIT.get() or Visit()
