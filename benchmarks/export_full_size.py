"""What does exporting and running a full-size model take? ``python benchmarks/export_full_size.py WORK_DIR``.

Writes benchmarks/results/export_full_size.json: seconds, peak memory and parity of the export of a lingocell-1.1b with
random weights, and the seconds per cell of a short description run over packaged cells. A demonstration that it fits,
not a benchmark of speed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from hardware import hardware
from results_folder import results_folder

import cellscribe as cs
from cellscribe.engine.bundle import read_manifest
from cellscribe.engine.cells import open_cells
from cellscribe.engine.packaged import packaged_cells

SHAPE, CELLS, TOKENS = "lingocell-1.1b", 8, 32


def main() -> None:
    bundle = Path(sys.argv[1]) / SHAPE
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cellscribe", "export", "--random", "--shape", SHAPE, str(bundle)], check=True
    )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    manifest = read_manifest(bundle)
    assert manifest.parity is not None
    model = cs.load(bundle)
    with open_cells(packaged_cells()) as source:
        started = time.perf_counter()
        run = model.describe_cells(source, rows=np.arange(CELLS), max_new_tokens=TOKENS, batch_size=CELLS)
        wall = time.perf_counter() - started
    row = {
        "shape": SHAPE,
        "precision": manifest.precision,
        "export_seconds": round(seconds, 1),
        "export_peak_gib": round(peak / 2**30, 2),
        "bundle_gb": round(sum(f.bytes for f in manifest.files.values()) / 1e9, 3),
        "parity": asdict(manifest.parity),
        "described_cells": CELLS,
        "slots": CELLS,
        "new_tokens": run.num_tokens,
        "describe_seconds": round(wall, 1),
        "device": model.device,
        "hardware": hardware(),
        "versions": manifest.versions,
    }
    (results_folder() / "export_full_size.json").write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
