"""Maps of the cells of files, worked out once a file: its own, or one made of the model's vectors while texts go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import BackendError
from cellscribe.engine.service.cell_file import CellFile
from cellscribe.engine.service.places import Places, places_from, places_of
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.threads import Threads

T = TypeVar("T")
Embed = Callable[[CellFile, npt.NDArray[np.int64], str], Awaitable[npt.NDArray[np.float32]]]
_SECONDS = 10.0  # that making a map may take; cells can be picked from a list, too
_BUSY = (429, 503)  # statuses that may be others a little later


class Shared(Generic[T]):
    """Work that several wait for; it is given up once none of them does any more.

    Attributes
    ----------
    is_over
        Whether it has ended, or is given up.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        # Without the request of whoever came first, which may end before those of the others.
        self._task = asyncio.get_running_loop().create_task(work, context=Context())
        self._waiting, self.is_over = 0, False

    async def result(self) -> T:
        """Wait for it."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.is_over = True
                self._task.cancel()


class Maps:
    """What is known of the places of cells; for one event loop.

    Parameters
    ----------
    threads
        Where files are read.
    embed
        Gives the vectors [N, d] of rows of a file, for a client; NaN for those of cells that have none.
    most_cells
        Of a file that is embedded for a map.
    portion
        Cells that are embedded at a time: they wait in the queue like any others.
    """

    def __init__(self, threads: Threads, embed: Embed, most_cells: int, portion: int) -> None:
        self._threads, self._embed, self._most_cells, self._portion = threads, embed, most_cells, portion

    async def of(self, file: CellFile, client: str) -> Places | None:
        """Return the map of a file; None where there is none, or none for now."""
        if "places" in file.extras:
            found: Places | None = file.extras["places"]
            return found
        making: Shared[Places | None] | None = file.extras.get("making")
        if making is None or making.is_over:
            making = file.extras["making"] = Shared(self._worked_out(file, client))
        return await making.result()

    async def _worked_out(self, file: CellFile, client: str) -> Places | None:
        try:
            found = await self._threads.use_file(lambda: _own(file))
            if found is None and file.source.n_cells <= self._most_cells:
                async with asyncio.timeout(_SECONDS):
                    found = await self._made(file, client)
        except (BackendError, TimeoutError):
            found = None
        except RequestError as error:
            if error.status in _BUSY:
                return None
            found = None
        file.extras["places"] = found
        return found

    async def _made(self, file: CellFile, client: str) -> Places:
        rows = np.arange(file.source.n_cells)
        parts = [rows[at : at + self._portion] for at in range(0, len(rows), self._portion)]
        vectors = np.concatenate([await self._embed(file, part, client) for part in parts])
        return await self._threads.use_file(lambda: places_from(vectors))


def _own(file: CellFile) -> Places | None:
    with file.reading() as source:
        return places_of(source)
