"""Many small clusters of cells, for votes on their labels."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import BackendError

_NEIGHBOURS = 10
# CellTypist's resolutions (its documentation of over_clustering): up to so many cells, and beyond
_RESOLUTIONS = ((5_000, 5.0), (20_000, 10.0), (40_000, 15.0), (100_000, 20.0), (200_000, 25.0))
_MOST = 30.0


def check_clustering() -> None:
    """Raise BackendError when scanpy or igraph is not installed, before any work is done for it."""
    lacking = next((name for name in ("scanpy", "igraph") if find_spec(name) is None), None)
    if lacking is not None:
        raise BackendError(_lacking(lacking))


def over_cluster(vectors: npt.NDArray[np.float32]) -> tuple[str, ...]:
    """Cluster vectors by Leiden, at a resolution that grows with the number of cells.

    Parameters
    ----------
    vectors
        float32 [N, d]; a row of NaN belongs to no cluster.

    Returns
    -------
    The cluster of each cell, "" for none. The same vectors give the same clusters.

    Raises
    ------
    BackendError
        When scanpy or igraph is not installed.
    """
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    clusters = np.full(len(vectors), "", dtype=object)
    clusters[usable] = "0"
    if len(usable) > _NEIGHBOURS:
        clusters[usable] = _leiden(vectors[usable])
    return tuple(clusters.tolist())


def resolution_for(num_cells: int) -> float:
    """Return the resolution for so many cells."""
    return next((resolution for most, resolution in _RESOLUTIONS if num_cells < most), _MOST)


def _leiden(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.object_]:
    try:
        import igraph  # noqa: F401
        import scanpy as sc
    except ImportError as error:
        raise BackendError(_lacking(error.name or "scanpy")) from error
    from anndata import AnnData

    cells = AnnData(vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scanpy about its own future defaults
        sc.pp.neighbors(cells, n_neighbors=_NEIGHBOURS, use_rep="X", metric="cosine", random_state=0)
        sc.tl.leiden(
            cells, resolution_for(len(vectors)), flavor="igraph", n_iterations=2, directed=False, random_state=0
        )
    found: npt.NDArray[np.object_] = cells.obs["leiden"].astype(str).to_numpy(dtype=object)
    return found


def _lacking(name: str) -> str:
    return (
        f"clusters need {name}; install it with: pip install 'cellscribe[clusters]', or name a column of obs that "
        "holds clusters."
    )
