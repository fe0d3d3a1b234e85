"""Small cell files for the tests of atlases."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe.engine.packaged import packaged_cells


def some_cells(count: int, start: int = 0, prefix: str = "") -> ad.AnnData:
    """Return packaged cells, named by their rows, with a column ``tissue`` of two values and one of numbers."""
    whole = ad.read_h5ad(packaged_cells())
    rows = np.arange(start, start + count) % whole.n_obs
    cells = whole[rows].copy()
    cells.obs_names = [f"{prefix}{row}-{name}" for row, name in zip(rows, whole.obs_names[rows], strict=True)]
    cells.obs = pd.DataFrame(
        {
            "tissue": pd.Categorical(["blood", "liver"] * (count // 2) + ["blood"] * (count % 2)),
            "depth": np.arange(count),
        },
        index=cells.obs_names,
    )
    cells.X = sp.csr_matrix(cells.X)
    return cells


def write_cells(path: Path, count: int, start: int = 0, prefix: str = "") -> Path:
    """Write :func:`some_cells`."""
    some_cells(count, start, prefix).write_h5ad(path)
    return path
