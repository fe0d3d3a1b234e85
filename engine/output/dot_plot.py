"""Dot plots as SVG: groups of cells by genes, the share that expresses as size and the mean as colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellscribe.engine.output.page import safe

Doubles = npt.NDArray[np.float64]

_STEP, _ROW = 24, 26  # px between dots, across and down
_GAP = 9  # px between rows that belong together and others
_RADIUS = 10.0
_LETTER = 7.2  # px of a letter of 12 px, nearly
_FAINTEST = 0.08


def dot_plot(
    rows: Sequence[str],
    columns: Sequence[str],
    share: Doubles,
    mean: Doubles,
    groups: Sequence[tuple[str, int]] = (),
    *,
    together: int = 1,
) -> str:
    """Draw a dot plot.

    Parameters
    ----------
    rows, columns
        Names of groups of cells [R] and of genes [C].
    share
        Of a group's cells that express a gene, [R, C] 0 to 1: the dots' areas.
    mean
        Expression, [R, C] from 0 on: the dots' colour, full at a gene's largest mean.
    groups
        Names of runs of columns, with how many columns each has.
    together
        So many rows belong together, with a gap after them.

    Returns
    -------
    An ``svg`` element whose colours are those of the page around it.
    """
    left = 16 + _LETTER * max(map(len, rows), default=0)
    top = 14 + _LETTER * max(map(len, columns), default=0) + (16 if groups else 0)
    gap = _GAP if together > 1 else 0
    width, height = left + _STEP * len(columns) + 16, top + _ROW * len(rows) + gap * (len(rows) // together) + 8
    full = np.where(mean.max(axis=0) > 0, mean.max(axis=0), 1.0)
    parts = [_bands(groups, left, top, height), *(_column(name, left, top, i) for i, name in enumerate(columns))]
    for r, row in enumerate(rows):
        y = top + _ROW * (r + 0.5) + gap * (r // together)
        parts.append(f'<text x="{left - 10:.1f}" y="{y + 4:.1f}" text-anchor="end">{safe(row)}</text>')
        for c, gene in enumerate(columns):
            shown = f"{row}, {gene}: {100 * share[r, c]:.0f} % express it, mean {mean[r, c]:.2f}"
            opacity = _FAINTEST + (1 - _FAINTEST) * mean[r, c] / full[c]
            parts.append(
                f'<circle cx="{left + _STEP * (c + 0.5):.1f}" cy="{y:.1f}" r="{_RADIUS * share[r, c] ** 0.5:.2f}" '
                f'fill-opacity="{opacity:.3f}"><title>{safe(shown)}</title></circle>'
            )
    told = f"Dot plot of {len(columns)} genes in {len(rows)} groups of cells"
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg class="dots" {size} role="img" aria-label="{told}">{"".join(parts)}</svg>'


def _column(name: str, left: float, top: float, place: int) -> str:
    x, y = left + _STEP * (place + 0.5) + 4, top - 8
    return f'<text class="gene" transform="translate({x:.1f} {y:.1f}) rotate(-90)">{safe(name)}</text>'


def _bands(groups: Sequence[tuple[str, int]], left: float, top: float, height: float) -> str:
    """Shade every other run of columns, and tell its name on hovering."""
    parts, start = [], 0
    for place, (name, number) in enumerate(groups):
        x, width = left + _STEP * start, _STEP * number
        parts.append(
            f'<rect class="band{place % 2}" x="{x:.1f}" y="{top - 4:.1f}" width="{width:.1f}" '
            f'height="{height - top:.1f}"><title>{safe(name)}</title></rect>'
        )
        start += number
    return "".join(parts)
