"""From attention to genes: the top genes of a text, and which of them it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.types import TopGenes


class Symbols(Sequence[str]):
    """The symbols of token ids [S], looked up when they are asked for: of a thousand genes ten are shown."""

    def __init__(self, tokens: tuple[str, ...], ids: npt.NDArray[np.generic]) -> None:
        self._tokens, self._ids = tokens, ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: Any) -> Any:
        return self._tokens[int(self._ids[index])]


@dataclass(frozen=True)
class GeneAxis:
    """What stands behind the memory positions of one cell: symbols [S] and columns int64 [S] of the input's var.

    A column below 0 is no gene of the input (`<cls>`, padding, a gene the file lacks) and never counts as evidence.
    """

    symbols: Sequence[str]
    columns: npt.NDArray[np.int64]

    def columns_of(self, symbols: Sequence[str]) -> tuple[int, ...]:
        """Return the columns of some symbols that stand here, -1 for others."""
        wanted = dict.fromkeys(symbols, -1)
        for place in np.flatnonzero(self.columns >= 0).tolist():
            symbol = self.symbols[place]
            if wanted.get(symbol, 0) == -1:
                wanted[symbol] = int(self.columns[place])
        return tuple(wanted[symbol] for symbol in symbols)


def top_genes(evidence: npt.NDArray[np.float32], axis: GeneAxis, count: int) -> TopGenes:
    """Return the most attended genes.

    Parameters
    ----------
    evidence
        Attention per memory position, float32 [S], in any scale.
    axis
        The genes of those positions.
    count
        How many to return at most.

    Returns
    -------
    Genes by falling weight (ties by position); weights are shares of the attention that went to genes.
    """
    weights = np.where(axis.columns >= 0, evidence.astype(np.float64), 0.0)
    total = weights.sum()
    if count <= 0 or not total > 0:
        return TopGenes()
    order = _largest(weights, count)
    return TopGenes(
        tuple(axis.symbols[i] for i in order),
        tuple((weights[order] / total).tolist()),
        tuple(axis.columns[order].tolist()),
    )


def _largest(weights: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Return the places of the largest weights above 0, falling (ties by position), without sorting all of them."""
    least = np.partition(weights, len(weights) - count)[len(weights) - count] if count < len(weights) else 0.0
    places = np.flatnonzero((weights >= least) & (weights > 0))
    falling: npt.NDArray[np.int64] = places[np.argsort(-weights[places], kind="stable")][:count]
    return falling


def named_genes(text: str, symbols: tuple[str, ...]) -> tuple[str, ...]:
    """Return those symbols that the text names as whole words, in their order."""
    return tuple(s for s in symbols if re.search(rf"(?<![\w-]){re.escape(s)}(?![\w]|-\w)", text))
