"""How fast is an InstructCell beside upstream's way? ``python benchmarks/instructcell.py FOLDER [--only annotate]``.

InstructCell's published sizes with random weights, the same for all, greedy, texts without an end. FOLDER holds, or
gets, the bundles ``ic`` and ``ic-int8``. Upstream's way is `generate` of transformers after the tower, one prompt at a
time in float32; beside it the same with 8 prompts, padded.

- annotate: an answer of 32 tokens about each of 64 real cells, from counts to tokens. Tokens of engines in float32 are
  compared before anything is timed.
- batches: the same beside larger batches of theirs, without the loop over single prompts.
- generate: 500 cells after one prompt: a text of 32 tokens, the signal, a profile, counts. Ours writes the text of
  equal prompts once, as it is greedy; with "every text" it writes it anew for every cell, as upstream does. Upstream's
  way is asked for fewer cells (``--upstream-cells``), and all times are those of a cell.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers.compared import Comparison, kept
from peers.environments import HERE
from peers.instruct_cells import PROFILE_PROMPT, TYPE_PROMPT, prompt_ids
from peers.registry import Peer
from results_folder import shared_data

from cellscribe.engine.bench.work import Work
from cellscribe.export.random_instruct import SIZES

SHAPE = "instructcell"
CELLS_FILE = "scp1884.h5ad"
BUNDLES = {"fp32": "ic", "int8": "ic-int8"}
BITS = {"fp32": 32, "int8": 8}
UPSTREAM = "upstream's way, one prompt at a time"
PARTS = {"whole": lambda one: [one["seconds"]], "prompts": lambda one: [one["prefill_seconds"]]}
PER_CELL = {
    "whole": lambda one: [one["seconds"] / one["n"]],  # a cell
    "texts": lambda one: [one["text_seconds"] / one["n"]],
}
NEW_TOKENS = 32
BATCHES = (8, 16, 32, 64)  # prompts that transformers gets at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    parser.add_argument("--only", choices=["annotate", "batches", "generate"], help="one of the questions")
    parser.add_argument("--cells", type=int, default=64, help="that are asked about")
    parser.add_argument("--written", type=int, default=500, help="cells that are written")
    parser.add_argument("--upstream-cells", type=int, default=16, help="cells that upstream's way writes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", default=SHAPE, choices=list(SIZES))
    asked = parser.parse_args()
    bundles = {precision: bundle(asked.folder / name, asked.shape, precision) for precision, name in BUNDLES.items()}
    answering = [annotating(bundles, asked, way) for way in ("annotate", "batches") if asked.only in (None, way)]
    if answering:
        kept("instructcell", answering, PARTS, no_floors, again=asked.again)
    if asked.only in (None, "generate"):
        kept("instructcell_cells", [writing(bundles, asked)], PER_CELL, no_floors, again=asked.again)


def upstream(asked: argparse.Namespace, name: str, **request: Any) -> Peer:
    return Peer(name, HERE, "peers.seed_instructcell", "", 32, {"shape": asked.shape}, request=request)


def ours(name: str, precision: str, **request: Any) -> Peer:
    return Peer(name, HERE, "peers.ours_instructcell", "", BITS[precision], request=request)


def annotating(bundles: dict[str, Path], asked: argparse.Namespace, way: str) -> Comparison:
    batched = [upstream(asked, f"upstream's way, batch {size}", batch=size) for size in BATCHES]
    theirs = batched if way == "batches" else [upstream(asked, UPSTREAM), batched[0]]
    mine = {precision: ours(f"cellscribe {precision}", precision) for precision in bundles}
    return Comparison(
        f"{asked.cells} cells, {NEW_TOKENS} tokens{', batches' if way == 'batches' else ''}",
        (*theirs, *mine.values()),
        {
            "do": "annotate",
            "prompts": [prompt_ids(asked.shape, TYPE_PROMPT)],
            "cells_file": str(shared_data() / CELLS_FILE),
            "cells": asked.cells,
            "new_tokens": NEW_TOKENS,
        },
        units=asked.cells,
        rounds=asked.rounds,
        options={mine[precision].name: {"model": str(path)} for precision, path in bundles.items()},
        reference=theirs[0].name,
        asks_margins=True,
        sizes={"cells": asked.cells, "new_tokens": NEW_TOKENS, "prompt_len": len(prompt_ids(asked.shape, TYPE_PROMPT))},
        first={"cells": 8},
    )


def writing(bundles: dict[str, Path], asked: argparse.Namespace) -> Comparison:
    few = asked.upstream_cells
    mine = {
        p: [
            ours(f"cellscribe {p}", p, n=asked.written),
            ours(f"cellscribe {p}, every text", p, n=asked.written, each=True),
        ]
        for p in bundles
    }
    return Comparison(
        f"{asked.written} cells, {NEW_TOKENS} tokens each",
        (
            upstream(asked, UPSTREAM, n=few),
            upstream(asked, "upstream's way, batch 8", n=few, batch=8),
            *(one for both in mine.values() for one in both),
        ),
        {"do": "generate", "prompt": prompt_ids(asked.shape, PROFILE_PROMPT), "new_tokens": NEW_TOKENS},
        units=asked.written,
        rounds=asked.rounds,
        options={one.name: {"model": str(bundles[p])} for p, both in mine.items() for one in both},
        sizes={"cells": asked.written, "new_tokens": NEW_TOKENS},
        first={"n": 8},
    )


def no_floors(precision: str, sizes: Any, who: str = "") -> dict[str, Work]:
    return {}


def bundle(path: Path, shape: str, precision: str) -> Path:
    """Return a bundle, made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        options = ["--random", "--shape", shape, "--precision", precision]
        subprocess.run([sys.executable, "-m", "cellscribe", "export", *options, str(path)], check=True)
    return path


if __name__ == "__main__":
    main()
