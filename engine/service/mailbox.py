"""How the thread that drives the model tells the requests, which wait in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import ClassVar
from weakref import WeakKeyDictionary

from cellscribe.engine.service.orders import Happening


class Round:
    """What is delivered to the mailboxes of one event loop: it is woken once for all that comes at a time.

    Every waking costs a system call, at which the thread that drives the model may lose the interpreter.
    """

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Round]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._pending, self._is_woken = loop, deque[tuple[Mailbox, list[Happening]]](), False

    @classmethod
    def here(cls) -> Round:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        return cls._of_loops.setdefault(loop, cls(loop))

    def add(self, box: Mailbox, happenings: list[Happening]) -> None:
        """Deliver; from any thread."""
        self._pending.append((box, happenings))
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who listens
                self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._is_woken = False  # before the last look: what comes after it wakes anew
        while self._pending:
            box, happenings = self._pending.popleft()
            box.take(happenings)


class Mailbox:
    """What has happened to the cells of one request; made and read in the event loop."""

    def __init__(self) -> None:
        self.is_gone = False
        self._round = Round.here()
        self._items: deque[Happening] = deque()
        self._has_some = asyncio.Event()

    def deliver(self, happenings: list[Happening]) -> None:
        """Take what happened; from any thread."""
        self._round.add(self, happenings)

    async def read(self, timeout: float | None = None) -> list[Happening]:
        """Wait for something to happen and return all that has; nothing after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._has_some.wait()
        found = list(self._items)
        self._items.clear()
        self._has_some.clear()
        return found

    def take(self, happenings: list[Happening]) -> None:
        """Take what happened, in the event loop."""
        self._items.extend(happenings)
        self._has_some.set()
