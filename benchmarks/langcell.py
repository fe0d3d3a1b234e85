"""How much faster than upstream's way is a LangCell? ``python benchmarks/langcell.py FOLDER [--again] [--only label]``.

LangCell's published sizes with random weights, the same for all; the first 64 real cells of a file, labels by text with
every text matched against every cell. FOLDER holds, or gets, the bundles ``lc`` and ``lc-int8``. Upstream's way is a
forward of the matching tower for every text over 8 cells. Labels of engines in fp32 are compared before anything is
timed; with 161 labels upstream's way takes an hour for 64 cells here, so that fewer are asked for (``--many-cells``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hardware import written
from peers.compared import Comparison, kept
from peers.environments import HERE
from peers.langcell_cells import CELLS_FILE, labels, rank_tokens
from peers.registry import Peer, start
from results_folder import results_folder, shared_data

from cellscribe.engine.bench.work import Work
from cellscribe.export.random_ranks import SIZES

SHAPE = "langcell"
BUNDLES = {"fp32": "lc", "int8": "lc-int8"}
WARM_UP_CELLS = 4
BITS = {"fp32": 32, "int8": 8}
UPSTREAM = "upstream's way in torch"
NEAR_TIE = 1e-5  # of scores, whose tolerance it is
LABEL_PARTS = {
    "whole": lambda one: [one["seconds"]],
    "cells": lambda one: [one["encode_seconds"]],
    "matching": lambda one: [one["match_seconds"]],
}
EMBED_PARTS = {"whole": lambda one: [one["seconds"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    parser.add_argument("--only", choices=["label", "embed"], help="one of the questions")
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--many-cells", type=int, default=8, help="cells that are asked for with 161 labels")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", default=SHAPE, choices=list(SIZES))
    asked = parser.parse_args()
    bundles = {precision: bundle(asked.folder / name, asked.shape, precision) for precision, name in BUNDLES.items()}
    path = str(shared_data() / CELLS_FILE)
    if asked.only in (None, "embed"):
        kept("langcell_embed", [embedding(bundles, path, asked)], EMBED_PARTS, no_floors, again=asked.again)
        file = results_folder() / "langcell_embed.json"
        written(file, json.loads(file.read_text()) | {"cosine": cosines(bundles, path, asked)})
    if asked.only in (None, "label"):
        todo = [labelling(bundles, path, asked, 8, asked.cells), labelling(bundles, path, asked, 161, asked.many_cells)]
        kept("langcell", todo, LABEL_PARTS, no_floors, again=asked.again)


def peers(asked: argparse.Namespace, bundles: dict[str, Path]) -> tuple[tuple[Peer, ...], dict[str, dict[str, Any]]]:
    """Return upstream's way, ours in all precisions, and the options they are opened with."""
    ours = {p: our_peer(f"cellscribe {p}", p) for p in bundles}
    options: dict[str, dict[str, Any]] = {ours[p].name: {"model": str(path)} for p, path in bundles.items()}
    upstream = Peer(UPSTREAM, HERE, "peers.seed_langcell", "", 32, options={"shape": asked.shape})
    return (upstream, *ours.values()), options


def our_peer(name: str, precision: str, **request: Any) -> Peer:
    return Peer(name, HERE, "peers.ours_langcell", "", BITS[precision], request=request, near_tie=NEAR_TIE)


def labelling(bundles: dict[str, Path], path: str, asked: argparse.Namespace, number: int, cells: int) -> Comparison:
    who, options = peers(asked, bundles)
    sure = [our_peer(f"cellscribe {p}, until sure", p, rerank="sure") for p in bundles]
    options |= {one.name: {"model": str(bundles[p])} for one, p in zip(sure, bundles, strict=True)}
    return Comparison(
        f"{number} labels",
        (*who, *sure),
        {"do": "label", "cells_file": path, "cells": cells, "labels": labels(number)},
        units=cells,
        rounds=asked.rounds,
        options=options,
        reference=UPSTREAM,
        first={"cells": min(WARM_UP_CELLS, cells)},
        sizes={"cells": cells, "labels": number, "mean_tokens": mean_tokens(path, cells)},
    )


def embedding(bundles: dict[str, Path], path: str, asked: argparse.Namespace) -> Comparison:
    who, options = peers(asked, bundles)
    return Comparison(
        f"{asked.cells} cells",
        who,
        {"do": "embed", "cells_file": path, "cells": asked.cells},
        units=asked.cells,
        rounds=asked.rounds,
        options=options,
        sizes={"cells": asked.cells, "mean_tokens": mean_tokens(path, asked.cells)},
    )


def cosines(bundles: dict[str, Path], path: str, asked: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return mean and least cosine of our vectors with those of torch, by engine."""
    who, options = peers(asked, bundles)
    found: dict[str, np.ndarray[Any, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for one in who:
            save = str(Path(folder) / "vectors.npy")
            worker, _ = start(one, threads=2, **options.get(one.name, {}))
            try:
                worker.ask({"do": "embed", "cells_file": path, "cells": asked.cells, "save": save})
            finally:
                worker.close()
            found[one.name] = np.load(save).astype(np.float64)
    wanted = found.pop(UPSTREAM)
    return {
        name: {"mean": round(float(cosine.mean()), 7), "least": round(float(cosine.min()), 7)}
        for name, cosine in ((name, (one * wanted).sum(1)) for name, one in found.items())
    }


def mean_tokens(path: str, cells: int) -> int:
    return round(float(np.mean([len(one) for one in rank_tokens(path, cells)])))


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
