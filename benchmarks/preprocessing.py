"""How fast are cells read and binned? ``python benchmarks/preprocessing.py CELLS.h5ad [--library FILE.so]``.

Three ways take turns in one run: scanpy's normalisation and scGPT's loop over dense cells; the tokenizer with NumPy
alone; the tokenizer with its compiled code. First they are compared: NumPy and compiled bit for bit, and both with
the edges of the loop and with its digits where they are not drawn. The cells of the file are repeated up to
``--cells``, and 1,200 highly variable genes are fed from float32 CSR in memory: a matrix of those genes, and one of
all genes of the file. The tokenizer is also timed from .h5ad files, which a second process reads on the same cores.

Writes benchmarks/results/preprocessing.json: cells a second on one core and one thread, and on two; by the clock, and
by the processor time of this process, which other work on the machine changes less. The loop is timed up to its
digits and edges, the tokenizer up to token batches of 32 cells; opening and matching genes once is a line of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from hardware import hardware, written
from results_folder import results_folder, shared_data

from cellscribe.engine.bench.clock import in_turn
from cellscribe.engine.cells import CellInput, CellTokenizer, GeneVocabulary, choose_hvgs, native_binning, open_cells
from cellscribe.engine.cells.genes import match_genes
from cellscribe.engine.cells.native_binning import NativeBinning
from cellscribe.engine.versions import versions

SPEC = CellInput("fixed", "hvg", 1200)
Seconds = tuple[float, float]  # by the clock, of the processor
Run = Callable[[], Seconds]


def upstream(cells: ad.AnnData, genes: list[str]) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.float64]]]:
    """What scGPT 0.2.5's Preprocessor does to an AnnData object, which is changed."""
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    kept = cells if cells.n_vars == len(genes) else cells[:, genes]
    digits, edges = [], []
    for row in kept.X.toarray():
        binned = np.zeros(len(row), dtype=np.int64)
        places = row.nonzero()[0]
        found = np.zeros(SPEC.n_bins - 1)
        if len(places):
            values = row[places]
            found = np.quantile(values, np.linspace(0, 1, SPEC.n_bins - 1))
            left, right = np.digitize(values, found), np.digitize(values, found, right=True)
            binned[places] = np.ceil(np.random.rand(len(values)) * (right - left) + left)  # noqa: NPY002
        digits.append(binned)
        edges.append(found)
    return np.stack(digits), edges


def in_threads(n_threads: int, work: Callable[[npt.NDArray[np.int64]], object], n_cells: int) -> Seconds:
    """Time `work` on rows shared out among threads."""
    parts = np.array_split(np.arange(n_cells), n_threads)
    threads = [threading.Thread(target=work, args=(part,)) for part in parts[1:]]
    start, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    work(parts[0])
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, time.process_time() - cpu


@contextmanager
def way_of(native: NativeBinning | None) -> Iterator[None]:
    with patch.object(native_binning, "find_native", lambda: native):
        yield


def time_upstream(cells: ad.AnnData, genes: list[str], n_threads: int) -> Seconds:
    copies = {part[0]: cells[part].copy() for part in np.array_split(np.arange(cells.n_obs), n_threads)}
    return in_threads(n_threads, lambda rows: upstream(copies[rows[0]], genes), cells.n_obs)


def time_tokenizer(
    cells: ad.AnnData | Path, vocabulary: GeneVocabulary, genes: list[str], native: NativeBinning | None, n_threads: int
) -> Seconds:
    with way_of(native), open_cells(cells) as source:
        tokenizer = CellTokenizer(SPEC, vocabulary, source, hvg=genes)
        work = lambda rows: deque(tokenizer.batches(rows, batch_cells=32), maxlen=0)  # noqa: E731
        return in_threads(n_threads, work, source.n_cells)


def time_opening(cells: ad.AnnData, vocabulary: GeneVocabulary, genes: list[str]) -> float:
    start = time.perf_counter()
    with open_cells(cells) as source:
        CellTokenizer(SPEC, vocabulary, source, hvg=genes)
    return time.perf_counter() - start


def compare(
    cells: ad.AnnData, vocabulary: GeneVocabulary, genes: list[str], native: NativeBinning | None
) -> dict[str, Any]:
    """Check that the ways agree where they must, and say how far."""
    digits, edges = upstream(cells.copy(), genes)
    values = cells.copy()
    sc.pp.normalize_total(values, target_sum=1e4)
    sc.pp.log1p(values)
    dense = values[:, genes].X.toarray()
    order = np.argsort([vocabulary.index[gene] for gene in genes])  # the tokenizer feeds them in vocabulary order
    made = {}
    for n_bins in (SPEC.n_bins, 0):
        for name, functions in (("numpy", None), ("native", native)):
            with way_of(functions), open_cells(cells) as source:
                spec = CellInput("fixed", "hvg", 1200, n_bins=n_bins)
                batches = CellTokenizer(spec, vocabulary, source, hvg=genes).batches()
                made[name, n_bins] = np.concatenate([batch.values[:, 1:] for batch in batches])
    for n_bins in (SPEC.n_bins, 0):
        assert made["numpy", n_bins].tobytes() == made["native", n_bins].tobytes(), "compiled code and NumPy differ"
    ours, ours_logged = made["numpy", SPEC.n_bins].astype(np.int64), made["numpy", 0]
    upstream_digits, dense = digits[:, order], dense[:, order]
    n_drawn, relative, largest = 0, [], 0.0
    for row, (values_of, found) in enumerate(zip(dense, edges, strict=True)):
        places = values_of.nonzero()[0]
        if not len(places):
            assert not ours[row].any()
            continue
        again = np.quantile(ours_logged[row][places].astype(np.float64), np.linspace(0, 1, SPEC.n_bins - 1))
        largest = max(largest, float(np.abs(again / found - 1).max()))
        left, right = np.digitize(values_of[places], found), np.digitize(values_of[places], found, right=True)
        low = np.minimum(left, right + 1)
        mine = ours[row][places]
        assert ((mine >= low) & (mine <= left)).all(), "a digit outside the loop's interval"
        fixed = low == left
        assert (mine[fixed] == upstream_digits[row][places][fixed]).all(), "a digit that is not drawn differs"
        drawn = (left - low)[~fixed]
        n_drawn += len(drawn)
        relative.append([(d - low)[~fixed] / drawn for d in (mine, upstream_digits[row][places])])
    means = [float(np.concatenate([pair[i] for pair in relative]).mean()) for i in (0, 1)]
    assert largest < 2e-6, "edges differ"
    assert abs(means[0] - means[1]) < 0.01, "ties are spread otherwise"
    return {
        "cells_compared": cells.n_obs,
        "numpy_and_native": "equal bit for bit",
        "edges_largest_relative_difference": largest,
        "digits": "equal where determined, within the loop's interval where drawn",
        "share_of_digits_drawn": n_drawn / int((ours > 0).sum()),
        "mean_place_in_the_interval": {"tokenizer": means[0], "upstream": means[1]},
    }


def spread(numbers: list[float], digits: int = 0) -> dict[str, float]:
    found = {"median": np.median(numbers), "least": min(numbers), "most": max(numbers)}
    return {name: round(float(number), digits) for name, number in found.items()}


def measure(runs: dict[str, Run], rounds: int, n_cells: int) -> dict[str, Any]:
    """Let the ways take turns; each round is one run of each, after one that does not count."""
    for run in runs.values():
        run()
    names = list(runs)
    seconds = [{names[i]: runs[names[i]]() for i in in_turn(len(names), number)} for number in range(rounds)]
    result: dict[str, Any] = {}
    for name in runs:
        result[name] = {"cells_per_second": spread([n_cells / one[name][0] for one in seconds])}
        if not name.startswith("h5ad"):
            result[name]["cells_per_processor_second"] = spread([n_cells / one[name][1] for one in seconds])
            result[name]["times_upstream"] = spread([one["upstream"][0] / one[name][0] for one in seconds], 1)
            ratios = [one["upstream"][1] / one[name][1] for one in seconds]
            result[name]["times_upstream_by_processor_time"] = spread(ratios, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Times reading and binning.")
    parser.add_argument(
        "file", type=Path, nargs="?", default=shared_data() / "scp1884.h5ad", help="cells of 1,200 genes and more"
    )
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--library", type=Path, help="library with the compiled binning; default: the package's")
    asked = parser.parse_args()
    if not asked.file.is_file():
        raise SystemExit(f"{asked.file} does not exist; name an .h5ad file with counts of 1,200 genes or more.")
    native = native_binning.opened(ctypes.CDLL(str(asked.library))) if asked.library else native_binning.find_native()
    if native is None:
        raise SystemExit("There is no compiled binning here; build the package with a C++ compiler.")
    warnings.simplefilter("ignore")
    real = ad.read_h5ad(asked.file)
    real = ad.AnnData(sp.csr_matrix(real.X, dtype=np.float32), var=pd.DataFrame(index=real.var_names))
    vocabulary = GeneVocabulary(("<pad>", "<cls>", *real.var_names))
    with open_cells(real) as source:
        tokens = match_genes(source.var_names, vocabulary).token_of_column
        genes = list(choose_hvgs(source, tokens, vocabulary.tokens, n_top=SPEC.num_genes))
    repeats = -(-asked.cells // real.n_obs)
    matrix = sp.csr_matrix(sp.vstack([real.X] * repeats, format="csr")[: asked.cells])
    names = pd.DataFrame(index=[f"cell-{i}" for i in range(asked.cells)])
    whole = ad.AnnData(matrix, obs=names, var=real.var)
    inputs = {"csr_of_1200_genes": whole[:, genes].copy(), "csr_of_all_genes": whole}
    result: dict[str, Any] = {
        "cells": {"file": asked.file.name, "real": real.n_obs, "repeated_to": asked.cells},
        "checks": compare(real, vocabulary, genes, native),
        "runs": [],
    }
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for (name, cells), n in product(inputs.items(), (1, 2)):
            path = Path(folder) / f"{name}.h5ad"
            if not path.exists():
                cells.write_h5ad(path)
            os.sched_setaffinity(0, cores[:n])
            runs: dict[str, Run] = {
                "upstream": partial(time_upstream, cells, genes, n),
                "numpy": partial(time_tokenizer, cells, vocabulary, genes, None, n),
                "native": partial(time_tokenizer, cells, vocabulary, genes, native, n),
                "h5ad_numpy": partial(time_tokenizer, path, vocabulary, genes, None, 1),
                "h5ad_native": partial(time_tokenizer, path, vocabulary, genes, native, 1),
            }
            row = {
                "input": name,
                "genes": cells.n_vars,
                "values_a_cell": round(cells.X.nnz / cells.n_obs, 1),
                "cores_and_threads": n,
                "load_before": round(os.getloadavg()[0], 1),  # other work on the machine
                **measure(runs, asked.rounds, asked.cells),
                "opening_ms": spread([1e3 * time_opening(cells, vocabulary, genes) for _ in range(asked.rounds)], 1),
            }
            result["runs"].append(row)
            print(json.dumps(row), flush=True)
    os.sched_setaffinity(0, cores)
    result |= {"rounds": asked.rounds, "hardware": hardware(), "versions": versions() | {"scanpy": sc.__version__}}
    written(results_folder() / "preprocessing.json", result)


if __name__ == "__main__":
    main()
