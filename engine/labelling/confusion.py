"""Labels beside those that were known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

OTHERS = "others"


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of cells by known label and found label.

    Parameters
    ----------
    known, found
        Names of rows [R] and columns [C], by falling number of cells; a found label stands in the place of the known
        one of that name where there is one.
    counts
        int64 [R, C].
    """

    known: tuple[str, ...]
    found: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @property
    def num_cells(self) -> int:
        """Cells that have both labels."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of cells whose labels are alike but for case and spaces; NaN without any."""
        return float(self._agreeing().sum() / self.num_cells) if self.num_cells else float("nan")

    @property
    def macro_f1(self) -> float:
        """Mean over the known labels of the harmonic mean of precision and recall; NaN without any."""
        if not self.num_cells:
            return float("nan")
        plain = [_plain(name) for name in self.found]
        agreeing, found = self._agreeing(), self.counts.sum(0)
        scores = []
        for row, name in enumerate(self.known):
            predicted = sum(int(found[place]) for place, other in enumerate(plain) if other == _plain(name))
            total = int(self.counts[row].sum()) + predicted
            scores.append(2.0 * float(agreeing[row]) / total if total else 0.0)
        return float(np.mean(scores))

    def _agreeing(self) -> npt.NDArray[np.int64]:
        """Cells of every known label that were found to have it, int64 [R]."""
        same = np.array([[_plain(row) == _plain(column) for column in self.found] for row in self.known], bool)
        agreeing: npt.NDArray[np.int64] = (self.counts * same.reshape(self.counts.shape)).sum(axis=1)
        return agreeing

    def folded(self, most: int) -> Confusion:
        """Return the same with all but the first rows and columns added up as "others"."""
        counts = _fold(_fold(self.counts, most).T, most).T
        return Confusion(_names(self.known, most), _names(self.found, most), counts)


def confusion(known: Sequence[str], found: Sequence[str]) -> Confusion:
    """Count cells by known and found label [N]; cells that lack one of them ("") are left out."""
    pairs = [(one, other) for one, other in zip(known, found, strict=True) if one and other]
    rows, row_of, row_counts = _unique([one for one, _ in pairs])
    columns, column_of, column_counts = _unique([other for _, other in pairs])
    counts = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(counts, (row_of, column_of), 1)
    by_rows = np.argsort(-row_counts, kind="stable")
    place = {_plain(rows[row]): index for index, row in enumerate(by_rows)}
    by_columns = sorted(
        range(len(columns)), key=lambda c: (place.get(_plain(columns[c]), len(rows)), -column_counts[c])
    )
    return Confusion(
        tuple(rows[row] for row in by_rows), tuple(columns[c] for c in by_columns), counts[by_rows][:, by_columns]
    )


def _unique(texts: list[str]) -> tuple[list[str], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    names, places, counts = np.unique(np.array(texts, dtype=str), return_inverse=True, return_counts=True)
    return names.tolist(), places, counts


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _fold(counts: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    if len(counts) <= most:
        return counts
    return np.concatenate([counts[: most - 1], counts[most - 1 :].sum(axis=0, keepdims=True)])


def _names(names: tuple[str, ...], most: int) -> tuple[str, ...]:
    return names if len(names) <= most else (*names[: most - 1], f"{len(names) - most + 1} {OTHERS}")
