"""Gene maps as AnnData, which is read as a user's own is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.service.map_values import GeneMap
from cellscribe.engine.service.problems import RequestError


def table_of(maps: Sequence[GeneMap], gene_names: Sequence[str] | None = None) -> AnnData:
    """Return cells with all genes that are named.

    The genes stand in the order of `gene_names`, or of their first mention: ranks of equal values may depend on it.

    Raises
    ------
    RequestError
        422 for a cell that names a gene twice, values that are no counts and no logarithms, or cells without any gene.
    """
    columns: dict[str, int] = {}
    for names in (gene_names or (), *(one.names for one in maps)):
        for name in names:
            columns.setdefault(name, len(columns))
    if not columns:
        raise RequestError(422, "no cell names a gene; give each its genes with their values.", "cells")
    for i, one in enumerate(maps):
        _check(i, one)
    places = [np.array([columns[name] for name in one.names], np.int64) for one in maps]
    indptr = np.cumsum([0, *map(len, places)])
    with np.errstate(over="ignore"):
        values = np.concatenate([one.values for one in maps]).astype(np.float32)
    if not np.isfinite(values).all():
        raise RequestError(422, "a value is larger than float32 holds; send counts.", "cells")
    matrix = sp.csr_matrix((values, np.concatenate(places), indptr), shape=(len(maps), len(columns)))
    matrix.sort_indices()
    matrix.eliminate_zeros()
    obs, var = (pd.DataFrame(index=pd.Index(names)) for names in ([one.cell_id for one in maps], list(columns)))
    return AnnData(matrix, obs=obs, var=var)


def _check(i: int, one: GeneMap) -> None:
    if len(set(one.names)) < len(one.names):
        twice = next(name for name, count in Counter(one.names).items() if count > 1)
        raise RequestError(422, f"cell {one.cell_id!r} names the gene {twice!r} twice; name it once.", f"cells[{i}]")
    bad = np.flatnonzero(~(np.isfinite(one.values) & (one.values >= 0)))
    if len(bad):
        raise RequestError(
            422, f"the gene {one.names[int(bad[0])]!r} of cell {one.cell_id!r} has the value "
            f"{one.values[int(bad[0])]:g}; counts are finite and not negative.", f"cells[{i}]",
        )  # fmt: skip
