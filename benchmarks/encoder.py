"""How fast is the encoder beside scGPT in torch? ``python benchmarks/encoder.py FOLDER [--again]``.

The same random weights of scGPT's sizes (12 layers, d 512, 1,201 tokens), real cells, 8 at a time and 1; FOLDER holds
the bundles of ``seed_way.py``. The cosines of our memory rows with those of our fp32 are kept beside the times.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from hardware import written
from peers.compared import Comparison, kept
from peers.environments import HERE
from peers.floors import lingocell
from peers.ours_lingocell import packaged_batch
from peers.registry import ENCODER_PEERS, Peer
from results_folder import results_folder
from seed_way import BITS, BUNDLES, bundle

from cellscribe.engine.backends.cpu import CpuBackend
from cellscribe.engine.bundle import open_bundle

PARTS = {"whole": lambda one: [one["seconds"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    asked = parser.parse_args()
    paths = {precision: bundle(asked.folder / name, precision) for precision, name in BUNDLES.items()}
    ours = [Peer(f"cellscribe {p}", HERE, "peers.ours_lingocell", "", BITS[p]) for p in ("fp32", "int8")]
    other = Peer("ONNX Runtime fp32", HERE, "peers.ours_lingocell", "", 32, {"backend": "onnxruntime-cpu"})
    options = {f"cellscribe {p}": {"model": str(path)} for p, path in paths.items()}
    options["ONNX Runtime fp32"] = {"model": str(paths["fp32"])}
    peers = (*ENCODER_PEERS, *ours, other)
    kept("encoder", [
        Comparison(f"{cells} cells", peers, {"do": "encode", "cells": cells}, units=cells, rounds=7, options=options,
                   sizes={"cells": cells, "memory_len": 1201})
        for cells in (1, 8)
    ], PARTS, lingocell(paths["fp32"]), again=asked.again)  # fmt: skip
    path = results_folder() / "encoder.json"
    written(path, json.loads(path.read_text()) | {"memory_cosine": cosines(paths)})


def cosines(paths: dict[str, Path], cells: int = 8) -> dict[str, dict[str, float]]:
    """Return mean and least cosine of the memory rows of packaged cells with those of fp32, by precision."""
    found, exact = {}, None
    for precision, path in paths.items():
        opened = open_bundle(path)
        batch = packaged_batch(opened, cells)
        rows = CpuBackend(opened).encode(batch).host_memory()[batch.mask].astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        exact = rows if exact is None else exact
        cosine = (rows * exact).sum(1)
        found[precision] = {"mean": round(float(cosine.mean()), 6), "least": round(float(cosine.min()), 6)}
    return found


if __name__ == "__main__":
    main()
