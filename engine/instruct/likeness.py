"""How alike generated and real cells are in one space: the figures of InstructCell's evaluation, and mixing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.instruct.discrepancy import Discrepancy, discrepancy, gammas_of
from cellscribe.engine.instruct.neighbours import closest, like_themselves, mixing, voted_right

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SHARES = ("sknn", "sknn_real", "pknn", "pknn_real", "mixing", "mixing_real")


@dataclass(frozen=True, eq=False)
class Shares:
    """A figure for each number of neighbours: `whole` of all cells [K], `by_type` [K, T], NaN for types without any."""

    whole: Doubles
    by_type: Doubles

    def as_dict(self, sizes: Sequence[int], types: Sequence[str]) -> dict[str, Any]:
        """Return the figures by number of neighbours, NaN as None."""
        return {
            str(k): {"all": number(one), "by_type": {name: number(x) for name, x in zip(types, row, strict=True)}}
            for k, one, row in zip(sizes, self.whole, self.by_type, strict=True)
        }


@dataclass(frozen=True, eq=False)
class Likeness:
    """Figures of one space.

    Parameters
    ----------
    neighbours
        Their numbers [K].
    sknn
        Share of a generated cell's nearest generated cells that are of its type, meaned over cells.
    sknn_real
        The same of real cells among real ones: what to expect, as all that is of real cells here, of those that are
        `alike` (:func:`likeness`).
    pknn
        Share of generated cells whose nearest real cells elect the type that was asked for; those of types that no real
        cell has are left out.
    pknn_real
        The same of real cells, each without itself.
    mixing
        Real cells among a generated cell's nearest of both sets, relative to chance; below 1 generated cells lie apart.
    mixing_real
        Generated cells among a real cell's nearest; below 1 parts of the real cells are not reached.
    mmd, mmd_by_type
        Discrepancy of all cells, and of those of a type [T], None where either set has fewer than two.
    gammas
        Of its kernels.
    """

    neighbours: tuple[int, ...]
    sknn: Shares
    sknn_real: Shares
    pknn: Shares
    pknn_real: Shares
    mixing: Shares
    mixing_real: Shares
    mmd: Discrepancy
    mmd_by_type: tuple[Discrepancy | None, ...]
    gammas: tuple[float, ...]

    def as_dict(self, types: Sequence[str], names: Sequence[str] = SHARES) -> dict[str, Any]:
        """Return the figures for JSON, of the shares those of some names."""
        shares = {name: getattr(self, name).as_dict(self.neighbours, types) for name in names}
        by_type = {
            name: None if one is None else {"mmd": one.mmd, "chance": one.chance}
            for name, one in zip(types, self.mmd_by_type, strict=True)
        }
        mmd = {"all": self.mmd.mmd, "chance": self.mmd.chance, "by_type": by_type, "gammas": list(self.gammas)}
        return {**shares, "mmd": mmd}


def likeness(
    generated: Doubles,
    real: Doubles,
    types: tuple[Ints, Ints],
    num_types: int,
    neighbours: Sequence[int],
    gammas: Sequence[float] | None = None,
    bandwidth_neighbours: int = 25,
    alike: Flags | None = None,
) -> Likeness:
    """Compare two sets of points.

    Parameters
    ----------
    generated, real
        float64 [M, d] and [N, d].
    types
        Of the generated and of the real cells, int64 [M] and [N] from 0 to `num_types` - 1.
    neighbours
        Numbers of neighbours [K], smaller than M and N.
    gammas, bandwidth_neighbours
        Kernels of the discrepancy; chosen by :func:`gammas_of` from the real cells for None.
    alike
        Real cells that generated ones are to be like, bool [N]; the others are only among those that elect types and
        that are neighbours of real cells. None takes all.
    """
    ours, theirs = types
    most, wanted = max(neighbours), np.ones(len(real), bool) if alike is None else alike
    near, of = real[wanted], theirs[wanted]
    among_ours, among_near = (closest(one, one, most, are_same=True) for one in (generated, near))
    among_theirs = closest(real, real, most, are_same=True)
    to_real, to_near, to_generated = (
        closest(real, generated, most), closest(near, generated, most), closest(generated, near, most)
    )  # fmt: skip
    m, n, known = len(generated), len(near), np.isin(ours, theirs)
    kernels = tuple(gammas) if gammas else gammas_of(near, bandwidth_neighbours)

    def shares(figures: Sequence[npt.NDArray[Any]], of: Ints) -> Shares:
        values = np.stack(figures).astype(np.float64)
        counts = np.bincount(of, minlength=num_types).astype(np.float64)
        counts[counts == 0] = np.nan
        return Shares(values.mean(axis=1), np.stack([np.bincount(of, row, num_types) for row in values]) / counts)

    return Likeness(
        tuple(neighbours),
        shares([like_themselves(among_ours, ours, k) for k in neighbours], ours),
        shares([like_themselves(among_theirs, theirs, k)[wanted] for k in neighbours], of),
        shares([voted_right(to_real, theirs, ours, k)[known] for k in neighbours], ours[known]),
        shares([voted_right(among_theirs, theirs, theirs, k)[wanted] for k in neighbours], of),
        shares([mixing(among_ours, to_near, m, n, k) for k in neighbours], ours),
        shares([mixing(among_near, to_generated, n, m, k) for k in neighbours], of),
        discrepancy(generated, near, kernels),
        tuple(_of_type(generated[ours == one], real[theirs == one], kernels) for one in range(num_types)),
        kernels,
    )


def number(value: float) -> float | None:
    """Return a number for JSON, None for NaN."""
    return float(value) if np.isfinite(value) else None


def _of_type(generated: Doubles, real: Doubles, gammas: Sequence[float]) -> Discrepancy | None:
    return discrepancy(generated, real, gammas) if min(len(generated), len(real)) > 1 else None
