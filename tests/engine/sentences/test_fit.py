"""The line through ranks against NumPy's and SciPy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cellscribe.engine.errors import InputError
from cellscribe.engine.sentences.fit import fit_ranks, log_ranks


def points(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and values of cells, one after the other."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(300, 1500, 30)
    ranks = np.concatenate([np.arange(n) for n in lengths])
    values = [np.sort(np.log10(1 + rng.geometric(0.3, n) * rng.uniform(1, 3)))[::-1] for n in lengths]
    found = np.concatenate(values)
    if kind == "shuffled":
        order = rng.permutation(len(ranks))
        return ranks[order], found[order]
    if kind == "rising":
        return ranks, 4 - found
    return ranks, rng.random(len(ranks)) if kind == "noise" else found


@pytest.mark.parametrize("kind", ["cells", "shuffled", "rising", "noise"])
def test_as_scipy_has_it(kind: str) -> None:
    ranks, values = points(kind)
    fit = fit_ranks(ranks, values, 30)
    x = np.log10(1.0 + ranks)
    near = x < fit.threshold
    slope, intercept = np.polyfit(x[near], values[near], 1)
    line = slope * x + intercept
    assert 0 < fit.num_fitted == near.sum() < fit.num_points == len(x)
    assert (fit.slope, fit.intercept) == pytest.approx((slope, intercept), abs=1e-12)
    assert fit.pearson_r == pytest.approx(stats.pearsonr(line, values).statistic, abs=1e-11)
    assert fit.spearman_r == pytest.approx(stats.spearmanr(line, values).statistic, abs=1e-11)
    wanted = 1 - ((values - line) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    assert fit.r_squared == pytest.approx(wanted, abs=1e-11)
    np.testing.assert_array_equal(log_ranks(ranks), x)


@pytest.mark.parametrize(
    ("ranks", "values"),
    [
        ([], []),
        ([0, 1], [2.0, 1.0]),
        ([0, 0, 0], [1.0, 2.0, 3.0]),
        ([0, 1, 2], [1.0, 1.0, 1.0]),
        ([0, 1000, 1001, 1002], [3.0, 2.0, 1.0, 0.5]),
    ],
)
def test_too_few_or_too_even(ranks: list[int], values: list[float]) -> None:
    with pytest.raises(InputError, match="too few or too even"):
        fit_ranks(np.array(ranks, np.int64), np.array(values), 1)
