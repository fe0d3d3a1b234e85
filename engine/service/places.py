"""Where cells stand in a map: the file's own, or one made of the model's vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource

Places = tuple[str, npt.NDArray[Any]]

_MAPS = {"X_umap": "UMAP", "X_tsne": "t-SNE", "X_draw_graph_fa": "force-directed graph", "X_pca": "PCA"}


def places_of(source: CellSource) -> Places | None:
    """Return the kind of a file's own map and the places in it [N, 2]; None where it has none."""
    by_name = {name.casefold(): name for name in source.obsm_names}
    for key, kind in _MAPS.items():
        name = by_name.get(key.casefold())
        if name is not None:
            found = source.obsm(name)
            if found.shape[1] >= 2 and np.isfinite(found[:, :2]).all():
                return kind, found[:, :2]
    return None


def places_from(vectors: npt.NDArray[np.float32]) -> Places:
    """Return the first two principal components of vectors [N, d]; cells without a vector stand in the middle."""
    is_good = np.isfinite(vectors).all(axis=1)
    at = np.zeros((len(vectors), 2))
    if is_good.sum() > 2:
        centred = vectors[is_good] - vectors[is_good].mean(axis=0)
        _, _, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        signs = np.where(axes[:2].sum(axis=1) < 0, -1.0, 1.0)
        at[is_good] = (centred @ axes[:2].T) * signs
    return "PCA of vectors", at
