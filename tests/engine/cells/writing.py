"""Cells written as each kind of file that is read."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp
from anndata import AnnData, settings

GENE_TYPE = "Gene Expression"


def texts(values) -> np.ndarray:
    return np.array([str(one).encode() for one in values])


def ids_of(cells: AnnData) -> list[str]:
    """Return ids of no gene there is."""
    return [f"ENSG99{place:09d}" for place in range(cells.n_vars)]


def types_of(cells: AnnData) -> list[str]:
    return list(cells.var.get("feature_types", [GENE_TYPE] * cells.n_vars))


def h5ad(cells: AnnData, folder: Path) -> Path:
    cells.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


def tenx_h5(cells: AnnData, folder: Path, version: int = 3) -> Path:
    matrix = sp.csr_matrix(cells.X)
    with h5py.File(folder / "cells.h5", "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        group["barcodes"] = texts(cells.obs_names)
        group["data"], group["indices"] = matrix.data.astype(np.int32), matrix.indices.astype(np.int64)
        group["indptr"], group["shape"] = matrix.indptr.astype(np.int64), np.array(matrix.shape[::-1], np.int32)
        if version == 2:
            group["genes"], group["gene_names"] = texts(ids_of(cells)), texts(cells.var_names)
            return folder / "cells.h5"
        columns = {"id": ids_of(cells), "name": cells.var_names, "feature_type": types_of(cells)}
        for name, column in (columns | {"genome": ["GRCh38"] * cells.n_vars}).items():
            group[f"features/{name}"] = texts(column)
    return folder / "cells.h5"


def tenx_mtx(cells: AnnData, folder: Path, version: int = 3) -> Path:
    target = folder / "matrices"
    target.mkdir(exist_ok=True)
    entries = sp.csr_matrix(cells.X).tocoo()
    lines = [f"{g + 1} {c + 1} {v:.0f}" for c, g, v in zip(entries.row, entries.col, entries.data, strict=True)]
    head = ["%%MatrixMarket matrix coordinate integer general", "%metadata_json: {}"]
    size = f"{cells.n_vars} {cells.n_obs} {entries.nnz}"
    named = list(zip(ids_of(cells), cells.var_names, types_of(cells), strict=True))
    features = named if version == 3 else [row[:2] for row in named]
    files = {
        "matrix.mtx": [*head, size, *lines],
        "barcodes.tsv": list(cells.obs_names),
        "features.tsv" if version == 3 else "genes.tsv": ["\t".join(row) for row in features],
    }
    for name, rows in files.items():
        text = "".join(f"{row}\n" for row in rows).encode()
        path = target / (f"{name}.gz" if version == 3 else name)
        path.write_bytes(gzip.compress(text, 1) if version == 3 else text)
    return target


def zarr_store(cells: AnnData, folder: Path, version: int = 3) -> Path:
    with warnings.catch_warnings(), settings.override(zarr_write_format=version, allow_write_nullable_strings=True):
        warnings.simplefilter("ignore")
        cells.write_zarr(folder / "cells.zarr")
    return folder / "cells.zarr"


WRITERS: dict[str, Callable[[AnnData, Path], Path]] = {
    "h5ad": h5ad,
    "10x-h5-3": tenx_h5,
    "10x-h5-2": lambda cells, folder: tenx_h5(cells, folder, 2),
    "10x-mtx-3": tenx_mtx,
    "10x-mtx-2": lambda cells, folder: tenx_mtx(cells, folder, 2),
    "zarr-3": zarr_store,
    "zarr-2": lambda cells, folder: zarr_store(cells, folder, 2),
}
