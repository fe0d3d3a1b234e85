"""Cells of several requests through the encoder together: memories for texts, vectors for those who want no more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Backend, Memory
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.service.feeding import batch_of
from cellscribe.engine.service.orders import FedCell

Floats = npt.NDArray[np.float32]
ENCODE_CELLS = 8  # cells encoded at a time


@dataclass(frozen=True)
class EncodedCells:
    """Memories [B, S, d], vectors float32 [B, d], and which of these are finite [B]."""

    memory: Memory
    vectors: Floats
    is_finite: list[bool]


class Encoding:
    """The encoder, for one thread at a time; and the cells that wait to be embedded."""

    def __init__(self, backend: Backend, bundle: Bundle) -> None:
        self._backend, self._spec = backend, bundle.manifest.cell_input
        self._pad_id = bundle.vocabulary.pad_id
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Sequence[FedCell], Future[Floats]]] = deque()

    @property
    def has_waiting(self) -> bool:
        """Whether cells wait to be embedded."""
        return bool(self._waiting)

    def encode(self, cells: Sequence[FedCell]) -> EncodedCells:
        """Encode cells that can be fed."""
        with self._lock:
            found = self._backend.encode(batch_of(cells, self._spec, self._pad_id))
        is_finite = [bool(np.isfinite(vector).all()) for vector in found.cell]
        return EncodedCells(found.memory, found.cell, is_finite)

    def submit(self, cells: Sequence[FedCell]) -> Future[Floats]:
        """Let cells wait to be embedded: float32 [N, d] of length 1 each, NaN for one that has no finite vector."""
        future: Future[Floats] = Future()
        self._waiting.append((cells, future))
        return future

    def embed_some(self) -> None:
        """Embed what waits."""
        while self._waiting:
            try:
                cells, future = self._waiting.popleft()
            except IndexError:  # another thread took it
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._vectors(cells))
            except Exception as error:
                future.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Answer what waits with an error."""
        while self._waiting:
            self._waiting.popleft()[1].set_exception(error)

    def _vectors(self, cells: Sequence[FedCell]) -> Floats:
        rows: list[Floats] = []
        for at in range(0, len(cells), ENCODE_CELLS):
            found = self.encode(cells[at : at + ENCODE_CELLS])
            for vector, is_finite in zip(found.vectors, found.is_finite, strict=True):
                # The bits that CellFeed gives, too.
                rows.append(vector / np.sqrt(vector.dot(vector)) if is_finite else np.full_like(vector, np.nan))
        return np.stack(rows)
