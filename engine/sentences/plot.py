"""Pictures of how well rank tells expression."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import BackendError
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.sentences.fit import RankFit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
_LINE, _CELLS = "#D55E00", "viridis"


def write_fit_plot(log_ranks: Floats, values: Floats, fit: RankFit, path: Path, title: str = "") -> None:
    """Draw expression against rank with the line, and expression against what the line gives back, into a PNG.

    Parameters
    ----------
    log_ranks, values
        The points of the fit: log10(1 + rank) and log10(1 + normalised counts) [M].

    Raises
    ------
    BackendError
        When matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError(
            "the plot needs matplotlib; install it with: pip install 'cellscribe[bench]', or go without the plot."
        ) from error
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ranks, given_back = figure.subplots(1, 2)
    _bins(ranks, log_ranks, values)
    ends = np.array([log_ranks.min(), log_ranks.max()])
    ranks.plot(ends, fit.line(ends), color=_LINE, label=f"{fit.slope:.3f} x + {fit.intercept:.3f}")
    ranks.set_xlabel("log10(1 + rank of the gene)")
    ranks.set_ylabel("log10(1 + normalised counts)")
    ranks.set_title(f"R² {fit.r_squared:.3f}", fontsize=11)
    ranks.legend(frameon=False)
    line = fit.line(log_ranks)
    _bins(given_back, values, line)
    both = np.array([min(values.min(), line.min()), max(values.max(), line.max())])
    given_back.plot(both, both, color=_LINE, label="equal")
    given_back.set_xlabel("log10(1 + normalised counts)")
    given_back.set_ylabel("the same from the sentence")
    given_back.set_title(f"Pearson {fit.pearson_r:.3f}, Spearman {fit.spearman_r:.3f}", fontsize=11)
    given_back.legend(frameon=False)
    if title:
        figure.suptitle(title, fontsize=12)
    with replacing(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _bins(axes: Axes, x: Floats, y: Floats) -> None:
    hexagons = axes.hexbin(x, y, gridsize=70, bins="log", cmap=_CELLS, mincnt=1, linewidths=0)
    axes.figure.colorbar(hexagons, ax=axes, label="genes of cells")
    axes.spines[["top", "right"]].set_visible(False)
