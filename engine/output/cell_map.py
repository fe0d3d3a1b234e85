"""Maps of cells as SVG: real ones as faint dots, generated ones as marked dots, coloured by type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.output.page import safe

Doubles = npt.NDArray[np.float64]

COLOURS = (
    "#2f9e62", "#3f7fd9", "#e2692e", "#8b5fd0", "#d6427f", "#14a0a8", "#c4951a", "#c8463d", "#7f9f2e", "#a9683c",
    "#d283dc", "#52b4e6",
)  # fmt: skip
OTHERS = "#8b938e"
_WIDTH, _MARGIN = 900.0, 14.0  # px
_LEAST, _MOST = 0.4, 0.8  # height over width


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Places in the map [N, 2], and the type of each [N]."""

    places: Doubles
    types: Sequence[str]


def cell_map(real: MapPoints, generated: MapPoints, shown: Sequence[str]) -> str:
    """Draw a map.

    Parameters
    ----------
    real, generated
        What to draw, all of it, the generated cells on top.
    shown
        Types with a colour of their own, at most as many as :data:`COLOURS`; the others share one.

    Returns
    -------
    An ``svg`` element; types are told on hovering. Points are strokes without length, a few bytes each.
    """
    both = np.concatenate([real.places, generated.places])
    low, span = both.min(axis=0), np.maximum(np.ptp(both, axis=0), 1e-9)
    ratio = float(np.clip(span[1] / span[0], _LEAST, _MOST))
    room = np.array([_WIDTH, _WIDTH * ratio]) - 2 * _MARGIN
    scale = float((room / span).min())
    offset = _MARGIN + (room - scale * span) / 2
    height = _WIDTH * ratio

    def paths(points: MapPoints, kind: str) -> str:
        at = (points.places - low) * scale + offset
        at[:, 1] = height - at[:, 1]
        types = np.array(points.types, dtype=object).astype(str)
        drawn = [_group(name, kind, at[types == name], colour) for name, colour in colours(shown).items()]
        return "".join([_group("other types", kind, at[~np.isin(types, list(shown))], OTHERS), *drawn])

    told = f"Map of {len(real.types):,} real and {len(generated.types):,} generated cells"
    size = f'viewBox="0 0 {_WIDTH:.0f} {height:.0f}" style="--dot:{_dot(len(both)):.1f}px"'
    drawn = paths(real, "real") + paths(generated, "generated")
    return f'<svg class="map" {size} role="img" aria-label="{told}">{drawn}</svg>'


def colours(shown: Sequence[str]) -> dict[str, str]:
    """Return the colour of every type that has its own."""
    return dict(zip(shown, COLOURS, strict=False))


def _dot(number: int) -> float:
    """Return how many px wide a dot is: the fewer there are, the wider."""
    return float(np.clip(60.0 / number**0.33, 3.8, 8.0))


def _group(name: str, kind: str, at: Doubles, colour: str) -> str:
    if not len(at):
        return ""
    path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at.tolist())
    ring = f'<path class="ring" d="{path}"/>' if kind == "generated" else ""
    return f'<g class="{kind}"><title>{safe(name)}, {kind}</title>{ring}<path stroke="{colour}" d="{path}"/></g>'
