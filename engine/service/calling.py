"""Bundles of the other families as a service: labels, vectors, written cells and answers to questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import InputError
from cellscribe.engine.service.call_desk import CallDesk
from cellscribe.engine.service.call_orders import CallOrder
from cellscribe.engine.service.calls import Call, Caller
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.cell_tables import table_of
from cellscribe.engine.service.families.base import Embedding, Family, Item, ReadyCells, Wish, Work
from cellscribe.engine.service.given import gene_maps
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import Lines
from cellscribe.engine.service.schemas import Cells
from cellscribe.engine.service.service import OpenModel, Service, ServiceSettings

MAX_SLOTS = 512


class CallService(Service):
    """A bundle that is called for batches: concurrent requests that are alike share them.

    Parameters
    ----------
    family
        Makes what calls the bundle, for so many slots.
    """

    queue: Lines[CallOrder]
    desk: CallDesk
    mapped_cells = 1_000

    def __init__(
        self, model: OpenModel, demo: Path, settings: ServiceSettings, family: Callable[[int], Family]
    ) -> None:
        super().__init__(model, demo, settings)
        num_slots = min(settings.num_slots, MAX_SLOTS)
        self.family = family(num_slots)
        self.queue = Lines[CallOrder](self.limits.queue_cells, self.limits.client_share)
        self.desk = CallDesk(self.family, self.queue, num_slots, self.metrics)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can be asked for."""
        return self.family.tasks

    async def read(self, body: Cells, wish: Wish) -> ReadyCells:
        """Make the cells of a request ready.

        Raises
        ------
        RequestError
            422 for cells that cannot be read, 404 for names that are not there, 413 for too many, 504 once the
            deadline has passed, 499 once the client is gone.
        InputError, UsageError
            For cells or a wish that the family refuses.
        """
        self.check_count(len(body.cells or body.cell_ids or ()))
        self.deadline(body.deadline_s)
        if body.source is not None:
            ids, source = body.cell_ids or [], body.source
            return await self.in_thread(lambda: self.of_file(self.files.get(source), ids, wish))
        return await self.in_thread(lambda: self._of_maps(body, wish))

    def call(self, items: Sequence[Item], work: Work, caller: Caller) -> Call:
        """Let cells wait for the model; RequestError 429 where there is no room, 503 while the service shuts down."""
        return Call(self.desk, self.queue, items, work, caller)

    def genes(self, file: CellFile) -> dict[str, object]:
        """Return how many genes of a file are known, how many not, and a sentence about it."""
        with file.reading() as source:
            return self.family.genes(source, file.extras)

    async def vectors(self, file: CellFile, rows: npt.NDArray[np.int64], client: str) -> npt.NDArray[np.float32]:
        """Embed cells of a file for a client, [N, d]; as :meth:`Service.vectors` for errors."""
        self.check_task("embed")
        ready = await self.threads.use_file(lambda: self._of_rows(file, rows, Embedding()))
        hold = self.queue.hold(client, len(ready.items))
        try:
            found = await asyncio.wrap_future(self._embedded(ready.items))
            self.queue.free(hold, len(ready.items))
            return np.stack(found)
        finally:
            self.queue.free(hold)

    def _embedded(self, items: Sequence[Item]) -> Future[list[npt.NDArray[np.float32]]]:
        return self.desk.beside(lambda: self.family.run(Embedding(), items, lambda done, tokens: None))

    def of_file(self, file: CellFile, cell_ids: Sequence[str] | None, wish: Wish) -> ReadyCells:
        """Read cells of a file, all of them for None."""
        wanted = np.arange(file.source.n_cells) if cell_ids is None else file.rows_of(cell_ids)
        if len(wanted) > self.limits.cells:
            raise RequestError(
                413, f"the file has {len(wanted)} cells, more than {self.limits.cells}; upload it and pick some."
            )
        rows, places = np.unique(wanted, return_inverse=True)
        ready = self._of_rows(file, rows, wish)
        return ReadyCells([ready.items[i] for i in places.tolist()], ready.work, ready.genes)

    def _of_rows(self, file: CellFile, rows: npt.NDArray[np.int64], wish: Wish) -> ReadyCells:
        with file.reading() as source:
            return self.family.read(source, rows.tolist(), wish, file.extras)

    def _of_maps(self, body: Cells, wish: Wish) -> ReadyCells:
        maps = gene_maps(body, self.limits.genes)
        with open_cells(table_of(maps, body.gene_names), values=body.values) as source:
            return self._read(source, wish)

    def _read(self, source: CellSource, wish: Wish) -> ReadyCells:
        try:
            return self.family.read(source, range(source.n_cells), wish, {})
        except InputError as error:
            raise RequestError(422, str(error), "cells") from error
