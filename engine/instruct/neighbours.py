"""Nearest cells by Euclidean distance, and what their types say: sKNN, pKNN and mixing.

sKNN and pKNN are those of InstructCell (Fang et al., 2025), whose code calls them biological preservation and
simulation: the first looks at generated cells alone, the second classifies them by real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_AT_ONCE = 4_000_000  # distances that are held at the same time


@dataclass(frozen=True, eq=False)
class Near:
    """The nearest points of queries: `places` int64 and `distances` float64 [Q, k], the nearest first."""

    places: Ints
    distances: Doubles


def closest(points: Doubles, queries: Doubles, k: int, *, are_same: bool = False) -> Near:
    """Find the points nearest to every query by comparing all.

    Parameters
    ----------
    points, queries
        float64 [N, d] and [Q, d].
    k
        How many; at most N, or N - 1 where the queries are the points.
    are_same
        The queries are the points; none is its own neighbour, whatever others lie on the same place.
    """
    k = min(k, len(points) - are_same)
    places, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    step = max(1, _AT_ONCE // len(points))
    for start in range(0, len(queries), step):
        found = squared_distances(queries[start : start + step], points)
        here = np.arange(len(found))
        if are_same:
            found[here, start + here] = np.inf
        some = np.sort(np.argpartition(found, k - 1, axis=1)[:, :k], axis=1)
        far = np.take_along_axis(found, some, 1)
        order = np.argsort(far, axis=1, kind="stable")
        places[start : start + step] = np.take_along_axis(some, order, 1)
        distances[start : start + step] = np.sqrt(np.take_along_axis(far, order, 1))
    return Near(places, distances)


def squared_distances(left: Doubles, right: Doubles) -> Doubles:
    """Return the squared distances of all pairs, float64 [L, R], never below zero."""
    found = left @ right.T
    found *= -2.0
    found += (left * left).sum(axis=1)[:, None]
    found += (right * right).sum(axis=1)
    return np.maximum(found, 0.0, out=found)


def like_themselves(near: Near, types: Ints, k: int) -> Doubles:
    """Return the share of every cell's k nearest cells of its own set that are of its type, [N].

    Its mean over generated cells is sKNN: 1 where the generated types keep apart from each other. It does not look at
    real cells; those give the value to expect.
    """
    return np.asarray((types[near.places[:, :k]] == types[:, None]).mean(axis=1))


def voted_right(near: Near, voters: Ints, types: Ints, k: int) -> Flags:
    """Say for every cell whether its k nearest voters elect its own type, bool [Q].

    For generated cells among real voters the mean is pKNN: the accuracy of a classifier by the k nearest real cells,
    each with one vote, in guessing the type that a generated cell was asked for. Of equal counts the smallest type
    wins.

    Parameters
    ----------
    voters, types
        Types of the points and of the queries, int64 [N] and [Q].
    """
    votes = voters[near.places[:, :k]]
    counts = np.stack([(votes == one).sum(axis=1) for one in range(int(voters.max()) + 1)], axis=1)
    return np.asarray(counts.argmax(axis=1) == types)


def mixing(own: Near, other: Near, num_own: int, num_other: int, k: int) -> Doubles:
    """Return how much of every cell's neighbourhood is of the other set, relative to chance, [N].

    That is the share of cells of the other set among its k nearest in both sets, divided by what sets that lie alike
    give: num_other / (num_own + num_other - 1). 1 is as mixed as chance has it, 0 is a set among itself.

    Parameters
    ----------
    own, other
        At least k neighbours (or all) in the own set, itself left out, and in the other one.
    """
    both = np.concatenate([other.distances[:, :k], own.distances[:, :k]], axis=1)
    first = np.argsort(both, axis=1, kind="stable")[:, :k]
    share = (first < min(k, other.distances.shape[1])).mean(axis=1)
    return np.asarray(share * (num_own + num_other - 1) / num_other)


def sizes_that_fit(wanted: Sequence[int], num_points: int) -> tuple[int, ...]:
    """Return the numbers of neighbours that sets of so many cells have, rising."""
    return tuple(sorted({k for k in wanted if k < num_points}))
