"""Requests that wait for a slot, between the thread that takes them in and the one that works."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from cellscribe.engine.errors import BackendError
from cellscribe.engine.triton.cells import Asked
from cellscribe.engine.types import Description, Piece


class Receiver(Protocol):
    """Who gets a text: as it grows, if it wants that, and once it is finished or lost."""

    @property
    def wants_pieces(self) -> bool:
        """Whether single tokens are worth making."""

    @property
    def has_left(self) -> bool:
        """Whether nobody wants the text any more; asked for once a token."""

    def piece(self, piece: Piece) -> None:
        """Take one token."""

    def done(self, description: Description) -> None:
        """Take the whole."""

    def lost(self, why: str) -> None:
        """Take the news that there will be no text."""


Waiting = tuple[Asked, Receiver]


class WaitingRoom:
    """Requests in the order they came, up to `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, asked: Asked, to: Receiver) -> None:
        """Take a request in; BackendError when there is no room, or the room is closed."""
        with self._changed:
            if self._is_closed:
                raise BackendError("the model is being unloaded; ask again later, or elsewhere.")
            if len(self._waiting) >= self._most:
                raise BackendError(f"{self._most} requests wait already; ask again later.")
            self._waiting.append((asked, to))
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more in; who waits is still served."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait for a request; False when the room is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return bool(self._waiting)

    def is_ready(self) -> bool:
        """Whether :meth:`wait` returns at once."""
        with self._changed:
            return bool(self._waiting) or self._is_closed

    def take(self, count: int) -> list[Waiting]:
        """Return up to `count` requests, as many as wait."""
        with self._changed:
            return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
