"""The base of X's logarithm as a file or scanpy tells it, believed while the values bear it out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.log10 import AGAIN, Log10Mark
from cellscribe.engine.cells.parts import Part, Rows, sample_rows
from cellscribe.engine.cells.values import MAX_LOGGED, Values

SAME_TOTAL = 1e-2  # relative spread of totals that are taken for one
_ENTRY = "base"
Spreads = Callable[[Sequence[float]], npt.NDArray[np.float64]]  # of cells' totals, by base


class Telling(Protocol):
    """What is needed of a store of cells: what it tells of X, and its values."""

    log10_mark: Log10Mark | None
    said_base: float | None

    def shape(self, origin: str) -> tuple[int, int]:
        """Return cells and genes of a matrix."""
        ...

    def stream(self, origin: str, groups: Sequence[Rows]) -> Iterator[Part]:
        """Yield the rows of every group."""
        ...


@dataclass(frozen=True)
class SaidBase:
    """What ``uns["log1p"]`` says of X: log(1 + x) to this base, above 1 and not e."""

    base: float

    def doubt(self, maximum: float, spreads: Spreads) -> str:
        """Say why X, whose largest value is given, is something else by now; empty where it is not."""
        if maximum * math.log(self.base) >= MAX_LOGGED:
            return f"their largest value, {maximum:g}, is too large for that"
        natural, own = (bool(one <= SAME_TOTAL) for one in spreads((math.e, self.base)))
        return "cells have one total as ln(1 + x) and none so" if natural and not own else ""

    def note(self, why: str) -> str:
        """Say how X is read, given why that is doubted."""
        said = f" uns[{AGAIN!r}] says that they are log(1 + x) to base {self.base:g}"
        if why:
            return f"{said}, but {why}, so they are read as ln(1 + x); drop the entry, or make the cells anew."
        return f"{said}, and they are read as ln(1 + x)."


def told_base(store: Telling, chosen: Values) -> tuple[float | None, str]:
    """Return the base that the chosen values are read with, None where nothing is known of it, and what to say.

    What a file tells is told of X alone. Our own mark goes before scanpy's entry, unless that is the newer one.
    """
    if chosen.origin != "X" or chosen.kind != "lognorm":
        return None, ""
    mark = store.log10_mark
    if mark is not None and not mark.doubt(chosen.maximum):
        return 10.0, mark.note(chosen.maximum)
    if store.said_base is not None:
        said = SaidBase(store.said_base)
        why = said.doubt(chosen.maximum, lambda bases: total_spreads(_sample(store), bases))
        return None if why else said.base, said.note(why)
    return None, "" if mark is None else mark.note(chosen.maximum)


def _sample(store: Telling) -> Iterator[Part]:
    return store.stream("X", [sample_rows(store.shape("X")[0], n_runs=32, run=4)])


def base_of(uns: Mapping[str, Any]) -> float | None:
    """Return the base that an AnnData object names; None where it names none, or e."""
    said = uns.get(AGAIN)
    return plain_base(said.get(_ENTRY)) if isinstance(said, Mapping) else None


def plain_base(value: Any) -> float | None:
    """Return an entry ``base`` as a number; None for what is none, none above 1, or e, to which X is taken anyway."""
    try:
        base = float(value)
    except (TypeError, ValueError):
        return None
    is_base = math.isfinite(base) and base > 1.0 and not math.isclose(base, math.e, rel_tol=1e-6)
    return base if is_base else None


def total_spreads(parts: Iterable[Part], bases: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return how far cells' totals before the logarithm lie apart, relative to their mean, float64 [bases].

    Cells without values do not count; where there are no others it is infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        totals = np.concatenate([_totals(one, bases) for one in parts], axis=1)
        totals = totals[:, totals[0] > 0]
        if not totals.size:
            return np.full(len(bases), np.inf)
        found: npt.NDArray[np.float64] = np.ptp(totals, axis=1) / totals.mean(axis=1)
    return found


def _totals(part: Part, bases: Sequence[float]) -> npt.NDArray[np.float64]:
    values, rows = part.data.astype(np.float64), part.row_of
    linear = (np.expm1(values * math.log(base)) for base in bases)
    return np.stack([np.bincount(rows, one, minlength=part.n_rows) for one in linear])
