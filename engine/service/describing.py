"""Bundles that describe and embed cells, as a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.engine.cells import CellTokenizer
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.errors import BackendError
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.desk import Desk
from cellscribe.engine.service.feeding import fed_cells, longest_cell
from cellscribe.engine.service.gene_maps import GeneMap, GeneMapReader
from cellscribe.engine.service.given import gene_maps
from cellscribe.engine.service.orders import FedCell
from cellscribe.engine.service.places import Places, places_from, places_of
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import FairQueue
from cellscribe.engine.service.schemas import Cells
from cellscribe.engine.service.service import Service, ServiceSettings
from cellscribe.engine.source_model import SourceModel

_INLINE_CELLS = 2  # made ready at once; more of them in a thread
_MAPPED_CELLS = 4_096  # of a file without a map of its own that are embedded for one


@dataclass(frozen=True)
class FedCells:
    """Cells of a request, ready for the encoder, and what became of their genes."""

    cells: list[FedCell]
    genes: dict[str, object]


class DescribeService(Service):
    """A bundle with an encoder: concurrent requests share the slots of one decoder."""

    def __init__(self, model: SourceModel, demo: Path, settings: ServiceSettings) -> None:
        super().__init__(model, demo, settings)
        listed = len(settings.hvg or self.bundle.vocabulary.input_genes or ())
        longest = longest_cell(self.bundle.manifest.cell_input, listed)
        self.queue = FairQueue(self.limits.queue_cells)
        self.desk = Desk(model.backend, self.bundle, self.queue, settings.num_slots, longest, self.metrics)
        self._reader = GeneMapReader(self.bundle, settings.hvg)
        self.metrics.queue.set_function(lambda: len(self.queue))
        self.metrics.slots_in_use.set_function(lambda: self.desk.busy)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can be asked for."""
        return ("describe", "embed", "chat") if self.bundle.describes else ("embed",)

    @property
    def num_slots(self) -> int:
        """Texts in progress at a time."""
        return self.desk.num_slots

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self.desk.is_ready and not self.queue.is_closed

    @property
    def has_failed(self) -> bool:
        """Whether requests will not be answered any more."""
        return self.desk.has_failed

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

    async def fed(self, body: Cells, seed: int | None = None) -> FedCells:
        """Make the cells of a request ready; `seed` keys the draws between equal values, the service's does without.

        Raises
        ------
        RequestError
            422 for cells that cannot be read, 404 for names that are not there, 413 for too many.
        """
        count = len(body.cells or body.cell_ids or ())
        if count > self.limits.cells:
            raise RequestError(
                413, f"{count} cells are more than {self.limits.cells}; send them in several requests.", "cells"
            )
        if body.source is not None:
            assert body.cell_ids is not None
            ids, source = body.cell_ids, body.source
            return await self.in_thread(lambda: self.of_file(self.files.get(source), ids, seed))
        maps = gene_maps(body, self.limits.genes)
        if len(maps) <= _INLINE_CELLS:
            return self._of_maps(maps, body.values, seed)
        return await self.in_thread(lambda: self._of_maps(maps, body.values, seed))

    def of_file(self, file: CellFile, cell_ids: Sequence[str] | None, seed: int | None = None) -> FedCells:
        """Read cells of a file, all of them for None."""
        source = file.source
        rows = np.arange(source.n_cells) if cell_ids is None else file.rows_of(cell_ids)
        if len(rows) > self.limits.cells:
            raise RequestError(
                413, f"the file has {len(rows)} cells, more than {self.limits.cells}; upload it and pick some."
            )
        names = {row: str(source.obs_names[row]) for row in rows.tolist()}
        tokenizer = self.tokenizer(file)
        with file.lock:
            found = fed_cells(tokenizer.batches(np.unique(rows), 32, seed=seed), names, self.bundle.vocabulary.tokens)
        report = tokenizer.report
        genes = {
            "known": report.n_matched,
            "unknown": report.n_file_genes - report.n_matched,
            "sentence": report.sentence(),
        }
        return FedCells([found[row] for row in rows.tolist()], genes)

    def tokenizer(self, file: CellFile) -> CellTokenizer:
        """Match the genes of a file, once."""
        with file.lock:
            if "tokenizer" not in file.extras:
                file.extras["tokenizer"] = CellTokenizer(
                    self.bundle.manifest.cell_input,
                    self.bundle.vocabulary,
                    file.source,
                    seed=self.settings.seed,
                    hvg=self.settings.hvg,
                )
            found: CellTokenizer = file.extras["tokenizer"]
            return found

    def listing(self, file: CellFile, column: str | None, is_local: bool = False) -> dict[str, Any]:
        """Return what a client needs to pick cells of a file."""
        genes = self.tokenizer(file).report
        with file.lock:
            if "places" not in file.extras:
                file.extras["places"] = places_of(file.source)
        if file.extras["places"] is None:
            file.extras["places"] = self._made_places(file)
        told = {"known": genes.n_matched, "unknown": genes.n_file_genes - genes.n_matched, "sentence": genes.sentence()}
        return file.listing(column, file.extras["places"], told, is_local)

    def _made_places(self, file: CellFile) -> Places | None:
        """Make a map of the model's own vectors, where there are few enough cells to wait for."""
        if file.source.n_cells > _MAPPED_CELLS:
            return None
        tokenizer = self.tokenizer(file)
        names = dict(enumerate(map(str, file.source.obs_names.tolist())))
        with file.lock:
            fed = fed_cells(tokenizer.batches(None, 32), names, self.bundle.vocabulary.tokens)
        usable = [row for row in sorted(fed) if not fed[row].failure]
        found = np.full((len(fed), self.bundle.manifest.encoder_shape.d_model), np.nan, np.float32)
        try:
            if usable:
                found[usable] = self.desk.embed([fed[row] for row in usable]).result(self.limits.deadline_s)
        except (BackendError, TimeoutError):  # the cells can be picked from a list
            return None
        return places_from(found)

    def _of_maps(self, maps: Sequence[GeneMap], values: ValueChoice, seed: int | None) -> FedCells:
        cells, genes = self._reader.read(maps, values, self.settings.seed if seed is None else seed)
        return FedCells(cells, genes.as_dict())
