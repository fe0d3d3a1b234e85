"""Real cells over and over, each with noise of its own, as one large .h5ad: ``python benchmarks/atlas_cells.py OUT N``.

Every copy of a cell keeps each count with a probability of 0.9, drawn by a generator keyed by the block of cells, so
that no two copies are alike and any block can be made alone. Written block by block, uncompressed, in bounded memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import io as anndata_io
from results_folder import shared_data

KEPT = 0.9
_BLOCK = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("cells", type=int)
    parser.add_argument("--source", type=Path, default=shared_data() / "zheng68k.h5ad")
    asked = parser.parse_args()
    write_noisy(ad.read_h5ad(asked.source), asked.out, asked.cells)


def noisy(counts: sp.csr_matrix, start: int, stop: int) -> sp.csr_matrix:
    """Return cells `start` to `stop` of the endless row of noisy copies; `start` is a multiple of the block."""
    rows = np.arange(start, stop) % counts.shape[0]
    some = sp.csr_matrix(counts[rows])
    draw = np.random.Generator(np.random.Philox(key=start))
    some.data = draw.binomial(some.data.astype(np.int64), KEPT).astype(np.float32)
    some.eliminate_zeros()
    return some


def write_noisy(real: ad.AnnData, out: Path, count: int) -> None:
    """Write `count` noisy copies."""
    counts = sp.csr_matrix(real.X)
    column = real.obs.columns[0]
    kinds = np.asarray(real.obs[column].astype(str))
    obs = pd.DataFrame(
        {"celltype": pd.Categorical(kinds[np.arange(count) % real.n_obs])}, index=[f"cell-{i}" for i in range(count)]
    )
    empty = ad.AnnData(
        sp.csr_matrix((count, real.n_vars), dtype=np.float32), obs=obs, var=pd.DataFrame(index=real.var_names)
    )
    part = out.with_suffix(".part")
    empty.write_h5ad(part)
    with h5py.File(part, "r+") as file:
        del file["X"]
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
        group.attrs["shape"] = np.array([count, real.n_vars])
        data = group.create_dataset("data", (0,), np.float32, maxshape=(None,), chunks=(1 << 18,))
        indices = group.create_dataset("indices", (0,), np.int32, maxshape=(None,), chunks=(1 << 18,))
        lengths = [np.zeros(1, np.int64)]
        for start in range(0, count, _BLOCK):
            some = noisy(counts, start, min(start + _BLOCK, count))
            at = len(data)
            for dataset, values in ((data, some.data), (indices, some.indices)):
                dataset.resize((at + some.nnz,))
                dataset[at:] = values
            lengths.append(np.diff(some.indptr).astype(np.int64))
        anndata_io.write_elem(group, "indptr", np.cumsum(np.concatenate(lengths)))
    part.rename(out)


if __name__ == "__main__":
    main()
