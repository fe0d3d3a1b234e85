"""How the thread that drives the model tells the requests, which wait in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from cellscribe.engine.service.orders import Happening


class Mailbox:
    """What has happened to the cells of one request; made and read in the event loop."""

    def __init__(self) -> None:
        self.is_gone = False
        self._loop = asyncio.get_running_loop()
        self._items: deque[Happening] = deque()
        self._has_some = asyncio.Event()

    def deliver(self, happenings: list[Happening]) -> None:
        """Take what happened; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who listens
            self._loop.call_soon_threadsafe(self._take, happenings)

    async def read(self, timeout: float | None = None) -> list[Happening]:
        """Wait for something to happen and return all that has; nothing after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._has_some.wait()
        found = list(self._items)
        self._items.clear()
        self._has_some.clear()
        return found

    def _take(self, happenings: list[Happening]) -> None:
        self._items.extend(happenings)
        self._has_some.set()
