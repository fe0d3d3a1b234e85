"""Cells of several requests through the encoder together: memories for texts, vectors for those who want no more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

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


@dataclass(eq=False)
class _Job:
    """Cells to embed, and the vectors of those that are done."""

    cells: Sequence[FedCell]
    future: Future[Floats]
    vectors: list[Floats] = field(default_factory=list)


class Encoding:
    """The encoder, for one thread at a time; and the cells that wait to be embedded."""

    def __init__(self, backend: Backend, bundle: Bundle) -> None:
        self._backend, self._spec = backend, bundle.manifest.cell_input
        self._pad_id = bundle.vocabulary.pad_id
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._refusal: Exception | None = None

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
        self._waiting.append(_Job(cells, future))
        if self._refusal is not None:  # the end came meanwhile
            self.refuse(self._refusal)
        return future

    def embed_some(self) -> None:
        """Embed a few of the cells that wait; requests take turns, and texts go on in between."""
        job = self._next_job()
        if job is None or job.future.cancelled():
            return
        try:
            self._advance(job)
        except Exception as error:
            _answer(job, error)
            return
        if len(job.vectors) < len(job.cells):
            self._waiting.append(job)
        else:
            _answer(job, None)

    def refuse(self, error: Exception) -> None:
        """Answer what waits, and whatever comes, with an error."""
        self._refusal = error
        while (job := self._next_job()) is not None:
            _answer(job, error)

    def _next_job(self) -> _Job | None:
        try:
            return self._waiting.popleft()
        except IndexError:  # also where another thread was quicker
            return None

    def _advance(self, job: _Job) -> None:
        at = len(job.vectors)
        found = self.encode(job.cells[at : at + ENCODE_CELLS])
        for vector, is_finite in zip(found.vectors, found.is_finite, strict=True):
            # The bits that CellFeed gives, too.
            job.vectors.append(vector / np.sqrt(vector.dot(vector)) if is_finite else np.full_like(vector, np.nan))


def _answer(job: _Job, error: Exception | None) -> None:
    if not job.future.set_running_or_notify_cancel():  # who asked is gone
        return
    if error is None:
        job.future.set_result(np.stack(job.vectors))
    else:
        job.future.set_exception(error)
