"""A run written into an AnnData object."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from cellscribe.engine.errors import OutputError
from cellscribe.engine.output.fields import KEY, fields_of
from cellscribe.engine.output.run import Run


def annotate(adata: AnnData, run: Run, key_added: str = KEY) -> None:
    """Write a run into `adata` in place.

    Parameters
    ----------
    adata
        The cells the run was made from.
    run
        What to write.
    key_added
        The name the keys are made from; :func:`cellscribe.engine.output.fields.fields_of` lists them.

    Raises
    ------
    OutputError
        When `adata` has other cells than the run was made from.
    UsageError
        For a `key_added` that AnnData cannot keep.
    """
    check_cells(run, adata.n_obs, "the AnnData object")
    fields = fields_of(run, adata.n_obs, key_added)
    for name in fields.stale:
        if name in adata.obsm:
            del adata.obsm[name]
    for name in fields.stale_obs:
        if name in adata.obs:
            del adata.obs[name]
    for name, column in fields.obs.items():
        dtype = object if name.endswith("_description") else None
        adata.obs[name] = pd.Series(column, index=adata.obs_names, dtype=dtype)
    for name, array in fields.obsm.items():
        adata.obsm[name] = array
    for name, entry in fields.uns.items():
        adata.uns[name] = entry


def check_cells(run: Run, n_cells: int, where: str) -> None:
    """Raise OutputError unless every result of `run` has its place among `n_cells` cells."""
    last = int(run.rows.max()) if len(run.rows) else -1
    if last >= n_cells or (run.pool_of is not None and len(run.pool_of) != n_cells):
        raise OutputError(
            f"{where} has {n_cells:,} cells, other than when it was read; run again on the cells as they are now."
        )
