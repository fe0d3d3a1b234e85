"""Does a cell cost the same late in a run as early? ``python benchmarks/flat.py [--cells 10000]``.

The packaged model describes the packaged cells over and over in one run, and the clock is read every 500 cells. As the
machine's own speed drifts, another model describes the same 100 cells before and after each block, in a run of their
own that is always as short: a block's cost is given in units of theirs. A cost that grows with a run shows as a slope;
it is fitted by least squares, with the interval that holds it with 95 %.
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

BLOCK, REFERENCE, SLOTS, NEW_TOKENS = 500, 100, 8, 32


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
    bundle, packaged = open_bundle(packaged_bundle()), ad.read_h5ad(packaged_cells())
    model, other = SourceModel(bundle), SourceModel(bundle)
    cells = repeated(packaged, num_cells)
    blocks, beside, memory = list[float](), list[float](), list[int]()
    started = 0.0

    def yardstick() -> float:
        begun = time.perf_counter()
        with open_cells(packaged) as source:
            other.describe_cells(source, rows=np.arange(REFERENCE), max_new_tokens=NEW_TOKENS, batch_size=SLOTS)
        return (time.perf_counter() - begun) / REFERENCE * 1e3

    def mark(done: int, _total: int, _tokens: int) -> None:
        nonlocal started
        if done // BLOCK > len(blocks):
            blocks.append((time.perf_counter() - started) / BLOCK * 1e3)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            beside.append(yardstick())
            started = time.perf_counter()

    yardstick()  # warm
    beside.append(yardstick())
    with open_cells(cells) as source:
        started = time.perf_counter()
        model.describe_cells(source, max_new_tokens=NEW_TOKENS, batch_size=SLOTS, progress=mark)
    near = (np.array(beside[1:]) + np.array(beside[:-1])) / 2
    relative = np.array(blocks) / near[: len(blocks)]
    slope, interval = trend(relative / np.median(relative))
    return {
        "cells": num_cells,
        "block": BLOCK,
        "slots": SLOTS,
        "ms_per_cell": [round(one, 3) for one in blocks],
        "ms_per_cell_of_the_yardstick": [round(one, 3) for one in beside],
        "growth_per_1000_cells": round(slope, 5),
        "growth_within": round(interval, 5),
        "peak_mb": [round(one / 1e6, 1) for one in memory],
        "sentence": f"{np.median(blocks):.2f} ms a cell (blocks of {BLOCK}: {min(blocks):.2f} to {max(blocks):.2f}); "
        f"beside the same {REFERENCE} cells the cost grows by {slope:+.1%} ± {interval:.1%} with every 1,000 cells",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": made_by(),
        "versions": versions(),
        "device": model.device,
        "hardware": hardware(),
    }


def trend(cost: np.ndarray) -> tuple[float, float]:
    """Return how much the cost [N] of blocks grows with 1,000 cells, and the half-width of its 95 % interval."""
    place = (np.arange(len(cost)) + 0.5) * BLOCK / 1e3
    fit = stats.linregress(place, cost)
    return float(fit.slope), float(fit.stderr * stats.t.ppf(0.975, len(cost) - 2))


if __name__ == "__main__":
    main()
