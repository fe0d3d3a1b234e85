"""From a block of cells to the genes and values that a model is fed, still sparse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import native_binning
from cellscribe.engine.cells.binning import bin_shares, bin_values
from cellscribe.engine.cells.block import CsrBlock
from cellscribe.engine.cells.native_binning import NativeBinning, Selected
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.cells.undo import LogScale, prove_log_scale, undo_log1p
from cellscribe.engine.keyed import UInt64, uniforms

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fed:
    """Non-zero genes of B cells: `indptr` int64 [B + 1]; `slots` (index into the genes fed), `values` float32 [nnz]."""

    indptr: Int64
    slots: Int64
    values: npt.NDArray[np.float32]

    @property
    def lengths(self) -> Int64:
        """Genes per cell, int64 [B]."""
        return np.diff(self.indptr)

    @property
    def row_of(self) -> Int64:
        """Cell of every entry, int64 [nnz]."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.lengths)

    def keep(self, is_kept: npt.NDArray[np.bool_]) -> Fed:
        """Return only some entries."""
        kept = np.flatnonzero(is_kept)
        return Fed(np.searchsorted(kept, self.indptr).astype(np.int64), self.slots[kept], self.values[kept])

    def dense(self, width: int, first: float) -> npt.NDArray[np.float32]:
        """Return rows float32 [B, width]: `first`, then the genes fed, zero where a cell lacks them."""
        if (native := native_binning.find_native()) is not None:
            return native.lay_out(self.indptr, self.slots, self.values, width, first)
        rows = np.zeros((len(self.indptr) - 1, width), dtype=np.float32)
        rows[:, 0] = first
        rows.ravel()[self.row_of * width + self.slots + 1] = self.values
        return rows


class Feeder:
    """Selects genes, adds up duplicates, normalises and bins.

    Parameters
    ----------
    spec, source
        What the model wants, and the cells.
    slot_of_column
        Index into the genes fed, or -1, of every column of the source, int64 [n_genes].
    token_of_slot
        Token id of every gene fed, int64 [G].
    """

    def __init__(self, spec: CellInput, source: CellSource, slot_of_column: Int64, token_of_slot: Int64) -> None:
        self._spec = spec
        self._slots, self._tokens = slot_of_column, np.ascontiguousarray(token_of_slot, dtype=np.int64)
        self._is_logged = source.value_kind == "lognorm"
        self._has_duplicates = len(np.unique(slot_of_column[slot_of_column >= 0])) < int((slot_of_column >= 0).sum())
        self._rank = _first_columns(slot_of_column, len(token_of_slot))
        # Binning looks at ranks within a cell, which log1p and scaling leave alone.
        must_undo = self._is_logged and not spec.log1p and spec.n_bins == 0
        self._scale: LogScale | None = prove_log_scale(source, spec.target_sum) if must_undo else None
        self._native: _NativeFeeder | None = None
        is_plain = not self._has_duplicates and self._scale is None and (spec.target_sum is None or spec.target_sum > 0)
        if is_plain and (native := native_binning.find_native()) is not None:
            self._native = _NativeFeeder(native, spec, slot_of_column, self._tokens, is_logged=self._is_logged)

    def feed(self, block: CsrBlock, draws: UInt64) -> Fed:
        """Return what the cells of `block` are fed; `draws` uint64 [B] are the cells' stream keys for tied bins."""
        fed = self._native.feed(block, draws) if self._native is not None else None
        return self._fed(block, draws) if fed is None else fed

    def _fed(self, block: CsrBlock, draws: UInt64) -> Fed:
        indptr, data = block.part.indptr, block.part.data
        if self._scale is not None:
            data = undo_log1p(data, indptr, self._spec.target_sum, self._scale)
        slots = self._slots[block.part.indices]
        fed = Fed(indptr, slots, data).keep(slots >= 0)
        if self._has_duplicates:
            fed = self._added_up(fed)
        if not self._is_logged:
            fed = replace(fed, values=self._normalised(fed, _row_sums(data, indptr)))
        return self._binned(fed, draws) if self._spec.n_bins else fed

    def _normalised(self, fed: Fed, totals: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        values = fed.values
        if self._spec.target_sum is not None:
            scale = (totals / self._spec.target_sum).astype(np.float32)
            values = np.divide(values, np.repeat(scale, fed.lengths), dtype=np.float32)
        return np.log1p(values) if self._spec.log1p else values

    def _binned(self, fed: Fed, draws: UInt64) -> Fed:
        drawn = uniforms(np.repeat(draws, fed.lengths), self._tokens[fed.slots])
        digits = bin_values(fed.values, fed.indptr, n_bins=self._spec.n_bins, uniforms=drawn)
        return replace(fed, values=digits.astype(np.float32))

    def _added_up(self, fed: Fed) -> Fed:
        """Add up the entries of a cell that stand for one gene, at the place of the gene's first column."""
        rows = fed.row_of
        order = np.lexsort((self._rank[fed.slots], rows))
        key = rows[order] * (len(self._rank) + 1) + self._rank[fed.slots[order]]
        is_first = np.concatenate(([True], key[1:] != key[:-1]))[: len(key)]
        values = fed.values[order].astype(np.float64)
        linear = np.expm1(values) if self._is_logged and self._scale is None else values
        sums = np.add.reduceat(linear, np.flatnonzero(is_first)) if len(key) else linear
        merged = np.log1p(sums) if self._is_logged and self._scale is None else sums
        lengths = np.bincount(rows[order][is_first], minlength=len(fed.lengths))
        indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        return Fed(indptr, fed.slots[order][is_first], merged.astype(np.float32))


class _NativeFeeder:
    """What a :class:`Feeder` does, in compiled code; for genes that stand in one column each."""

    def __init__(
        self, native: NativeBinning, spec: CellInput, slot_of_column: Int64, tokens: Int64, *, is_logged: bool
    ) -> None:
        self._native, self._tokens = native, tokens
        self._is_fed = np.ascontiguousarray(slot_of_column >= 0, dtype=np.uint8)
        self._slots = np.ascontiguousarray(slot_of_column, dtype=np.int32)
        self._target_sum = None if is_logged else spec.target_sum
        self._log1p = spec.log1p and not is_logged
        self._shares = bin_shares(spec.n_bins) if spec.n_bins else None

    def feed(self, block: CsrBlock, draws: UInt64) -> Fed | None:
        """Return what the cells are fed, or None where only NumPy will do."""
        selected = self._selected(block)
        if selected is None:
            return None
        if self._log1p:  # NumPy's own, as libraries of mathematics differ in the last bit
            np.log1p(selected.distinct, out=selected.distinct)
        if self._shares is None:
            values: npt.NDArray[np.float32] | None = selected.distinct[selected.codes]
        else:
            values = self._native.bin(selected, self._shares, self._tokens, draws)
        return None if values is None else Fed(selected.indptr, selected.slots.astype(np.int64), values)

    def _selected(self, block: CsrBlock) -> Selected | None:
        part = block.part
        return self._native.select(
            part, self._is_fed, self._slots, self._target_sum, lambda: _row_sums(part.data, part.indptr)
        )


def first_columns(slot_of_column: Int64, n_slots: int) -> Int64:
    """Return the first column of every gene fed, -1 where the file lacks it, int64 [G]."""
    first = np.full(n_slots, -1, dtype=np.int64)
    columns = np.flatnonzero(slot_of_column >= 0)[::-1]
    first[slot_of_column[columns]] = columns
    return first


def _first_columns(slot_of_column: Int64, n_slots: int) -> Int64:
    """Rank of every gene fed by its first column."""
    return np.argsort(np.argsort(first_columns(slot_of_column, n_slots), kind="stable"), kind="stable")


def _row_sums(data: npt.NDArray[np.float32], indptr: Int64) -> npt.NDArray[np.float64]:
    sums = np.zeros(len(indptr) - 1)
    filled = np.flatnonzero(np.diff(indptr))
    if len(filled):
        sums[filled] = np.add.reduceat(data, indptr[filled], dtype=np.float64)
    return sums
