"""How fast do cells become sentences, and sentences expression? ``python benchmarks/sentences.py [CELLS.h5ad]``.

Real cells, over and over, in memory as CSR, one core: ranking genes and joining their names (compiled, and with NumPy),
the whole of ``c2s transform`` without writing, cleaning sentences and turning them into expression. Sentences hold 200
genes; the compiled order is checked against NumPy's first. What bounds it: the bytes that have to move (a column and a
value of every expressed gene, a gene and a value of every word, and the text), at the rate of a plain copy, against the
time that is taken.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from hardware import hardware, written
from results_folder import results_folder

from cellscribe.engine.bench.clock import in_turn
from cellscribe.engine.cells import open_cells
from cellscribe.engine.cells.native_binning import name_keys
from cellscribe.engine.cells.parts import Part
from cellscribe.engine.keyed import stream_keys
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.sentences import Inverse, SentenceGenes, clean_sentences, native, rank_genes, to_sentences
from cellscribe.engine.sentences.ranked import Ranked
from cellscribe.engine.sentences.transform import Transform, TransformOptions

NUM_GENES = 200
RANK, JOIN = "rank alone, compiled", "join alone, compiled"
TRANSFORM = "c2s transform with its fit, in memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=packaged_cells())
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    cells = repeated(ad.read_h5ad(asked.file), asked.cells)
    matrix = cells.X
    genes = SentenceGenes.of(cells.var_names)
    part = Part(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
    names = cells.obs_names.tolist()
    keys = stream_keys(0, name_keys(names), 0)
    ranked = rank_genes(part, genes, keys, NUM_GENES)

    def rank() -> list[str]:
        keys = stream_keys(0, name_keys(names), 0)
        return to_sentences(rank_genes(part, genes, keys, NUM_GENES), genes)

    def rank_with_numpy() -> list[str]:
        with patch.object(native, "find_native", lambda: None):
            return rank()

    def transform() -> None:
        with open_cells(cells) as source:
            whole = Transform(source, TransformOptions(NUM_GENES))
            for _ in whole.blocks():
                pass
            whole.fit()

    sentences = rank()
    assert sentences == rank_with_numpy(), "the compiled order is another"
    line = Inverse(-0.6, 1.8)
    noisy = [f"{one} {one.split(' ')[3]} nothing" for one in sentences]  # a gene twice, and a word that is none
    ways: dict[str, Callable[[], object]] = {
        "rank and join, compiled": rank,
        "rank and join, NumPy": rank_with_numpy,
        RANK: lambda: rank_genes(part, genes, keys, NUM_GENES),
        JOIN: lambda: to_sentences(ranked, genes),
        TRANSFORM: transform,
        "clean and invert, sentences without faults": lambda: line.of_cleaned(clean_sentences(sentences, genes), genes),
        "clean and invert, a gene twice in each": lambda: line.of_cleaned(clean_sentences(noisy, genes), genes),
    }
    seconds, busy = timed(ways, asked.rounds)
    result = {
        "cells": {
            "file": asked.file.name,
            "repeated_to": asked.cells,
            "values_a_cell": round(matrix.nnz / asked.cells, 1),
        },
        "words_a_sentence": round(float(np.mean([one.count(" ") + 1 for one in sentences])), 1),
        "cells_per_second": {name: rates(asked.cells, one) for name, one in seconds.items()},
        "cells_per_processor_second": {name: rates(asked.cells, one) for name, one in busy.items()},
        "bound": bound(busy, part, ranked, sum(map(len, sentences))),
        "cores": 1,
        "rounds": asked.rounds,
        "load_before": round(os.getloadavg()[0], 1),
        "hardware": hardware(),
    }
    written(results_folder() / "sentences.json", result)
    for name, one in result["cells_per_second"].items():
        print(f"{name}: {one['median']:,} cells/s ({one['least']:,} to {one['most']:,})")


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Call ways in turn, once before the clock counts: their seconds, and those of the processor, round by round."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}  # whoever else uses it
    order = list(ways)
    for number in range(rounds):
        for i in in_turn(len(order), number):
            started, used = time.perf_counter(), time.process_time()
            ways[order[i]]()
            seconds[order[i]].append(time.perf_counter() - started)
            busy[order[i]].append(time.process_time() - used)
    return seconds, busy


def rates(count: int, seconds: list[float]) -> dict[str, int]:
    """Return cells a second: median, least and most of the rounds."""
    found = {"median": float(np.median(seconds)), "least": max(seconds), "most": min(seconds)}
    return {name: round(count / one) for name, one in found.items()}


def bound(seconds: dict[str, list[float]], part: Part, ranked: Ranked, num_letters: int) -> dict[str, object]:
    """Say how long each gene takes, and how much of the time the bytes that have to move would take alone."""
    num_values, num_words, num_cells = len(part.data), len(ranked.genes), part.n_rows
    moved, speed = 8 * num_values + 8 * num_words + num_letters, copied()
    share = moved / speed / float(np.median(seconds[TRANSFORM]))
    return {
        "rank_nanoseconds_an_expressed_gene": round(1e9 * float(np.median(seconds[RANK])) / num_values, 2),
        "join_nanoseconds_a_word": round(1e9 * float(np.median(seconds[JOIN])) / num_words, 2),
        "bytes_moved_a_cell": round(moved / num_cells),
        "copy_gigabytes_per_second": round(speed / 1e9, 1),
        "transform_share_of_time_that_bytes_need": round(share, 3),
        "by": "memory" if share > 0.5 else "instructions",
    }


def copied(num_bytes: int = 1 << 28) -> float:
    """Return bytes a second, read and written, of a plain copy: the best of a few."""
    source, target, best = np.ones(num_bytes, np.uint8), np.empty(num_bytes, np.uint8), np.inf
    for _ in range(4):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2 * num_bytes / best


def repeated(real: ad.AnnData, count: int) -> ad.AnnData:
    """Return `count` cells, those of a file over and over, each under a name of its own."""
    values = sp.csr_matrix(real.X, dtype=np.float32)
    values.eliminate_zeros()
    matrix = sp.csr_matrix(sp.vstack([values] * (-(-count // real.n_obs)), format="csr")[:count])
    return ad.AnnData(
        matrix, obs=pd.DataFrame(index=[f"cell-{i}" for i in range(count)]), var=pd.DataFrame(index=real.var_names)
    )


if __name__ == "__main__":
    main()
