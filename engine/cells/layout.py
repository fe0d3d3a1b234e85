"""What cells are fed, laid out as rows of equal length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.feed import Fed
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.keyed import UInt64, uniforms

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Laid = tuple[Int64, npt.NDArray[np.float32], Bool, Int64]  # genes, values, mask, columns, each [B, S]


def batches(fed: Fed, batch_cells: int) -> Iterator[tuple[slice, Int64 | None]]:
    """Yield the cells of each batch, and those of them that have a gene, where that is not all."""
    empty = np.flatnonzero(fed.lengths == 0)
    for start in range(0, len(fed.indptr) - 1, batch_cells):
        batch = slice(start, start + batch_cells)
        if len(empty) and ((empty >= start) & (empty < start + batch_cells)).any():
            yield batch, np.flatnonzero(fed.lengths[batch]) + start
        else:
            yield batch, None


def shared(cls_id: int, tokens: Int64, columns: Int64, n_cells: int) -> tuple[Int64, Bool, Int64]:
    """Return what all cells of a fixed layout have in common, read-only: genes, mask and columns [n_cells, S]."""
    genes = np.tile(np.concatenate(([cls_id], tokens)), (n_cells, 1))
    mask = np.ones(genes.shape, dtype=bool)
    places = np.tile(np.concatenate(([-1], columns)), (n_cells, 1))
    for block in (genes, mask, places):
        block.flags.writeable = False
    return genes, mask, places


def padded(fed: Fed, cells: Int64, spec: CellInput, specials: tuple[int, int], tokens: Int64, columns: Int64) -> Laid:
    """Return the non-zero genes of some cells as [B, S], S the longest of them and "<cls>".

    Parameters
    ----------
    fed, cells
        What a block is fed, and the cells wanted of it, rising [B].
    spec, specials
        Values of "<cls>" and of padding, and their token ids.
    tokens, columns
        Token and column of every gene fed, int64 [G].
    """
    lengths, (cls_id, pad_id) = fed.lengths[cells], specials
    mask = np.arange(int(lengths.max(initial=0)) + 1) <= lengths[:, None]  # B S
    genes = np.full(mask.shape, pad_id, dtype=np.int64)
    values = np.full(mask.shape, spec.pad_value, dtype=np.float32)
    places = np.full(mask.shape, -1, dtype=np.int64)
    genes[:, 0], values[:, 0] = cls_id, spec.cls_value
    for row, (start, stop) in enumerate(zip(fed.indptr[cells].tolist(), fed.indptr[cells + 1].tolist(), strict=True)):
        slots, end = fed.slots[start:stop], 1 + stop - start
        genes[row, 1:end], places[row, 1:end] = tokens[slots], columns[slots]
        values[row, 1:end] = fed.values[start:stop]
    return genes, values, mask, places


def thinned(fed: Fed, tokens: Int64, keys: UInt64, most: int) -> Fed:
    """Leave `most` genes to cells that have more: those with the smallest draws of the cells' streams `keys` [B]."""
    is_kept: Bool | None = None
    for row in np.flatnonzero(fed.lengths > most):
        here = slice(int(fed.indptr[row]), int(fed.indptr[row + 1]))
        token = tokens[fed.slots[here]]
        # A draw is a multiple of 2**-24, and the token decides between equal ones: both fit one number.
        draw = (uniforms(keys[row], token) * np.float32(2**24)).astype(np.int64) << 32 | token
        if is_kept is None:
            is_kept = np.ones(len(fed.slots), dtype=bool)
        is_kept[here] = draw <= np.partition(draw, most - 1)[most - 1]
    return fed if is_kept is None else fed.keep(is_kept)
