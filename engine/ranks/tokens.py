"""From rows of expression to token ids by falling expression relative to the genes' medians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.parts import Part
from cellscribe.engine.ranks import native

Int64 = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankScale:
    """How expression becomes ranks.

    Parameters
    ----------
    tokens
        Token of every column, int32 [n_genes], -1 for columns that are left out.
    medians
        Median of every column's gene, float64 [n_genes].
    most
        Tokens of a cell at most.
    target_sum
        Total that counts are scaled to.
    is_logged
        Whether values are log1p of scaled counts: no total divides them then, as ranks do not depend on it.
    is_single
        Whether counts are divided and scaled in float32 before float64 takes over: so Geneformer's tokenizer does with
        counts stored as float32, and the last bit of a value may decide between two genes.
    """

    tokens: npt.NDArray[np.int32]
    medians: Doubles
    most: int
    target_sum: float = 1e4
    is_logged: bool = False
    is_single: bool = True


def rank_tokens(part: Part, scale: RankScale) -> tuple[Int64, Int64]:
    """Return the tokens of rows by falling value, equal ones by column: `indptr` int64 [B + 1] and tokens int64 [N].

    The value of a gene is its count over the total of its cell (all genes, whether they have a token or not), times
    `target_sum`, over its median (Geneformer's ``tokenize_cell``, LangCell's ``tokenize_anndata``).
    """
    linear = np.expm1(part.data.astype(np.float64)) if scale.is_logged else None
    totals = _totals(part)
    compiled = native.find_native()
    found = None if compiled is None else compiled.rank_tokens(part, scale, linear, totals)
    return _rank_tokens(part, scale, linear, totals) if found is None else found


def _rank_tokens(part: Part, scale: RankScale, linear: Doubles | None, totals: Doubles) -> tuple[Int64, Int64]:
    kept = np.flatnonzero(scale.tokens[part.indices] >= 0)
    row, column = part.row_of[kept], part.indices[kept]
    if linear is not None:
        values = linear[kept]
    elif scale.is_single:
        single = part.data[kept] / totals.astype(np.float32)[row] * np.float32(scale.target_sum)
        values = single.astype(np.float64)
    else:
        values = part.data[kept].astype(np.float64) / totals[row] * scale.target_sum
    order = np.lexsort((-(values / scale.medians[column]), row))  # stable: equal values stay in the order of columns
    lengths = np.bincount(row, minlength=part.n_rows)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    place = np.arange(len(row)) - np.repeat(starts[:-1], lengths)
    tokens = scale.tokens[column[order]].astype(np.int64)[place < scale.most]
    indptr = np.concatenate(([0], np.cumsum(np.minimum(lengths, scale.most)))).astype(np.int64)
    return indptr, tokens


def _totals(part: Part) -> Doubles:
    """Totals of rows, float64 [B]."""
    return np.add.reduceat(np.append(part.data, 0.0).astype(np.float64), part.indptr[:-1]) * (np.diff(part.indptr) > 0)
