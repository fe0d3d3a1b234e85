"""Where cells lie: singular components of them and maps of those, of both sets together or as InstructCell has it.

InstructCell's evaluation takes components of the real cells alone, fits a UMAP to those, and places the generated cells
in it. That fits the real cells more closely than any others, so that even more cells of the same kind lie apart from
them, the more so the fewer there are. Components and a map of both sets together treat all cells alike.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import svds

if TYPE_CHECKING:
    from umap import UMAP

Doubles = npt.NDArray[np.float64]
Places: TypeAlias = tuple[Doubles, Doubles]  # of the generated and of the real cells, [M, d] and [N, d]

LACKING = "Maps are left out, as they need umap-learn; install it with: pip install 'cellscribe[compare]'."


def has_umap() -> bool:
    """Whether umap-learn can be imported (a package of another kind is called umap, too)."""
    try:
        from umap import UMAP  # noqa: F401
    except ImportError:
        return False
    return True


def components(generated: sp.csr_matrix, real: sp.csr_matrix, number: int = 50) -> Places:
    """Bring cells to the first right singular vectors of both sets together, which are not centred.

    Parameters
    ----------
    generated, real
        float32 [M, S] and [N, S].
    number
        How many at most, [M, number] and [N, number]; fewer for fewer cells or genes than that.
    """
    return _projected(generated, real, _axes(sp.csr_matrix(sp.vstack([generated, real])), number))


def published_components(generated: sp.csr_matrix, real: sp.csr_matrix, number: int = 50) -> Places:
    """Do the same with the singular vectors of the real cells alone."""
    return _projected(generated, real, _axes(real, number))


def joint_map(points: Places, neighbours: int = 40, seed: int = 0) -> Places:
    """Fit a UMAP of two dimensions to both sets together, [M, 2] and [N, 2]."""
    both = np.concatenate(points)
    places = _fitted(both, neighbours, seed).embedding_
    return np.asarray(places[: len(points[0])], np.float64), np.asarray(places[len(points[0]) :], np.float64)


def published_map(points: Places, neighbours: int = 40, seed: int = 0) -> Places:
    """Fit a UMAP to the real cells, and place the generated ones in it, [M, 2] and [N, 2]."""
    generated, real = points
    fitted = _fitted(real, neighbours, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        placed = fitted.transform(generated)
    return np.asarray(placed, np.float64), np.asarray(fitted.embedding_, np.float64)


def _fitted(points: Doubles, neighbours: int, seed: int) -> UMAP:
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about small sets, and one thread
        return UMAP(n_neighbors=min(neighbours, len(points) - 1), random_state=seed, n_jobs=1).fit(points)


def _axes(values: sp.csr_matrix, number: int) -> Doubles:
    number = min(number, min(values.shape) - 1)
    start = np.ones(min(values.shape))  # no random start: the same cells give the same components
    _, _, axes = svds(values.astype(np.float64), k=number, v0=start, tol=1e-6)
    return np.ascontiguousarray(axes[::-1].T)


def _projected(generated: sp.csr_matrix, real: sp.csr_matrix, axes: Doubles) -> Places:
    return np.asarray(generated @ axes, np.float64), np.asarray(real @ axes, np.float64)
