"""How fast do cells become ranks of genes? ``python benchmarks/ranks.py [CELLS.h5ad]``.

Real cells, over and over, in memory as CSR counts, one core: genes by expression over their median, up to 2,048 tokens
a cell with ``<cls>`` first, compiled and with NumPy; the compiled tokens are checked against NumPy's first.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from unittest.mock import patch

import anndata as ad
import numpy as np
from hardware import hardware, written
from results_folder import results_folder
from sentences import rates, repeated, timed

from cellscribe.engine.cells import open_cells
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.ranks import RankInput, RankTokenizer, native
from cellscribe.engine.ranks.genes import packaged_dictionaries, rank_vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=packaged_cells())
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    cells = repeated(ad.read_h5ad(asked.file), asked.cells)
    vocabulary = rank_vocabulary(*packaged_dictionaries())

    def tokenise() -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
        with open_cells(cells) as source:
            batches = list(RankTokenizer(RankInput(), vocabulary, source).batches())
        return [batch.cell(i) for batch in batches for i in range(len(batch.rows))]

    def tokenise_with_numpy() -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
        with patch.object(native, "find_native", lambda: None):
            return tokenise()

    found = tokenise()
    same = all(np.array_equal(a, b) for a, b in zip(found, tokenise_with_numpy(), strict=True))
    assert same, "the compiled tokens are others"
    seconds, busy = timed({"compiled": tokenise, "NumPy": tokenise_with_numpy}, asked.rounds)
    result = {
        "cells": {
            "file": asked.file.name,
            "repeated_to": asked.cells,
            "values_a_cell": round(cells.X.nnz / asked.cells, 1),
            "tokens_a_cell": round(float(np.mean([len(one) for one in found])), 1),
        },
        "cells_per_second": {name: rates(asked.cells, one) for name, one in seconds.items()},
        "cells_per_processor_second": {name: rates(asked.cells, one) for name, one in busy.items()},
        "cores": 1,
        "rounds": asked.rounds,
        "load_before": round(os.getloadavg()[0], 1),
        "hardware": hardware(),
    }
    written(results_folder() / "ranks.json", result)
    for name, one in result["cells_per_second"].items():
        print(f"{name}: {one['median']:,} cells/s ({one['least']:,} to {one['most']:,})")


if __name__ == "__main__":
    main()
