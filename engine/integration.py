"""How well vectors keep cell types apart and batches together: AvgBIO and AvgBATCH, by scib-metrics."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import BackendError, InputError
from cellscribe.engine.keyed import cell_key

Floats = npt.NDArray[np.float32]

MAX_CELLS = 20_000
_LACKING = "the scores need scib-metrics; install it with: pip install 'cellscribe[scores]', or leave them out."
_NEIGHBOURS = 15


@dataclass(frozen=True)
class Integration:
    """Scores from 0 to 1, larger is better, as scGPT averages them.

    Parameters
    ----------
    nmi, ari
        Leiden clusters against cell types, at the resolution of the best NMI.
    asw_label
        Silhouette width of cell types, brought to 0..1.
    avg_bio
        The mean of these three.
    asw_batch, graph_connectivity, avg_batch
        Of batches: silhouette width within cell types, connectivity of cell types among the neighbours, and their
        mean; None without batches.
    num_cells
        Cells that were compared.
    """

    nmi: float
    ari: float
    asw_label: float
    avg_bio: float
    asw_batch: float | None
    graph_connectivity: float | None
    avg_batch: float | None
    num_cells: int

    def as_dict(self) -> dict[str, float | int]:
        """Return the scores that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def check_scores() -> None:
    """Raise BackendError when scib-metrics is not installed, before any work is done for it."""
    if find_spec("scib_metrics") is None:
        raise BackendError(_LACKING)


def integration_scores(
    vectors: Floats, labels: Sequence[str], batches: Sequence[str] | None = None, max_cells: int = MAX_CELLS
) -> Integration:
    """Score vectors.

    Parameters
    ----------
    vectors
        float32 [N, d]; rows of NaN are left out.
    labels, batches
        Cell type and batch of each cell [N]; cells that lack one ("") are left out.
    max_cells
        Of more, this many are drawn, the same ones each time: silhouette widths cost the square of the cells.

    Raises
    ------
    InputError
        When fewer than two cell types (or batches) are left, or fewer cells than neighbours.
    BackendError
        When scib-metrics is not installed.
    """
    types, sets = np.array(labels, dtype=str), None if batches is None else np.array(batches, dtype=str)
    usable = np.isfinite(vectors).all(axis=1) & (types != "")
    if sets is not None:
        usable &= sets != ""
    chosen = np.flatnonzero(usable)
    if len(chosen) > max_cells:
        draws = np.random.default_rng(cell_key(f"integration {len(chosen)}"))
        chosen = np.sort(draws.choice(chosen, max_cells, replace=False))
    vectors, types = vectors[chosen], types[chosen]
    sets = None if sets is None else sets[chosen]
    for what, names in (("cell types", types), ("batches", sets)):
        if names is not None and len(np.unique(names)) < 2:
            raise InputError(
                f"{len(np.unique(names))} of the {what} are left among {len(names):,} cells; two are needed."
            )
    if len(chosen) <= _NEIGHBOURS:
        raise InputError(f"{len(chosen)} cells have vectors and cell types; {_NEIGHBOURS + 1} are needed for scores.")
    return _scores(vectors, types, sets)


def _scores(vectors: Floats, types: npt.NDArray[np.str_], sets: npt.NDArray[np.str_] | None) -> Integration:
    try:
        import scib_metrics as sm
        from scib_metrics.nearest_neighbors import pynndescent
    except ImportError as error:
        raise BackendError(_LACKING) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of jax about devices that are not there
        near = pynndescent(vectors, n_neighbors=_NEIGHBOURS, random_state=0)
        clusters = sm.nmi_ari_cluster_labels_leiden(near, types, optimize_resolution=True, seed=0)
        nmi, ari, asw = float(clusters["nmi"]), float(clusters["ari"]), float(sm.silhouette_label(vectors, types))
        mixed = connected = both = None
        if sets is not None:
            mixed, connected = (
                float(sm.silhouette_batch(vectors, types, sets)),
                float(sm.graph_connectivity(near, types)),
            )
            both = (mixed + connected) / 2
    return Integration(nmi, ari, asw, (nmi + ari + asw) / 3, mixed, connected, both, len(types))
