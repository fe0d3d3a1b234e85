"""How much do the draws at tied bin edges matter? ``python benchmarks/tie_seed.py``: the packaged cells, five seeds.

Writes benchmarks/results/tie_seed.json: the share of greedy texts that differ from those of seed 0, and the share of
texts that name the right type, per seed.
"""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
from hardware import hardware
from results_folder import PUBLISHED, results_folder

import cellscribe as cs
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.versions import versions


def main() -> None:
    cells = ad.read_h5ad(packaged_cells())
    names: dict[str, str] = json.loads((PUBLISHED / "demo_heldout.json").read_text())["type_names"]
    truth = cells.obs["cell_type_reference"].astype(str)
    texts = [cs.load("demo", seed=seed).describe(cells, copy=True)["description"].tolist() for seed in range(5)]
    longest_first = sorted(names, key=lambda t: -len(names[t]))
    right = [
        float(
            np.mean(
                [next((n for n in longest_first if names[n] in x), "") == t for x, t in zip(row, truth, strict=True)]
            )
        )
        for row in texts
    ]
    differ = [float(np.mean([a != b for a, b in zip(row, texts[0], strict=True)])) for row in texts]
    result = {
        "cells": len(truth),
        "share_of_texts_that_differ_from_seed_0": differ,
        "type_accuracy": right,
        "hardware": hardware(),
        "versions": versions(),
    }
    (results_folder() / "tie_seed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
