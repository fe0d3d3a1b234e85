"""MMD and its mean by chance, against sums over all pairs and all splits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cellscribe.engine.errors import InputError
from cellscribe.engine.instruct.discrepancy import discrepancy, gammas_of

DRAWS = np.random.default_rng(0)
POINTS, QUERIES = DRAWS.normal(size=(60, 4)), DRAWS.normal(0.3, 1.2, size=(40, 4))


def _by_loops(first: np.ndarray, second: np.ndarray, gammas: tuple[float, ...]) -> float:
    def mean(left: np.ndarray, right: np.ndarray, gamma: float) -> float:
        every = [np.exp(-gamma * ((one - other) ** 2).sum()) for one in left for other in right]
        return float(np.mean(every))

    return sum(mean(first, first, g) - 2 * mean(first, second, g) + mean(second, second, g) for g in gammas)


def test_mmd_is_that_of_two_loops() -> None:
    gammas = (0.1, 0.5, 2.0)
    found = discrepancy(QUERIES[:9], POINTS[:12], gammas)
    assert found.mmd == pytest.approx(_by_loops(QUERIES[:9], POINTS[:12], gammas), rel=1e-9)
    assert discrepancy(POINTS, POINTS, gammas).mmd == pytest.approx(0.0, abs=1e-12)


def test_chance_is_the_mean_over_all_splits() -> None:
    points, gammas = np.concatenate([QUERIES[:3], POINTS[:4]]), (0.3, 1.0)
    splits = []
    for chosen in itertools.combinations(range(7), 3):
        rest = [place for place in range(7) if place not in chosen]
        splits.append(_by_loops(points[list(chosen)], points[rest], gammas))
    assert discrepancy(points[:3], points[3:], gammas).chance == pytest.approx(np.mean(splits), rel=1e-9)


def test_kernels_are_as_wide_as_distances_to_neighbours() -> None:
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=26).fit(POINTS).kneighbors(POINTS)
    gamma = 1 / np.median(distances[:, 1:]) ** 2
    np.testing.assert_allclose(gammas_of(POINTS), (gamma / 2, gamma, 2 * gamma), rtol=1e-9)
    doubles = np.concatenate([np.zeros((40, 4)), POINTS[:5]])
    assert np.isfinite(gammas_of(doubles)).all()
    with pytest.raises(InputError, match="are all alike"):
        gammas_of(np.ones((9, 4)))
