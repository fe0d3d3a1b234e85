"""Pools: one description for all cells that share a label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.decode.described import failed
from cellscribe.engine.decode.evidence import GeneAxis
from cellscribe.engine.describe import Asked, Progress, Subject
from cellscribe.engine.types import Description

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Pools:
    """Groups of cells.

    `names` [P]; `vectors` float32 [P, d] of length 1, NaN where no cell was usable; `pool_of` int64 [n_cells], -1 for
    a cell without a label.
    """

    column: str
    names: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    pool_of: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        column: str,
        labels: pd.Series,
        rows: npt.NDArray[np.int64],
        embeddings: npt.NDArray[np.float32],
        n_cells: int,
    ) -> Pools:
        """Average the unit embeddings [N, d] of the rows with equal labels, and normalise the means.

        Cells without a label belong to no pool (-1); pools are in the order of their names.
        """
        chosen = labels.iloc[rows]
        texts = chosen.astype("object").where(chosen.notna(), None)
        names = tuple(sorted({str(t) for t in texts if t is not None}))
        position = {name: i for i, name in enumerate(names)}
        pool = np.array([-1 if t is None else position[str(t)] for t in texts], dtype=np.int64)
        pool_of = np.full(n_cells, -1, dtype=np.int64)
        pool_of[rows] = pool
        usable = (pool >= 0) & np.isfinite(embeddings).all(1)
        sums = np.zeros((len(names), embeddings.shape[1]))
        np.add.at(sums, pool[usable], embeddings[usable])
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        vectors = np.divide(sums, length, out=np.full_like(sums, np.nan), where=length > 0)
        return cls(column, names, vectors.astype(np.float32), pool_of)

    def failed(self, index: int, lost: str = "") -> Description:
        """Return the result of a pool without a usable cell, or of one whose text was `lost` for that reason."""
        if lost and np.isfinite(self.vectors[index]).all():
            return failed(self.names[index], lost)
        return failed(self.names[index], "none of its cells could be embedded; look at their own failures")


def after_cells(cells: int, progress: Progress | None) -> Progress | None:
    """Report pools as work that comes after embedding the cells."""
    if progress is None:
        return None
    return lambda done, total, tokens: progress(cells + done, cells + total, tokens)


def pool_requests(pools: Pools, bundle: Bundle) -> Iterator[Asked]:
    """Yield each pool as a memory of one token, which stands for no single gene."""
    axis = GeneAxis(("<cls>",), np.array([-1]))
    dtype = np.float16 if bundle.manifest.precision == "fp16" else np.float32
    for index, (name, vector) in enumerate(zip(pools.names, pools.vectors, strict=True)):
        if np.isfinite(vector).all():
            yield Subject(index, name, axis), vector[None].astype(dtype), np.ones(1, bool)
