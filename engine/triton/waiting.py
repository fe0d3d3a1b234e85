"""Requests that wait for a slot, between the thread that takes them in and the one that works."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from cellscribe.engine.errors import BackendError
from cellscribe.engine.triton.cells import Asked
from cellscribe.engine.types import Description, Piece, Sampling


class Receiver(Protocol):
    """Who gets a text: as it grows, if it wants that, and once it is finished or lost."""

    @property
    def wants_pieces(self) -> bool:
        """Whether single tokens are worth making."""

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

    def sampling(self) -> Sampling | None:
        """Wait for a request and return its sampling; None when the room is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting[0][0].sampling if self._waiting else None

    def is_ready(self) -> bool:
        """Whether :meth:`take` returns at once."""
        with self._changed:
            return bool(self._waiting) or self._is_closed

    def take(self, sampling: Sampling, count: int) -> list[Waiting]:
        """Return up to `count` requests of one sampling from the front: none where the first one has another."""
        with self._changed:
            taken: list[Waiting] = []
            while self._waiting and len(taken) < count and self._waiting[0][0].sampling == sampling:
                taken.append(self._waiting.popleft())
            return taken

    def is_over(self, sampling: Sampling) -> bool:
        """Whether work of one sampling has to end: the room is closed and empty, or the next one has another."""
        with self._changed:
            if not self._waiting:
                return self._is_closed
            return self._waiting[0][0].sampling != sampling
