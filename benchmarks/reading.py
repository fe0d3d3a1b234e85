"""How fast are cells read from each kind of file? ``python benchmarks/reading.py [CELLS.h5ad]``.

The cells of one file, over and over, are written as each kind (repeats compress better than as many other cells do);
the kinds take turns. A reading process opens them and
sends blocks of 512 cells, in order, to this one; files were just written and lie in the page cache. Opening is a line
of its own: the process starts, names are read and values sampled; text is parsed, and genes are turned into cells.

Writes benchmarks/results/reading.json: cells a second of the blocks alone and with opening, and for text the entries
that are parsed a second, in one process without a pipe.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from hardware import hardware, written
from pyarrow import csv
from results_folder import results_folder, shared_data
from sentences import rates, repeated

from cellscribe.engine.bench.clock import in_turn
from cellscribe.engine.cells import ReadLimits, open_cells
from cellscribe.engine.cells.tenx_mtx import TenxMtx
from cellscribe.engine.versions import versions

BLOCK_CELLS = 512
LIMITS = ReadLimits(full_check_values=0)  # opening samples as it does large files, and leaves nothing unpacked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=shared_data() / "zheng68k.h5ad")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # anndata's, about formats
    cells = repeated(ad.read_h5ad(asked.file), asked.cells)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: write(cells, Path(folder)) for name, write in WRITERS.items()}
        known = {name: checked(path, cells) for name, path in paths.items()}
        opening: dict[str, list[float]] = {name: [] for name in paths}
        blocks: dict[str, list[float]] = {name: [] for name in paths}
        order = list(paths)
        for number in range(asked.rounds):
            for i in in_turn(len(order), number):
                first, second = timed(paths[order[i]])
                opening[order[i]].append(first)
                blocks[order[i]].append(second)
        parsed = {name: parsing(paths[name], asked.rounds) for name in ("10x mtx", "10x mtx.gz")}
    whole = {name: [a + b for a, b in zip(opening[name], blocks[name], strict=True)] for name in order}
    result = {
        "cells": {
            "file": asked.file.name,
            "repeated_to": asked.cells,
            "values_a_cell": round(cells.X.nnz / asked.cells, 1),
            "genes": cells.n_vars,
        },
        "block_cells": BLOCK_CELLS,
        "megabytes": known,
        "opening_seconds": {name: round(float(np.median(one)), 3) for name, one in opening.items()},
        "cells_per_second": {name: rates(asked.cells, one) for name, one in blocks.items()},
        "cells_per_second_with_opening": {name: rates(asked.cells, one) for name, one in whole.items()},
        "entries_parsed_per_second": {name: rates(cells.X.nnz, one) for name, one in parsed.items()},
        "rounds": asked.rounds,
        "load_before": round(os.getloadavg()[0], 1),
        "hardware": hardware(),
        "versions": versions() | {name: version(name) for name in ("h5py", "numcodecs", "pyarrow", "zarr")},
    }
    written(results_folder() / "reading.json", result)
    for name, one in blocks.items():
        rate, start = asked.cells / float(np.median(one)), float(np.median(opening[name]))
        print(f"{name}: {rate:,.0f} cells/s after {start:.2f} s of opening")


def timed(path: Path) -> tuple[float, float]:
    """Return the seconds of opening, and of all blocks."""
    started = time.perf_counter()
    with open_cells(path, limits=LIMITS) as source:
        opened = time.perf_counter()
        for _ in source.blocks(block_cells=BLOCK_CELLS):
            pass
        return opened - started, time.perf_counter() - opened


def parsing(folder: Path, rounds: int) -> list[float]:
    """Return the seconds of turning text into rows."""
    seconds = []
    for _ in range(rounds):
        tenx = TenxMtx(folder, folder.name, ReadLimits(), lambda: None)
        started = time.perf_counter()
        tenx.open_matrix("X")
        seconds.append(time.perf_counter() - started)
    return seconds


def checked(path: Path, cells: ad.AnnData) -> float:
    """Return the size in megabytes of a file that gives the cells it was made of."""
    with open_cells(path) as source:
        start = 0
        for block in source.blocks(block_cells=BLOCK_CELLS):
            known = cells.X[start : start + len(block.rows)]
            assert np.array_equal(block.part.indices, known.indices), path
            assert np.array_equal(block.part.data, known.data), path
            start += len(block.rows)
        assert start == cells.n_obs, path
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return round(sum(one.stat().st_size for one in files) / 1e6, 1)


def h5ad(cells: ad.AnnData, folder: Path, compression: str | None, layout: Callable[..., object]) -> Path:
    path = folder / f"{compression}-{layout.__name__}.h5ad"
    ad.AnnData(layout(cells.X), obs=cells.obs, var=cells.var).write_h5ad(path, compression=compression)
    return path


def tenx_h5(cells: ad.AnnData, folder: Path) -> Path:
    """Write as Cell Ranger 3 and later do: chunks of 80,000 values, gzip."""
    path = folder / "tenx.h5"
    names = [str(one).encode() for one in cells.var_names]
    arrays = {
        "barcodes": np.array([one.encode() for one in cells.obs_names]),
        "features/id": np.array(names),
        "features/name": np.array(names),
        "features/feature_type": np.array([b"Gene Expression"] * cells.n_vars),
        "data": cells.X.data.astype(np.int32),
        "indices": cells.X.indices.astype(np.int64),
        "indptr": cells.X.indptr.astype(np.int64),
        "shape": np.array(cells.X.shape[::-1], dtype=np.int32),
    }
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            chunks = (min(80_000, len(array)),)
            file.create_dataset(f"matrix/{name}", data=array, chunks=chunks, compression="gzip", compression_opts=4)
    return path


def tenx_mtx(cells: ad.AnnData, folder: Path, is_packed: bool) -> Path:
    """Write the three files of Cell Ranger."""
    target = folder / ("packed" if is_packed else "plain")
    target.mkdir()
    (target / "barcodes.tsv").write_text("".join(f"{one}\n" for one in cells.obs_names))
    (target / "features.tsv").write_text("".join(f"{one}\t{one}\tGene Expression\n" for one in cells.var_names))
    coo = cells.X.tocoo()
    columns = (coo.col + 1, coo.row + 1, coo.data.astype(np.int64))
    options = csv.WriteOptions(include_header=False, delimiter=" ")
    with (target / "matrix.mtx").open("wb") as file:
        head = "%%MatrixMarket matrix coordinate integer general"
        file.write(f"{head}\n{cells.n_vars} {cells.n_obs} {coo.nnz}\n".encode())
        csv.write_csv(pa.table(list(map(pa.array, columns)), names=["gene", "cell", "count"]), file, options)
    if is_packed:
        for path in list(target.iterdir()):
            with path.open("rb") as source, gzip.open(f"{path}.gz", "wb", 6) as packed:
                shutil.copyfileobj(source, packed, 1 << 20)
            path.unlink()
    return target


def zarr_store(cells: ad.AnnData, folder: Path, number: int) -> Path:
    path = folder / f"format-{number}.zarr"
    with ad.settings.override(zarr_write_format=number):
        cells.write_zarr(path)
    return path


WRITERS: dict[str, Callable[[ad.AnnData, Path], Path]] = {
    "h5ad": lambda cells, folder: h5ad(cells, folder, None, sp.csr_matrix),
    "h5ad, gzip": lambda cells, folder: h5ad(cells, folder, "gzip", sp.csr_matrix),
    "h5ad, by genes (CSC)": lambda cells, folder: h5ad(cells, folder, None, sp.csc_matrix),
    "10x h5": tenx_h5,
    "10x mtx": lambda cells, folder: tenx_mtx(cells, folder, False),
    "10x mtx.gz": lambda cells, folder: tenx_mtx(cells, folder, True),
    "zarr, format 2": lambda cells, folder: zarr_store(cells, folder, 2),
    "zarr, format 3": lambda cells, folder: zarr_store(cells, folder, 3),
}


if __name__ == "__main__":
    main()
