"""The cells a second that the encoder takes, alone.

Tokens go in on the host, memories stay on the device.
"""

from __future__ import annotations

import statistics
from typing import Any

from gpu.context import Context
from gpu.results import rounded
from gpu.roofline import ENCODE_CELLS, encoder_work


def run(context: Context) -> None:
    """Encode real cells, tokens on the host to memory on the device."""
    section, count = context.section("encoder"), context.sizes.encoder_cells
    for cells in (count, min(32, count), 1):
        batch = context.cells(cells)
        row = timed(context, context.backend, batch)
        section.row(cells=cells, genes=batch.genes.shape[1], **row)
    section.save("ok")


def timed(context: Context, backend: Any, batch: Any) -> dict[str, float]:
    """Return milliseconds a cell and what that is of the ceilings."""
    backend.encode(batch)
    seconds = statistics.median(context.clock.wall(lambda: backend.encode(batch)) for _ in range(5)) / batch.n_cells
    chunk = min(ENCODE_CELLS, batch.n_cells)
    work = encoder_work(context.model, chunk).times(1 / chunk)
    return {
        "ms_per_cell": rounded(1e3 * seconds),
        "cells_per_s": rounded(1 / seconds),
        "tflops": rounded(work.flops / seconds / 1e12),
        "percent_of_roofline": rounded(100 * context.ceilings.seconds(work) / seconds, 3),
    }
