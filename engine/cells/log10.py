"""The mark that X is log10(1 + x), as cells made of sentences carry it, and whether the values still bear it out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MARK, AGAIN = "cellscribe_inverse", "log1p"  # entries of uns: our mark, and what scanpy leaves when it takes logarithms
LOG10 = "log10(1 + x)"
_NOTE = " They are log10(1 + x), as cellscribe wrote them, and are read as ln(1 + x)."
_WAY_OUT = f"so they are read as ln(1 + x); drop {MARK}, or make the cells anew"
_ROUNDING = math.log(10.0) * 2.0**-21  # float32 has 24 bits; of a rank, for a value as large as the slope


@dataclass(frozen=True)
class Log10Mark:
    """What a file says of its X: log10(1 + x), by a line through ranks; and whether logarithms were taken since."""

    slope: float
    intercept: float
    is_logged_again: bool = False

    @classmethod
    def of(cls, slope: float, intercept: float, is_logged_again: float) -> Log10Mark:
        """Put together again what :attr:`plain` gave."""
        return cls(slope, intercept, bool(is_logged_again))

    @property
    def plain(self) -> list[float]:
        """Numbers to be sent from one process to another."""
        return [self.slope, self.intercept, float(self.is_logged_again)]

    def doubt(self, maximum: float) -> str:
        """Say why X, whose largest value is given, is something else by now; empty where it is not."""
        if self.is_logged_again:
            return f"uns[{AGAIN!r}] says that X was logged since"
        if not self._is_on_the_line(maximum):
            return f"their largest value, {maximum:g}, is none of the line that made them"
        return ""

    def note(self, maximum: float) -> str:
        """Say how X is read."""
        why = self.doubt(maximum)
        return f" uns[{MARK!r}] says that they are {LOG10}, but {why}, {_WAY_OUT}." if why else _NOTE

    def _is_on_the_line(self, value: float) -> bool:
        """Whether some rank, a whole number from 0 on, has this value."""
        if not self.slope or not math.isfinite(value):
            return math.isclose(value, self.intercept, rel_tol=1e-5)
        exponent = (value - self.intercept) / self.slope
        if exponent > 12:
            return False
        rank: float = 10.0**exponent - 1.0
        far = _ROUNDING * max(abs(self.intercept), abs(value)) / abs(self.slope) * (1.0 + rank)
        return rank >= -far and abs(rank - round(rank)) <= far


def mark_of(uns: Mapping[str, Any]) -> Log10Mark | None:
    """Return the mark of an AnnData object; None where there is none, or it is no line."""
    said = uns.get(MARK)
    return marked(said.get, AGAIN in uns) if isinstance(said, Mapping) else None


def marked(get: Callable[[str], Any], is_logged_again: bool) -> Log10Mark | None:
    """Make the mark of its entries; None where it is none."""
    try:
        if str(get("values")) != LOG10:
            return None
        found = Log10Mark(float(get("slope")), float(get("intercept")), is_logged_again)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found.slope) and math.isfinite(found.intercept) else None
