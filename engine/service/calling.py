"""Bundles of the other families as a service: labels, vectors, written cells and answers to questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.engine.cells import CellSource, open_cells
from cellscribe.engine.errors import BackendError, InputError
from cellscribe.engine.service.call_desk import CallDesk
from cellscribe.engine.service.call_orders import CallOrder
from cellscribe.engine.service.calls import Call, Caller
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.cell_tables import table_of
from cellscribe.engine.service.families.base import Embedding, Family, Item, ReadyCells, Wish, Work
from cellscribe.engine.service.given import gene_maps
from cellscribe.engine.service.places import Places, places_from, places_of
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import Lines
from cellscribe.engine.service.schemas import Cells
from cellscribe.engine.service.service import OpenModel, Service, ServiceSettings

_MAPPED_CELLS = 1_000  # of a file without a map of its own that are embedded for one
_MAP_SECONDS = 10.0  # that this may take

MAX_SLOTS = 512


class CallService(Service):
    """A bundle that is called for batches: concurrent requests that are alike share them.

    Parameters
    ----------
    family
        Makes what calls the bundle, for so many slots.
    """

    def __init__(
        self, model: OpenModel, demo: Path, settings: ServiceSettings, family: Callable[[int], Family]
    ) -> None:
        super().__init__(model, demo, settings)
        num_slots = min(settings.num_slots, MAX_SLOTS)
        self.family, self.queue = family(num_slots), Lines[CallOrder](self.limits.queue_cells)
        self.desk = CallDesk(self.family, self.queue, num_slots, self.metrics)
        self.metrics.queue.set_function(lambda: len(self.queue))
        self.metrics.slots_in_use.set_function(lambda: self.desk.busy)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can be asked for."""
        return self.family.tasks

    @property
    def num_slots(self) -> int:
        """Texts (or cells) in work at a time."""
        return self.desk.num_slots

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self.desk.is_ready and not self.queue.is_closed

    def start(self) -> None:
        """Begin to answer."""
        self.desk.start()

    def drain(self, timeout_s: float) -> bool:
        """Take nothing new and finish what was begun; say whether that came to its end in time."""
        self.shut()
        return self.desk.join(timeout_s)

    def shut(self) -> None:
        """Take nothing new from now on; what waits is still answered."""
        super().shut()
        self.queue.close()

    async def read(self, body: Cells, wish: Wish) -> ReadyCells:
        """Make the cells of a request ready.

        Raises
        ------
        RequestError
            422 for cells that cannot be read, 404 for names that are not there, 413 for too many.
        InputError, UsageError
            For cells or a wish that the family refuses.
        """
        count = len(body.cells or body.cell_ids or ())
        if count > self.limits.cells:
            raise RequestError(
                413, f"{count} cells are more than {self.limits.cells}; send them in several requests.", "cells"
            )
        if body.source is not None:
            ids, source = body.cell_ids or [], body.source
            return await self.in_thread(lambda: self.of_file(self.files.get(source), ids, wish))
        return await self.in_thread(lambda: self._of_maps(body, wish))

    def call(self, items: Sequence[Item], work: Work, caller: Caller) -> Call:
        """Let cells wait for the model; RequestError 429 where there is no room, 503 while the service shuts down."""
        return Call(self.desk, self.queue, items, work, caller)

    def listing(self, file: CellFile, column: str | None, is_local: bool = False) -> dict[str, Any]:
        """Return what a client needs to pick cells of a file."""
        with file.lock:
            if "places" not in file.extras:
                file.extras["places"] = places_of(file.source)
        if file.extras["places"] is None and "embed" in self.tasks and "mapped" not in file.extras:
            file.extras["mapped"] = True
            file.extras["places"] = self._made_places(file)
        with file.lock:
            genes = self.family.genes(file.source, file.extras)
        return file.listing(column, file.extras["places"], genes, is_local)

    def of_file(self, file: CellFile, cell_ids: Sequence[str] | None, wish: Wish) -> ReadyCells:
        """Read cells of a file, all of them for None."""
        wanted = np.arange(file.source.n_cells) if cell_ids is None else file.rows_of(cell_ids)
        if len(wanted) > self.limits.cells:
            raise RequestError(
                413, f"the file has {len(wanted)} cells, more than {self.limits.cells}; upload it and pick some."
            )
        rows, places = np.unique(wanted, return_inverse=True)
        with file.lock:
            ready = self.family.read(file.source, rows.tolist(), wish, file.extras)
        return ReadyCells([ready.items[i] for i in places.tolist()], ready.work, ready.genes)

    def _of_maps(self, body: Cells, wish: Wish) -> ReadyCells:
        maps = gene_maps(body, self.limits.genes)
        with open_cells(table_of(maps, body.gene_names), values=body.values) as source:
            return self._read(source, wish)

    def _read(self, source: CellSource, wish: Wish) -> ReadyCells:
        try:
            return self.family.read(source, range(source.n_cells), wish, {})
        except InputError as error:
            raise RequestError(422, str(error), "cells") from error

    def _made_places(self, file: CellFile) -> Places | None:
        """Make a map of the model's own vectors, where there are few enough cells to wait for."""
        if file.source.n_cells > _MAPPED_CELLS:
            return None
        with file.lock:
            ready = self.family.read(file.source, range(file.source.n_cells), Embedding(), file.extras)
        began, found = time.monotonic(), list[Any]()
        while len(found) < len(ready.items):
            if time.monotonic() - began > _MAP_SECONDS:
                return None
            some = ready.items[len(found) : len(found) + self.num_slots]
            try:
                found += self._embedded(some).result(self.limits.deadline_s)
            except (BackendError, TimeoutError):  # cells can be picked from a list, too
                return None
        return places_from(np.stack(found))

    def _embedded(self, items: Sequence[Item]) -> Future[list[Any]]:
        return self.desk.beside(lambda: self.family.run(Embedding(), items, lambda done, tokens: None))
