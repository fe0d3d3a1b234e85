"""Maximum mean discrepancy (MMD) of two sets of points, with Gaussian kernels of several widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import InputError
from cellscribe.engine.instruct.neighbours import closest, squared_distances

Doubles = npt.NDArray[np.float64]

_AT_ONCE = 4_000_000  # distances that are held at the same time
_WIDTHS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Discrepancy:
    """The discrepancy of two sets, and `chance`: its mean over random splits of their union into sets of such sizes."""

    mmd: float
    chance: float


def gammas_of(points: Doubles, neighbours: int = 25) -> tuple[float, ...]:
    """Choose kernels exp(-gamma d^2) for points, as InstructCell does.

    gamma is 1 / m^2, where m is the median of the distances of all points to their `neighbours` nearest (Shaham et al.,
    Bioinformatics 2017); half and double of it are taken, too.

    Raises
    ------
    InputError
        When all points are alike.
    """
    distances = closest(points, points, neighbours, are_same=True).distances
    median = float(np.median(distances))
    if median == 0.0:  # of more doubles than not: what is left tells the scale
        median = float(np.median(distances[distances > 0])) if distances.any() else 0.0
    if median == 0.0:
        raise InputError("the real cells are all alike, so there is nothing to compare with; give other ones.")
    return tuple(width / median**2 for width in _WIDTHS)


def discrepancy(first: Doubles, second: Doubles, gammas: Sequence[float]) -> Discrepancy:
    """Compare two sets of points.

    Parameters
    ----------
    first, second
        float64 [M, d] and [N, d].
    gammas
        Kernels exp(-gamma d^2), whose discrepancies are added up.

    Returns
    -------
    The biased squared discrepancy (Gretton et al., JMLR 2012): the mean kernel within the first set, plus that within
    the second, minus twice the one between them, a point's kernel with itself counted. That makes it larger than zero
    for equal distributions, the more so for small sets, and `chance` says how much.
    """
    m, n = len(first), len(second)
    within, between, other = (_sums(*pair, gammas) for pair in ((first, first), (first, second), (second, second)))
    mmd = within / m**2 - 2.0 * between / (m * n) + other / n**2
    pairs = (within - m + 2.0 * between + other - n) / ((m + n) * (m + n - 1))
    return Discrepancy(max(0.0, float(mmd.sum())), float(((1.0 - pairs) * (1 / m + 1 / n)).sum()))


def _sums(left: Doubles, right: Doubles, gammas: Sequence[float]) -> Doubles:
    """Add up the kernels of all pairs, one sum for each gamma."""
    total = np.zeros(len(gammas))
    step = max(1, _AT_ONCE // len(right))
    for start in range(0, len(left), step):
        found = squared_distances(left[start : start + step], right)
        total += [float(np.exp(-gamma * found).sum()) for gamma in gammas]
    return total
