"""What takes long, beside the event loop, for as long as somebody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cellscribe.engine.service.visits import here

T = TypeVar("T")
_READING, _FILES = 4, 4


class Threads:
    """Two pools: files that are opened or listed take long, and must not keep the cells of requests waiting."""

    def __init__(self) -> None:
        self._reading = ThreadPoolExecutor(_READING, "cellscribe reading")
        self._files = ThreadPoolExecutor(_FILES, "cellscribe files")

    async def read(self, call: Callable[[], T]) -> T:
        """Make cells ready.

        Raises
        ------
        RequestError
            504 where the deadline of the request passes, 499 where its client leaves.
        """
        return await _bounded(self._reading, call, lambda _: None)

    async def use_file(self, call: Callable[[], T], undo: Callable[[T], object] = lambda _: None) -> T:
        """Open, list or remove a file; as :meth:`read`, and what comes too late is undone."""
        return await _bounded(self._files, call, undo)

    def close(self) -> None:
        """Begin nothing more."""
        for pool in (self._reading, self._files):
            pool.shutdown(wait=False, cancel_futures=True)


async def _bounded(pool: ThreadPoolExecutor, call: Callable[[], T], undo: Callable[[T], object]) -> T:
    future = pool.submit(call)
    try:
        return await here().bounded(asyncio.wrap_future(future))
    except BaseException:
        future.cancel()  # before anybody hears of it: the one that is awaited would do so a round of the loop later
        future.add_done_callback(lambda done: _undo(done, undo))
        raise


def _undo(done: Future[T], undo: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        undo(done.result())
