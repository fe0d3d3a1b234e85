"""Bundles that describe and embed cells, as a service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellTokenizer
from cellscribe.engine.cells.values import ValueChoice
from cellscribe.engine.service.cell_files import CellFile
from cellscribe.engine.service.desk import Desk
from cellscribe.engine.service.feeding import fed_cells, longest_cell
from cellscribe.engine.service.gene_maps import GeneMapReader
from cellscribe.engine.service.given import gene_maps
from cellscribe.engine.service.map_values import GeneMap
from cellscribe.engine.service.orders import FedCell
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.queue import FairQueue
from cellscribe.engine.service.schemas import Cells
from cellscribe.engine.service.service import Service, ServiceSettings
from cellscribe.engine.source_model import SourceModel

_INLINE_CELLS = 2  # made ready at once; more of them in a thread


@dataclass(frozen=True)
class FedCells:
    """Cells of a request, ready for the encoder, and what became of their genes."""

    cells: list[FedCell]
    genes: dict[str, object]


class DescribeService(Service):
    """A bundle with an encoder: concurrent requests share the slots of one decoder."""

    queue: FairQueue
    desk: Desk
    mapped_cells = 4_096

    def __init__(self, model: SourceModel, demo: Path, settings: ServiceSettings) -> None:
        super().__init__(model, demo, settings)
        listed = len(settings.hvg or self.bundle.vocabulary.input_genes or ())
        longest = longest_cell(self.bundle.manifest.cell_input, listed)
        self.queue = FairQueue(self.limits.queue_cells, self.limits.client_share)
        self.desk = Desk(model.backend, self.bundle, self.queue, settings.num_slots, longest, self.metrics)
        self._reader = GeneMapReader(self.bundle, settings.hvg)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can be asked for."""
        return ("describe", "embed", "chat") if self.bundle.describes else ("embed",)

    async def fed(self, body: Cells, seed: int | None = None) -> FedCells:
        """Make the cells of a request ready; `seed` keys the draws between equal values, the service's does without.

        Raises
        ------
        RequestError
            422 for cells that cannot be read, 404 for names that are not there, 413 for too many, 504 once the
            deadline has passed, 499 once the client is gone.
        """
        self.check_count(len(body.cells or body.cell_ids or ()))
        self.deadline(body.deadline_s)
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
        rows = np.arange(file.source.n_cells) if cell_ids is None else file.rows_of(cell_ids)
        if len(rows) > self.limits.cells:
            raise RequestError(
                413, f"the file has {len(rows)} cells, more than {self.limits.cells}; upload it and pick some."
            )
        return FedCells(self._of_rows(file, rows, seed), self.genes(file))

    def genes(self, file: CellFile) -> dict[str, object]:
        """Return how many genes of a file are known, how many not, and a sentence about it."""
        report = self.tokenizer(file).report
        unknown = report.n_file_genes - report.n_matched
        return {"known": report.n_matched, "unknown": unknown, "sentence": report.sentence()}

    def tokenizer(self, file: CellFile) -> CellTokenizer:
        """Match the genes of a file, once."""
        with file.reading() as source:
            if "tokenizer" not in file.extras:
                file.extras["tokenizer"] = CellTokenizer(
                    self.bundle.manifest.cell_input,
                    self.bundle.vocabulary,
                    source,
                    seed=self.settings.seed,
                    hvg=self.settings.hvg,
                )
            found: CellTokenizer = file.extras["tokenizer"]
            return found

    async def vectors(self, file: CellFile, rows: npt.NDArray[np.int64], client: str) -> npt.NDArray[np.float32]:
        """Embed cells of a file for a client, [N, d]; as :meth:`Service.vectors` for errors."""
        fed = await self.threads.use_file(lambda: self._of_rows(file, rows, None))
        usable = [i for i, one in enumerate(fed) if not one.failure]
        found = np.full((len(fed), self.bundle.manifest.encoder_shape.d_model), np.nan, np.float32)
        if usable:
            embedded = asyncio.wrap_future(self.desk.embed([fed[i] for i in usable], client))
            found[usable] = await embedded
        return found

    def _of_rows(self, file: CellFile, rows: npt.NDArray[np.int64], seed: int | None) -> list[FedCell]:
        names = {row: str(file.source.obs_names[row]) for row in rows.tolist()}
        tokenizer = self.tokenizer(file)
        with file.reading():
            found = fed_cells(tokenizer.batches(np.unique(rows), 32, seed=seed), names, self.bundle.vocabulary.tokens)
        return [found[row] for row in rows.tolist()]

    def _of_maps(self, maps: Sequence[GeneMap], values: ValueChoice, seed: int | None) -> FedCells:
        cells, genes = self._reader.read(maps, values, self.settings.seed if seed is None else seed)
        return FedCells(cells, genes.as_dict())
