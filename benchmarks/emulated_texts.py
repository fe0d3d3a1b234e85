"""Does the CUDA backend write the texts of the CPU backend? ``python benchmarks/emulated_texts.py``, without a GPU.

The kernels run in the emulator, matrix products in torch on the CPU: the arithmetic is that of the GPU (fp16 products,
float32 sums), the speed is not, and no time is kept. All packaged cells, 12 slots, four steps a ticket, greedy. Writes
benchmarks/results/emulated_texts.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
from hardware import hardware
from results_folder import results_folder

from cellscribe.engine.backends.cuda import CudaBackend
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.model import Model
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.versions import versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from building import emulated_library


def main() -> None:
    cells, bundle = ad.read_h5ad(packaged_cells()), open_bundle(packaged_bundle())
    with tempfile.TemporaryDirectory() as folder:
        emulated = CudaBackend(bundle, "cpu", emulated_library(Path(folder) / "kernels.so"))
        found = Model(bundle, backend=emulated).describe(cells, copy=True, batch_size=12)
    expected = Model(bundle, backend="onnxruntime-cpu").describe(cells, copy=True)
    logprobs = np.abs(found["mean_logprob"] - expected["mean_logprob"])
    genes = [a == b for a, b in zip(found["top_genes"], expected["top_genes"], strict=True)]
    result = {
        "cells": len(found),
        "texts_equal": int((found["description"] == expected["description"]).sum()),
        "top_10_genes_equal_in_order": int(np.sum(genes)),
        "mean_logprob_max_difference": float(logprobs.max()),
        "tokens": int(expected["num_tokens"].sum()),
        "hardware": hardware(),
        "versions": versions(),
    }
    (results_folder() / "emulated_texts.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
