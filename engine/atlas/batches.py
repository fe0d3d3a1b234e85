"""Token batches of a shard: bad cells noted instead of raised, cells of like lengths side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cellscribe.engine.atlas.meter import Meter
from cellscribe.engine.atlas.sources import is_there
from cellscribe.engine.cells import CellSource, CellTokenizer, TokenBatch
from cellscribe.engine.errors import InputError

Rows = npt.NDArray[np.int64]
_WINDOW = 512  # cells that are sorted by length
_MAX_PADDING = 0.05  # of the places of a batch


def token_batches(
    tokenizer: CellTokenizer, source: CellSource, rows: Rows, cells: int, meter: Meter
) -> Iterator[TokenBatch]:
    """Give the cells of some rows, up to `cells` of them at a time, not always in order.

    A cell that cannot be read or fed is among the ``failures`` of a batch, once, with the reason.
    """
    is_ragged = tokenizer.spec.layout != "fixed"
    for batch in _careful(tokenizer, source, rows, _WINDOW if is_ragged else cells, meter):
        known = tuple((row, source.bad_cells.get(row, why)) for row, why in batch.failures)
        batch = replace(batch, failures=known)
        for one in _by_length(batch, cells) if is_ragged else (batch,):
            meter.places += one.mask.size
            meter.real_places += int(one.mask.sum())
            yield one


def _careful(
    tokenizer: CellTokenizer, source: CellSource, rows: Rows, cells: int, meter: Meter
) -> Iterator[TokenBatch]:
    """Give batches; where rows cannot be read, find out which, and go on with the others."""
    done = 0
    try:
        for batch in meter.each("tokenise", tokenizer.batches(rows, cells, lambda blocks: meter.each("read", blocks))):
            done += batch.n_cells + len(batch.failures)
            yield batch
        return
    except InputError as error:
        if not is_there(source.path):
            raise
        left = rows[done:]
        if len(left) == 1 or not source.is_alive:
            yield _none_but(left.tolist(), str(error).removesuffix("."))
            return
    for half in (left[: len(left) // 2], left[len(left) // 2 :]):
        yield from _careful(tokenizer, source, half, cells, meter)


def _none_but(rows: list[int], why: str) -> TokenBatch:
    """Return a batch of failures alone."""
    return TokenBatch(
        np.empty(0, np.int64), (), np.empty((0, 1), np.int64), np.empty((0, 1), np.float32),
        np.empty((0, 1), np.bool_), np.empty((0, 1), np.int64), tuple((row, why) for row in rows),
    )  # fmt: skip


def _by_length(batch: TokenBatch, cells: int) -> Iterator[TokenBatch]:
    """Cut a batch into smaller ones of like lengths; the failures go with the first."""
    lengths = batch.mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    failures = batch.failures
    for start, stop in _cuts(lengths[order], cells):
        at = order[start:stop]
        longest = int(lengths[at].max(initial=1))
        yield TokenBatch(
            batch.rows[at], tuple(batch.cell_ids[i] for i in at), batch.genes[at, :longest],
            batch.values[at, :longest], batch.mask[at, :longest], batch.columns[at, :longest], failures,
        )  # fmt: skip
        failures = ()


def _cuts(lengths: Rows, cells: int) -> Iterator[tuple[int, int]]:
    """Give runs of rising lengths: as many as may be, less those that would leave too many places empty."""
    start = 0
    while start < max(1, len(lengths)):
        some = lengths[start : start + cells]
        places = np.arange(1, len(some) + 1) * np.maximum(some, 1)
        within = np.flatnonzero(some.cumsum() > (1 - _MAX_PADDING) * places)
        stop = start + (int(within[-1]) + 1 if len(within) else max(1, len(some)))
        yield start, stop
        start = stop
