"""Cells that are fed the same are computed once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import TokenBatch

V = TypeVar("V")
MAX_BYTES = 64 << 20
Key = bytes


def input_keys(batch: TokenBatch) -> list[Key]:
    """Return what tells the cells of a batch apart: genes and values of every real token, 16 bytes each."""
    if len(batch.genes) and batch.mask.all() and (batch.genes == batch.genes[0]).all():
        return _keys_of_rows(batch.genes[0].tobytes(), np.ascontiguousarray(batch.values))
    keys = []
    for genes, values, mask in zip(batch.genes, batch.values, batch.mask, strict=True):
        is_whole = bool(mask.all())
        digest = hashlib.blake2b((genes if is_whole else genes[mask]).tobytes(), digest_size=16)
        digest.update((values if is_whole else values[mask]).tobytes())
        keys.append(digest.digest())
    return keys


def _keys_of_rows(genes: bytes, values: npt.NDArray[np.float32]) -> list[Key]:
    """Return keys of cells that are fed the same genes, which are digested once."""
    common = hashlib.blake2b(genes, digest_size=16)
    keys = []
    for row in values:
        digest = common.copy()
        digest.update(row)
        keys.append(digest.digest())
    return keys


class Recent(Generic[V]):
    """What was made of the latest inputs, in bounded memory.

    Parameters
    ----------
    size_of
        Bytes that a value takes, at least.
    max_bytes
        What all may take; the least recently used go first.
    """

    def __init__(self, size_of: Callable[[V], int], max_bytes: int = MAX_BYTES) -> None:
        self._size_of, self._max_bytes = size_of, max_bytes
        self._values: OrderedDict[Key, V] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> V | None:
        """Return a value that is kept."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
        return found

    def put(self, key: Key, value: V) -> None:
        """Keep a value."""
        if key in self._values:
            return
        self._values[key] = value
        self._bytes += self._size_of(value) + 200  # of the dictionary
        while self._bytes > self._max_bytes and len(self._values) > 1:
            _, old = self._values.popitem(last=False)
            self._bytes -= self._size_of(old) + 200


def take_cells(batch: TokenBatch, places: list[int]) -> TokenBatch:
    """Return some cells of a batch, without its failures."""
    at = np.asarray(places, np.int64)
    return TokenBatch(
        batch.rows[at], tuple(batch.cell_ids[i] for i in places), batch.genes[at], batch.values[at], batch.mask[at],
        batch.columns[at],
    )  # fmt: skip
