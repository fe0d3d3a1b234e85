"""Cost per cell against the number of cells: from values to texts, the whole way that ``describe`` takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import anndata as ad
import numpy as np

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.clock import Call, Effort, Sample, timed
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BackendError
from cellscribe.engine.source_model import SourceModel
from cellscribe.engine.types import MIN_NEW_TOKENS

_ROUNDS = 3  # of all numbers of cells but the first; fewer where they would take too long


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """One group a number of cells; a number that would take too long, as the last one tells, is left out."""
    seconds_per_cell = 0.0
    for num_cells in settings.cells:
        expected = num_cells * seconds_per_cell * len(contenders)
        if expected > settings.most_seconds:
            why = f"it would take {expected:,.0f} s, and a run may take {settings.most_seconds:,.0f} s."
            yield Group(f"cells {num_cells}", (), left_out=why)
            continue
        rounds = min(_ROUNDS, int(settings.most_seconds / expected)) if expected else 0
        took: list[float] = []
        cases = tuple(
            Case(_row(one, num_cells, settings.num_slots), partial(_open, one, num_cells, settings.num_slots, took))
            for one in contenders
        )
        yield Group(f"cells {num_cells}", cases, Effort(rounds, 0.0, warmup_rounds=0) if rounds else None, took=took)
        seconds_per_cell = max(took, default=0.0) / num_cells


def repeated(cells: ad.AnnData, count: int) -> ad.AnnData:
    """Return `count` cells: those given over and over, each under a name of its own."""
    given = cast(Any, cells)  # its types differ between anndata's releases
    rows = np.arange(count) % cells.n_obs
    made = ad.AnnData(
        given.X[rows], var=given.var, layers={name: layer[rows] for name, layer in given.layers.items() if name}
    )
    if cells.raw is not None:
        made.raw = ad.AnnData(given.raw.X[rows], var=given.raw.var)
    made.obs_names = [f"{given.obs_names[row]}-{at}" for at, row in enumerate(rows)]
    return made


def _row(one: Contender, num_cells: int, num_slots: int) -> Row:
    return one.row(
        "cells",
        "cells in memory to texts and evidence",
        "cells",
        num_cells,
        None,
        ("texts end where the model ends them; the cells are those of the file, over and over",),
        slots=num_slots,
        cells=num_cells,
        new_tokens=MIN_NEW_TOKENS,
    )


def _open(one: Contender, num_cells: int, num_slots: int, took: list[float]) -> Call:
    cells = repeated(ad.read_h5ad(one.cells_file), num_cells)
    model = SourceModel(one.bundle, backend=one.backend)

    def describe() -> tuple[float, ...]:
        with open_cells(cells) as source:
            run = model.describe_cells(source, max_new_tokens=MIN_NEW_TOKENS, batch_size=num_slots)
        written = tuple(text.latency_ms for text in run.descriptions if text.is_ok)
        if not written:
            raise BackendError(f"no cell could be described, the first as it {run.descriptions[0].status}.")
        return written

    def run() -> Sample:
        latency_ms: list[float] = []
        sample = timed(lambda: latency_ms.extend(describe()))()
        took.append(sample.seconds[0])
        return Sample(sample.seconds, tuple(latency_ms))

    return run
