"""Nearest cells, and what their types say, against scikit-learn and plain computations."""

from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.instruct import neighbours as module
from cellscribe.engine.instruct.neighbours import closest, like_themselves, mixing, voted_right

DRAWS = np.random.default_rng(0)
POINTS, QUERIES = DRAWS.normal(size=(60, 4)), DRAWS.normal(0.3, 1.2, size=(40, 4))
TYPES, ASKED = DRAWS.integers(0, 4, 60), DRAWS.integers(0, 4, 40)


@pytest.mark.parametrize("at_once", [130, 4_000_000])
def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    found = closest(POINTS, QUERIES, 7)
    distances, places = NearestNeighbors(n_neighbors=7).fit(POINTS).kneighbors(QUERIES)
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
    among = closest(POINTS, POINTS, 7, are_same=True)
    _, others = NearestNeighbors(n_neighbors=8).fit(POINTS).kneighbors(POINTS)
    np.testing.assert_array_equal(among.places, others[:, 1:])
    for k in (1, 4, 7):
        judge = KNeighborsClassifier(n_neighbors=k).fit(POINTS, TYPES)
        np.testing.assert_array_equal(voted_right(found, TYPES, ASKED, k), judge.predict(QUERIES) == ASKED)
        alike = (TYPES[others[:, 1 : k + 1]] == TYPES[:, None]).mean(axis=1)
        np.testing.assert_allclose(like_themselves(among, TYPES, k), alike)


def test_a_cell_is_not_its_own_neighbour_beside_its_doubles() -> None:
    doubles = np.repeat(POINTS[:5], 3, axis=0)
    found = closest(doubles, doubles, 2, are_same=True)
    assert not (found.places == np.arange(15)[:, None]).any()
    np.testing.assert_array_equal(found.places // 3, np.arange(15)[:, None] // 3 * np.ones((1, 2)))


def test_mixing_counts_neighbours_in_the_union() -> None:
    k, m, n = 6, len(QUERIES), len(POINTS)
    own, other = closest(QUERIES, QUERIES, k, are_same=True), closest(POINTS, QUERIES, k)
    union = closest(np.concatenate([QUERIES, POINTS]), QUERIES, k + 1).places[:, 1:]  # all points differ
    share = (union >= m).mean(axis=1)
    np.testing.assert_allclose(mixing(own, other, m, n, k), share / (n / (n + m - 1)))
