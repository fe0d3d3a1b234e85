"""How much faster than the plain torch way is a LingoCell? ``python benchmarks/seed_way.py FOLDER [--again]``.

FOLDER holds, or gets, bundles of a random lingocell-1.1b in fp32, int8 and int4 (``l11``, ``l11-int8``, ``l11-int4``).
Real cells; encoder, prompt and 32 new tokens for 8 cells and for 1, the same weights and the same tokens; torch in
eager mode, with Linears packed for oneDNN, and compiled.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from peers.compared import Comparison, kept
from peers.environments import HERE
from peers.floors import lingocell
from peers.registry import SEED_PEERS, Peer

SHAPE, NEW_TOKENS = "lingocell-1.1b", 32
BUNDLES = {"fp32": "l11", "int8": "l11-int8", "int4": "l11-int4"}
BITS = {"fp32": 32, "int8": 8, "int4": 4}
PARTS = {
    "whole": lambda one: [one["seconds"]],
    "encoder": lambda one: [one["encode_seconds"]],
    "prompt": lambda one: [one["prefill_seconds"]],
    "step": lambda one: one["step_seconds"],
}
OURS = {
    precision: Peer(f"cellscribe {precision}", HERE, "peers.ours_lingocell", "", BITS[precision])
    for precision in BUNDLES
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    asked = parser.parse_args()
    bundles = {precision: bundle(asked.folder / name, precision) for precision, name in BUNDLES.items()}
    eager, packed, compiled = SEED_PEERS
    kept("seed_way", [
        comparison(8, (eager, OURS["fp32"], OURS["int8"], OURS["int4"]), bundles, 3),
        comparison(1, (eager, OURS["fp32"], OURS["int8"], OURS["int4"]), bundles, 3),
        comparison(8, (packed, OURS["fp32"], OURS["int4"]), bundles, 3, "packed"),
        comparison(8, (compiled, OURS["int4"]), bundles, 3, "compiled"),
    ], PARTS, lingocell(bundles["fp32"]), again=asked.again)  # fmt: skip


def comparison(
    cells: int, peers: tuple[Peer, ...], bundles: dict[str, Path], rounds: int, name: str = ""
) -> Comparison:
    options = {OURS[precision].name: {"model": str(path)} for precision, path in bundles.items()}
    return Comparison(
        f"{cells} cells" + (f", {name}" if name else ""),
        peers,
        {"do": "describe", "cells": cells, "new_tokens": NEW_TOKENS},
        units=cells * NEW_TOKENS,
        rounds=rounds,
        options=options,
        reference=peers[0].name,
        sizes={"cells": cells, "slots": cells, "new_tokens": NEW_TOKENS},
    )


def bundle(path: Path, precision: str) -> Path:
    """Return a bundle, made where it is missing."""
    if not path.is_dir():
        subprocess.run(bundle_command(path, precision), check=True)
    return path


def bundle_command(path: Path, precision: str) -> list[str]:
    """Return the command that makes a bundle of random weights."""
    options = ["--random", "--shape", SHAPE, "--precision", precision]
    return [sys.executable, "-m", "cellscribe", "export", *options, str(path)]


if __name__ == "__main__":
    main()
