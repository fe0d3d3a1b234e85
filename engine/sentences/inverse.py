"""From sentences back to expression, by the line that was fitted through expression and rank."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cellscribe.engine.errors import InputError
from cellscribe.engine.sentences.clean import CleanedBatch
from cellscribe.engine.sentences.genes import SentenceGenes


@dataclass(frozen=True)
class Inverse:
    """log10(1 + normalised counts) of the gene at rank r (from 0) is `slope` * log10(1 + r) + `intercept`.

    Raises
    ------
    InputError
        For a line that is not finite, does not fall with rank, or gives the highest gene nothing.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise InputError("the line through ranks has a slope or intercept that is not finite; fit more cells.")
        if self.slope >= 0 or self.intercept <= 0:
            raise InputError(
                f"the line through ranks has the slope {self.slope:g} and the intercept {self.intercept:g}, and must "
                "fall with rank (slope below 0) from above zero (intercept above 0); fit it with c2s transform."
            )

    @classmethod
    def read(cls, path: Path) -> Inverse:
        """Read ``fit.json``, as ``cellscribe c2s transform`` writes it; InputError where it has no line that can be."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8-sig"))
            slope, intercept = float(raw["slope"]), float(raw["intercept"])
        except FileNotFoundError:
            raise InputError(
                f"{path} does not exist; name the fit.json that `cellscribe c2s transform` wrote."
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} has no slope and intercept ({error}); name a fit.json of c2s transform."
            ) from None
        try:
            return cls(slope, intercept)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def at(self, ranks: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the expression at ranks, from 0; it falls below zero far down a long sentence."""
        values = self.slope * np.log10(1.0 + np.asarray(ranks, np.float64)) + self.intercept
        return values.astype(np.float32)

    def expression(
        self, sentences: Iterable[str], genes: SentenceGenes, *, no_negatives: bool = False
    ) -> sp.csr_matrix:
        """Turn clean sentences into expression.

        Parameters
        ----------
        sentences
            One a cell; words that are no genes take up a rank and give nothing, of a gene that is named several times
            the last mention counts.
        genes
            Words of the columns.
        no_negatives
            Leave out what the line puts at or below zero.

        Returns
        -------
        CSR float32 [B, G], log10(1 + x).
        """
        find = genes.index.get
        rows = [[find(word, -1) for word in one.upper().split(" ")] for one in sentences]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        found = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
        indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        used, row_of, values = self._values(indptr, found, no_negatives)
        return _csr(row_of[used], found[used], values[used], (len(rows), len(genes.words)))

    def of_cleaned(self, cleaned: CleanedBatch, genes: SentenceGenes, *, no_negatives: bool = False) -> sp.csr_matrix:
        """Do the same with sentences that :func:`clean_sentences` cleaned: they name every gene once."""
        used, row_of, values = self._values(cleaned.indptr, cleaned.genes, no_negatives)
        shape = (len(cleaned.indptr) - 1, len(genes.words))
        indptr = np.concatenate(([0], np.cumsum(np.bincount(row_of[used], minlength=shape[0]))))
        made = sp.csr_matrix((values[used], cleaned.genes[used], indptr), shape=shape)
        made.sort_indices()
        return made

    def _values(
        self, indptr: npt.NDArray[np.int64], found: npt.NDArray[np.int32], no_negatives: bool
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Which words count, whose they are, and the expression at their rank."""
        lengths = np.diff(indptr)
        row_of = np.repeat(np.arange(len(lengths)), lengths)
        values = self.at(np.arange(int(lengths.max(initial=0))))[np.arange(len(found)) - indptr[row_of]]
        return (found >= 0) & ((values > 0) | (not no_negatives)), row_of, values


def _csr(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int32], values: npt.NDArray[np.float32], shape: tuple[int, int]
) -> sp.csr_matrix:
    """Make rows with rising columns; of a column that comes several times the last value counts."""
    keys = rows * shape[1] + columns
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    last = np.ones(len(keys), dtype=bool)
    last[:-1] = keys[1:] != keys[:-1]
    order = order[last]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows[order], minlength=shape[0]))))
    return sp.csr_matrix((values[order], columns[order].astype(np.int32), indptr), shape=shape)
