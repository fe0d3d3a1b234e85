"""Does a cell cost the same late in a run as early? ``python benchmarks/flat.py [--cells 10000]``.

The packaged model describes the packaged cells over and over in one run, and the clock is read every 500 cells. Runs of
different length are hard to compare on a machine that others share; within a run a cost that grows shows as a slope.
It is fitted by least squares, with the interval that holds it with 95 %.
"""

from __future__ import annotations

import argparse
import resource
import time
from datetime import UTC, datetime
from typing import Any

import anndata as ad
import numpy as np
from hardware import hardware, written
from made_by import made_by
from results_folder import results_folder
from scipy import stats

from cellscribe.engine.bench.questions.cells import repeated
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.cells import open_cells
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.source_model import SourceModel
from cellscribe.engine.versions import versions

BLOCK, SLOTS, NEW_TOKENS = 500, 8, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    asked = parser.parse_args()
    if asked.cells < 4 * BLOCK:
        parser.error(f"--cells is {asked.cells}; choose at least {4 * BLOCK}")
    found = measured(asked.cells)
    written(results_folder() / "flat.json", found)
    print(found["sentence"])


def measured(num_cells: int) -> dict[str, Any]:
    """Describe cells in one run, and return what each block of them cost."""
    model = SourceModel(open_bundle(packaged_bundle()))
    cells = repeated(ad.read_h5ad(packaged_cells()), num_cells)
    clock = [time.perf_counter()]
    memory = [_memory()]

    def mark(done: int, _total: int, _tokens: int) -> None:
        if done // BLOCK >= len(clock):
            clock.append(time.perf_counter())
            memory.append(_memory())

    with open_cells(cells) as source:
        model.describe_cells(source, rows=np.arange(64), max_new_tokens=NEW_TOKENS, batch_size=SLOTS)  # warm
        clock[0], memory[0] = time.perf_counter(), _memory()
        model.describe_cells(source, max_new_tokens=NEW_TOKENS, batch_size=SLOTS, progress=mark)
    cost = np.diff(clock) / BLOCK * 1e3
    slope, interval = trend(cost)
    share = slope * num_cells / 1e3 / float(np.median(cost))
    return {
        "cells": num_cells,
        "block": BLOCK,
        "slots": SLOTS,
        "ms_per_cell": [round(float(one), 3) for one in cost],
        "slope_ms_per_1000_cells": round(slope, 4),
        "slope_within": round(interval, 4),
        "peak_mb": [round(one / 1e6, 1) for one in memory],
        "sentence": f"{np.median(cost):.2f} ms a cell ({cost.min():.2f} to {cost.max():.2f} by blocks of {BLOCK}); "
        f"{slope:+.3f} ± {interval:.3f} ms for every 1,000 cells more, {share:+.0%} over the run",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": made_by(),
        "versions": versions(),
        "device": model.device,
        "hardware": hardware(),
    }


def trend(cost: np.ndarray) -> tuple[float, float]:
    """Return how much the cost of a cell [N] grows with 1,000 cells, and the half-width of its 95 % interval."""
    place = (np.arange(len(cost)) + 0.5) * BLOCK / 1e3
    fit = stats.linregress(place, cost)
    return float(fit.slope), float(fit.stderr * stats.t.ppf(0.975, len(cost) - 2))


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
