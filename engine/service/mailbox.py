"""How the thread that drives the model tells the requests, which wait in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import ClassVar
from weakref import WeakKeyDictionary, ref

from cellscribe.engine.service.orders import Happening, Lost, Token

_MOST_BYTES = 32 << 20  # that wait for one client
_EVENT_BYTES = 1_024  # of a token with its genes, roughly
_UNREAD = "the events were not read for so long that no more are kept; read them as they come."


class Round:
    """What is delivered to the mailboxes of one event loop: it is woken once for all that comes at a time.

    Every waking costs a system call, at which the thread that drives the model may lose the interpreter.
    """

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Round]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._is_woken = ref(loop), False  # which would be kept for ever otherwise
        self._pending: deque[tuple[Mailbox, list[Happening]]] = deque()

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
            loop = self._loop()
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who listens
                if loop is not None:
                    loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._is_woken = False  # before the last look: what comes after it wakes anew
        while self._pending:
            box, happenings = self._pending.popleft()
            box.take(happenings)


class Mailbox:
    """What has happened to the cells of one request; made and read in the event loop.

    Whoever does not read is given up before too much waits: nothing but the end is kept then.

    Attributes
    ----------
    is_gone
        Nobody waits for more; the slots are freed for it.
    """

    def __init__(self) -> None:
        self.is_gone = self._is_overrun = False
        self._round = Round.here()
        self._items: deque[Happening] = deque()
        self._bytes = 0
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
        self._bytes = 0
        self._has_some.clear()
        return found

    def take(self, happenings: list[Happening]) -> None:
        """Take what happened, in the event loop."""
        if self._is_overrun:
            return
        self._items.extend(happenings)
        self._bytes += sum(_size(one) for one in happenings)
        if self._bytes > _MOST_BYTES:
            self._is_overrun = self.is_gone = True
            self._items = deque([Lost(0, 408, _UNREAD)])
        self._has_some.set()


def _size(one: Happening) -> int:
    weights = one.weights if isinstance(one, Token) else None
    return _EVENT_BYTES + (0 if weights is None else weights.nbytes)
