"""Time of the encoder against the cells of one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.clock import Call, timed
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.cells import TokenBatch


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """One group a number of cells: one, and as many as there are slots."""
    for wanted in (1, settings.num_slots):
        cases = []
        for one in contenders:
            batch = first_cells(one.cells, wanted)
            cases.append(Case(_row(one, batch.n_cells), partial(_open, one, batch)))
        yield Group(f"encoding {wanted}", tuple(cases))


def first_cells(batch: TokenBatch, count: int) -> TokenBatch:
    """Return the first cells of a batch."""
    part = slice(0, count)
    return replace(
        batch,
        rows=batch.rows[part],
        cell_ids=batch.cell_ids[part],
        genes=batch.genes[part],
        values=batch.values[part],
        mask=batch.mask[part],
        columns=batch.columns[part],
    )


def _row(one: Contender, num_cells: int) -> Row:
    work = one.cost.encode(num_cells, one.longest_memory)
    return one.row("encoding", "tokens of cells to their memories", "cells", num_cells, work, cells=num_cells)


def _open(one: Contender, batch: TokenBatch) -> Call:
    return timed(lambda: one.backend.encode(batch))
