"""Work ahead of its consumer: cells are read and encoded in a thread while texts are written."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_START_SECONDS = 1.0
# How long the thread that reads cells may keep the interpreter from the one that feeds the device; 5 ms without this,
# as long as several steps.
_SWITCH_SECONDS = 2e-4


class Ahead(Generic[T]):
    """An iterator over `items`, in order, up to `count` of them taken before they are asked for.

    With 0 they are taken one by one, as asked for, and no thread runs. Otherwise one thread takes them all, so that
    what `items` does besides (keeping books of failures, for one) happens there, and is complete when this iterator
    has ended. An error of `items` is raised here once everything before it was yielded. Closing ends the thread before
    it returns, after the item in work, and closes `items`.
    """

    def __init__(self, items: Iterator[T], count: int) -> None:
        self._queue = _Queue(items, count) if count > 0 else None
        self._items = self._from_thread(self._queue) if self._queue else _plain(items)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def is_ready(self) -> bool:
        """Whether the next item (or the end) comes without waiting; without a thread there is nothing to wait for."""
        return self._queue is None or self._queue.is_ready()

    def close(self) -> None:
        """Stop taking items."""
        self._items.close()

    def _from_thread(self, queue: _Queue[T]) -> Generator[T]:
        before = sys.getswitchinterval()
        try:
            sys.setswitchinterval(min(before, _SWITCH_SECONDS))
            queue.start()
            yield from queue.taken()
        finally:
            queue.close()
            sys.setswitchinterval(before)


def _plain(items: Iterator[T]) -> Generator[T]:
    yield from items


class _Queue(Generic[T]):
    """A few items between the thread that takes them and the one that wants them."""

    def __init__(self, items: Iterator[T], count: int) -> None:
        self._items, self._count = items, count
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_closed = self._is_done = False
        self._error: BaseException | None = None
        self._thread, self._began = threading.Thread(target=self._take, name="cells ahead"), threading.Event()

    def is_ready(self) -> bool:
        with self._changed:
            return bool(self._ready) or self._is_done or not self._began.is_set()

    def start(self) -> None:
        self._thread.start()

    def taken(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._is_done)
                if not self._ready:
                    break
                item = self._ready.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        # Ctrl-C may have come between asking for the thread and its start; begun later, it ends at once.
        if self._began.wait(_START_SECONDS):
            self._thread.join()
        self._ready.clear()

    def _take(self) -> None:
        self._began.set()
        error: BaseException | None = None
        try:
            self._fill()
            if isinstance(self._items, Generator):
                self._items.close()
        except BaseException as raised:  # the consumer raises it, in order
            error = raised
        with self._changed:
            self._is_done, self._error = True, error
            self._changed.notify_all()

    def _fill(self) -> None:
        while self._has_room():
            try:
                item = next(self._items)
            except StopIteration:
                return
            with self._changed:
                self._ready.append(item)
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait for a free place; say whether anything is still wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._ready) < self._count)
            return not self._is_closed
