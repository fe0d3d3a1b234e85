"""How well rank tells expression: the line through log10 expression against log10 rank, and what it leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import InputError
from cellscribe.engine.output.run import count

Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
THRESHOLD = 3.0  # log10 of a rank; the line is drawn through the thousand highest genes


@dataclass(frozen=True)
class RankFit:
    """A line through log10(1 + x) against log10(1 + rank), and how well it does on all points.

    `r_squared`, `pearson_r` compare values with the line, `spearman_r` values with ranks turned round. `num_fitted`
    points lie under `threshold`, of `num_points` of `num_cells` cells.
    """

    slope: float
    intercept: float
    r_squared: float
    pearson_r: float
    spearman_r: float
    num_cells: int
    num_points: int
    num_fitted: int
    threshold: float = THRESHOLD

    def as_dict(self) -> dict[str, float | int]:
        """Return what fit.json holds."""
        return asdict(self)

    def line(self, log_ranks: Floats) -> Floats:
        """Return the line at log10(1 + rank)."""
        return self.slope * log_ranks + self.intercept


def fit_ranks(ranks: Int64, values: Floats, num_cells: int, threshold: float = THRESHOLD) -> RankFit:
    """Fit a line by least squares.

    Ranks are few against the points, so what concerns them alone is computed once a rank.

    Parameters
    ----------
    ranks
        Ranks, from 0, of genes that are not zero, int64 [M]; the line runs through their log10(1 + rank).
    values
        Their log10(1 + normalised counts) [M].
    num_cells
        How many cells they come from.
    threshold
        Only points whose log10(1 + rank) is below it decide the line; all points are judged.

    Raises
    ------
    InputError
        When there are fewer than three points, or no two different ranks or values.
    """
    y = np.asarray(values, np.float64)
    of_rank = np.bincount(ranks)  # points
    x = log_ranks(np.arange(len(of_rank)))
    near = np.where(x < threshold, of_rank, 0)
    if near.sum() < 3 or np.count_nonzero(near) < 2 or np.ptp(y) == 0:
        raise InputError(
            f"{count(num_cells, 'cell')} with {count(len(y), 'expressed gene')} are too few or too even to fit a "
            "line through ranks; give cells that express more genes."
        )
    sums = np.bincount(ranks, weights=y)
    slope, intercept = _line(x, near, np.where(near > 0, sums, 0.0))
    away, from_mean = x - (of_rank @ x) / len(y), y - y.mean()
    xx, xy, yy = of_rank @ away**2, away @ (sums - of_rank * y.mean()), from_mean @ from_mean
    shift = y.mean() - (slope * (of_rank @ x) / len(y) + intercept)  # of all points against the line
    left = yy - 2 * slope * xy + slope**2 * xx + len(y) * shift**2
    return RankFit(
        slope=slope,
        intercept=intercept,
        r_squared=float(1.0 - left / yy),
        pearson_r=float(np.sign(slope) * xy / np.sqrt(xx * yy)),
        spearman_r=float(np.sign(slope) * _correlation(of_rank, ranks, y)),
        num_cells=num_cells,
        num_points=len(y),
        num_fitted=int(near.sum()),
        threshold=threshold,
    )


def log_ranks(ranks: Int64) -> Floats:
    """Return log10(1 + rank)."""
    found: Floats = np.log10(1.0 + np.arange(int(ranks.max(initial=-1)) + 1))[ranks]
    return found


def _line(x: Floats, weights: Int64, sums: Floats) -> tuple[float, float]:
    """Slope and intercept through points of which `weights` have each x, with `sums` of their values."""
    num = weights.sum()
    middle, height = (weights @ x) / num, sums.sum() / num
    away = x - middle
    slope = float((away @ (sums - weights * height)) / (weights @ away**2))
    return slope, float(height - slope * middle)


def _correlation(of_rank: Int64, ranks: Int64, values: Floats) -> float:
    """Spearman's r of ranks, of which there are `of_rank` each, and values."""
    middle = (len(values) + 1) / 2.0
    x, y = _places(of_rank) - middle, _places_of(values) - middle
    return float((x @ np.bincount(ranks, weights=y)) / np.sqrt((of_rank @ x**2) * (y @ y)))


def _places(counts: Int64) -> Floats:
    """Mean place of each group of equal numbers among all, where groups follow each other."""
    ends = np.cumsum(counts)
    found: Floats = ends - (counts - 1) / 2.0
    return found


def _places_of(values: Floats) -> Floats:
    """Mean place of every value among all; values that are alike mostly stand side by side."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    lengths = np.diff(np.append(starts, len(values)))
    distinct, group = np.unique(values[starts], return_inverse=True)
    places = _places(np.bincount(group, weights=lengths, minlength=len(distinct)).astype(np.int64))
    found: Floats = np.repeat(places[group], lengths)
    return found
