"""The values of a cell that comes as names of genes: what they are, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.values import MAX_LOGGED, ValueChoice, ValueKind
from cellscribe.engine.service.problems import RequestError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class GeneMap:
    """One cell as a client gives it: names of genes [n] and their values float64 [n]; genes left out are zeros."""

    cell_id: str
    names: Sequence[str]
    values: Floats


def kind_of(one: GeneMap, place: int, values: ValueChoice) -> ValueKind:
    """Say what the values of the cell at a place of the request are: what was said, or what they look like.

    They are looked at as they are given: sums over the names of one gene say nothing of that.

    Raises
    ------
    RequestError
        422 where they can be neither counts nor logarithms, or not what was said.
    """
    given = one.values
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(given.sum())
    if not (total <= _LARGEST and given.min(initial=0.0) >= 0):  # NaN is nothing of that
        raise _unusable(one, place)
    if values == "counts":
        return "counts"
    rounded = given.astype(np.float32)
    if values == "auto" and bool((rounded == np.rint(rounded)).all()):
        return "counts"
    largest = float(rounded.max(initial=0.0))
    if largest < MAX_LOGGED:
        return "lognorm"
    raise RequestError(
        422, f"the values of cell {one.cell_id!r} reach {largest:g}"
        f"{' and are no whole numbers, so they are neither counts nor' if values == 'auto' else ', so they are not'} "
        'log-normalised; send counts, or say "values": "counts" if they are.', "values",
    )  # fmt: skip


def row_of(
    one: GeneMap, columns: Ints, place: int, n_genes: int, kind: ValueKind
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return a cell's columns, rising, and its values there without zeros; what shares a column is added up.

    Parameters
    ----------
    columns
        Column of every name; `n_genes` for names of no gene.

    Raises
    ------
    RequestError
        422 where two names of a cell mean one gene and the values are logarithms, which cannot be added up.
    """
    order = np.argsort(columns, kind="stable")
    rising, values = columns[order], one.values[order]
    is_first = np.ones(len(rising), bool)
    np.not_equal(rising[1:], rising[:-1], out=is_first[1:])
    if not is_first.all():
        if kind == "lognorm" and (pair := twice(one, columns, n_genes)) is not None:
            raise RequestError(
                422, f"{pair[0]!r} and {pair[1]!r} of cell {one.cell_id!r} are one gene, and logarithms cannot be "
                "added up; leave one out, or send counts.", f"cells[{place}]",
            )  # fmt: skip
        first = np.flatnonzero(is_first)
        rising, values = rising[first], np.add.reduceat(values, first)
    small = values.astype(np.float32)
    kept = small != 0  # also of what is too small to be told from it
    if not kept.all():
        rising, small = rising[kept], small[kept]
    return rising.astype(np.int32), small


def twice(one: GeneMap, columns: Ints, n_genes: int) -> tuple[str, str] | None:
    """Return two names of a cell that mean one gene, None where there are none."""
    order = np.argsort(columns, kind="stable")
    rising = columns[order]
    again = np.flatnonzero((rising[1:] == rising[:-1]) & (rising[1:] < n_genes))
    return (one.names[order[again[0]]], one.names[order[again[0] + 1]]) if len(again) else None


def _unusable(one: GeneMap, place: int) -> RequestError:
    is_good = np.isfinite(one.values) & (one.values >= 0)
    if is_good.all():
        return RequestError(422, "the values of a cell add up to more than float32 holds; send counts.", "cells")
    at = int(np.argmin(is_good))
    return RequestError(
        422,
        f"the gene {one.names[at]!r} of cell {one.cell_id!r} has the value {one.values[at]:g}; counts are "
        "finite and not negative.",
        f"cells[{place}]",
    )
