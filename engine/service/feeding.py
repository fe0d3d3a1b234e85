"""Cells of several requests, brought together for the encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.decode.evidence import GeneAxis, Symbols
from cellscribe.engine.service.orders import FedCell

_NO_AXIS = GeneAxis((), np.zeros(0, np.int64))


def fed_cells(batches: Iterator[TokenBatch], names: dict[int, str], tokens: tuple[str, ...]) -> dict[int, FedCell]:
    """Return the cells of token batches by their row.

    Parameters
    ----------
    batches
        What a tokenizer made of the cells.
    names
        Name of every row.
    tokens
        The vocabulary [V].
    """
    found: dict[int, FedCell] = {}
    for batch in batches:
        for row, why in batch.failures:
            found[row] = unfed(names[row], why)
        for i, row in enumerate(batch.rows.tolist()):
            kept = slice(0, _length(batch, i))
            genes, values, mask = batch.genes[i, kept], batch.values[i, kept], batch.mask[i, kept]
            axis = GeneAxis(Symbols(tokens, genes), batch.columns[i, kept])
            found[row] = FedCell(batch.cell_ids[i], genes, values, mask, axis)
    return found


def unfed(cell_id: str, why: str) -> FedCell:
    """Return a cell that cannot be fed, and why."""
    return FedCell(cell_id, np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool), _NO_AXIS, why)


def batch_of(cells: Sequence[FedCell], spec: CellInput, pad_id: int) -> TokenBatch:
    """Return cells as one batch, padded to the longest."""
    lengths = [len(one.genes) for one in cells]
    shape = len(cells), max(lengths)
    genes, values = np.full(shape, pad_id, np.int64), np.full(shape, spec.pad_value, np.float32)
    mask, columns = np.zeros(shape, bool), np.full(shape, -1, np.int64)
    for i, (one, length) in enumerate(zip(cells, lengths, strict=True)):
        genes[i, :length], values[i, :length], mask[i, :length] = one.genes, one.values, one.mask
        columns[i, :length] = one.axis.columns
    return TokenBatch(np.arange(len(cells)), tuple(one.cell_id for one in cells), genes, values, mask, columns)


def longest_cell(spec: CellInput, n_listed: int) -> int:
    """Return the most tokens that any cell can have, `<cls>` included; `n_listed` genes are on the bundle's list."""
    return 1 + max(spec.num_genes, n_listed)


def _length(batch: TokenBatch, i: int) -> int:
    """Tokens of a cell without its padding."""
    return int(batch.mask[i].sum())
