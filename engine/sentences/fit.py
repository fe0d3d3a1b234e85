"""How well rank tells expression: the line through log10 expression against log10 rank, and what it leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from cellscribe.engine.errors import InputError

Floats = npt.NDArray[np.float64]
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


def fit_ranks(log_ranks: Floats, values: Floats, num_cells: int, threshold: float = THRESHOLD) -> RankFit:
    """Fit a line by least squares.

    Parameters
    ----------
    log_ranks
        log10(1 + rank), ranks from 0, of genes that are not zero [M].
    values
        Their log10(1 + normalised counts) [M].
    num_cells
        How many cells they come from.
    threshold
        Only points below it decide the line; all points are judged.

    Raises
    ------
    InputError
        When there are fewer than three points, or no two different ranks or values.
    """
    x, y = np.asarray(log_ranks, np.float64), np.asarray(values, np.float64)
    near = x < threshold
    if near.sum() < 3 or np.ptp(x[near]) == 0 or np.ptp(y) == 0:
        raise InputError(
            f"{num_cells} cells with {len(x)} expressed genes are too few or too even to fit a line through ranks; "
            "give cells that express more genes."
        )
    slope, intercept = np.polynomial.polynomial.polyfit(x[near], y[near], 1)[::-1]
    line = slope * x + intercept
    left, whole = float(((y - line) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    return RankFit(
        slope=float(slope),
        intercept=float(intercept),
        r_squared=1.0 - left / whole,
        pearson_r=float(stats.pearsonr(line, y).statistic),
        spearman_r=float(stats.spearmanr(line, y).statistic),
        num_cells=num_cells,
        num_points=len(x),
        num_fitted=int(near.sum()),
        threshold=threshold,
    )
