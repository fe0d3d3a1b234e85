"""How fast is the encoder beside scGPT in torch? ``python benchmarks/encoder.py FOLDER [--again]``.

The same random weights of scGPT's sizes (12 layers, d 512, 1,201 tokens), real cells, 8 at a time and 1; FOLDER holds
the bundles of ``seed_way.py``. The cosines of memory rows with fp32 are in the bundles' own record of quality.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from peers.compared import Comparison, kept
from peers.environments import HERE
from peers.registry import ENCODER_PEERS, Peer
from seed_way import BITS, BUNDLES, bundle

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
    ], PARTS, again=asked.again)  # fmt: skip


if __name__ == "__main__":
    main()
