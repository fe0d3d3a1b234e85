"""Highly variable genes, chosen by scanpy with the settings of scGPT's preprocessing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.spec import HvgFlavor
from cellscribe.engine.errors import InputError, UsageError

MAX_CELLS = 50_000


def read_gene_list(path: Path) -> tuple[str, ...]:
    """Return the genes of a text file, one a line; InputError when there are none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The gene list {path} cannot be read ({error}); give a text file with one gene a line."
        ) from error
    genes = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not genes:
        raise InputError(f"The gene list {path} is empty; give a text file with one gene a line.")
    return genes


def choose_hvgs(
    source: CellSource,
    token_of_column: npt.NDArray[np.int64],
    tokens: tuple[str, ...],
    *,
    n_top: int,
    flavor: HvgFlavor = "seurat_v3",
    min_counts: float = 3,
    max_cells: int = MAX_CELLS,
) -> tuple[str, ...]:
    """Choose highly variable genes among those that the vocabulary knows.

    As scGPT's ``Preprocessor`` does: genes below `min_counts` in sum are dropped, then
    ``scanpy.pp.highly_variable_genes`` scores the others: ``seurat_v3`` from counts (ties at the cut-off go to the
    first in the vocabulary), ``cell_ranger`` from values that are normalised to 1e4 and logged (their sum is what
    `min_counts` looks at). Log-normalised sources always take ``cell_ranger``. The genes are given to scanpy in
    vocabulary order, so the choice does not depend on theirs.

    Parameters
    ----------
    source
        The cells.
    token_of_column
        Token id of every column, -1 where unknown, int64 [n_genes].
    tokens
        The vocabulary.
    n_top
        Genes to choose.
    flavor, min_counts
        See above.
    max_cells
        Larger sources are represented by this many cells, spread evenly over their rows.

    Returns
    -------
    The genes, in vocabulary order.

    Raises
    ------
    UsageError
        When scanpy or scikit-misc is missing.
    InputError
        When the choice fails, in a sentence that says what to do instead.
    """
    is_logged = source.value_kind == "lognorm"
    used: HvgFlavor = "cell_ranger" if is_logged else flavor
    scanpy = _scanpy(needs_loess=used == "seurat_v3")
    used_tokens = np.unique(token_of_column[token_of_column >= 0])
    matrix = _matrix(
        source,
        token_of_column,
        used_tokens,
        max_cells,
        logs=used == "cell_ranger" and not is_logged,
        is_logged=is_logged,
    )
    names = [tokens[token] for token in used_tokens]
    adata = AnnData(matrix, var=pd.DataFrame(index=pd.Index(names, dtype=object)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scanpy.pp.filter_genes(adata, min_counts=min_counts)
        chosen = _chosen(scanpy, adata, used, min(n_top, adata.n_vars), source.name)
    return tuple(str(name) for name in adata.var_names[chosen])


def _chosen(scanpy: Any, adata: AnnData, flavor: str, n_top: int, name: str) -> npt.NDArray[np.bool_]:
    if n_top == 0:
        raise InputError(f"No gene of {name} has enough counts to choose from; lower min_counts or give a list.")
    try:
        scanpy.pp.highly_variable_genes(adata, n_top_genes=n_top, flavor=flavor, subset=False)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:120]
        mend = "choose flavour cell_ranger, raise min_counts" if flavor == "seurat_v3" else "take more cells"
        raise InputError(
            f"Highly variable genes of {name} cannot be chosen with {flavor} ({reason}); {mend}, or give a list."
        ) from error
    if flavor == "cell_ranger":
        return np.asarray(adata.var["highly_variable"], dtype=bool)
    score = -np.asarray(adata.var["variances_norm"], dtype=np.float64)
    chosen = np.zeros(adata.n_vars, dtype=bool)
    chosen[np.argsort(score, kind="stable")[:n_top]] = True  # scanpy's own choice among ties differs by machine
    return chosen


def _matrix(
    source: CellSource,
    token_of_column: npt.NDArray[np.int64],
    used_tokens: npt.NDArray[np.int64],
    max_cells: int,
    *,
    logs: bool,
    is_logged: bool,
) -> sp.csr_matrix:
    """Return cells x used tokens; columns of one gene are added up."""
    columns = np.flatnonzero(token_of_column >= 0)
    slots = np.searchsorted(used_tokens, token_of_column[columns])
    shape = (source.n_genes, len(used_tokens))
    gather = sp.csr_matrix((np.ones(len(columns), np.float32), (columns, slots)), shape=shape)
    step = max(1.0, source.n_cells / max_cells)
    rows = np.arange(0, source.n_cells, step).astype(np.int64)
    parts = []
    for block in source.blocks(rows):
        totals = np.asarray(block.matrix.sum(axis=1, dtype=np.float64)).ravel()
        values = block.matrix
        if is_logged:  # several columns of one gene add up before the logarithm
            values = values.copy()
            values.data = np.expm1(values.data)
        part = sp.csr_matrix(values @ gather)
        if is_logged:
            part.data = np.log1p(part.data)
        if logs:
            scale = (np.where(totals > 0, totals, 1.0) / 1e4).astype(np.float32)
            part.data = np.log1p(part.data / np.repeat(scale, np.diff(part.indptr)))
        parts.append(part)
    stacked = sp.csr_matrix(sp.vstack(parts, format="csr"))
    stacked.sort_indices()
    return stacked


def _scanpy(*, needs_loess: bool) -> Any:
    """Import scanpy, which only this module needs."""
    try:
        import scanpy

        if needs_loess:
            import skmisc.loess  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"Choosing highly variable genes needs {error.name or 'scanpy'}; `pip install 'cellscribe[hvg]'`, "
            "or give a list of genes."
        ) from error
    return scanpy
