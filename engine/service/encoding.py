"""Cells of several requests through the encoder together: memories for texts, vectors for those who want no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Backend, Memory
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.service.feeding import batch_of
from cellscribe.engine.service.orders import FedCell
from cellscribe.engine.service.turns import Turns

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
    """Cells to embed, and the vectors of those that are done; `on_done` hears how many were."""

    cells: Sequence[FedCell]
    on_done: Callable[[int], None]
    future: Future[Floats] = field(default_factory=Future)
    vectors: list[Floats] = field(default_factory=list)


@dataclass(eq=False)
class _Part:
    """A turn of a job."""

    request: _Job
    client: str
    deadline: float = float("inf")  # whoever waits for the job looks at it


class Encoding:
    """The encoder, for one thread at a time; and the cells that wait to be embedded."""

    def __init__(self, backend: Backend, bundle: Bundle) -> None:
        self._backend, self._spec = backend, bundle.manifest.cell_input
        self._pad_id = bundle.vocabulary.pad_id
        self._lock, self._turns_lock = threading.Lock(), threading.Lock()
        self._turns: Turns[_Part] = Turns()
        self._refusal: Exception | None = None

    @property
    def has_waiting(self) -> bool:
        """Whether cells wait to be embedded."""
        return len(self._turns) > 0

    def encode(self, cells: Sequence[FedCell]) -> EncodedCells:
        """Encode cells that can be fed."""
        with self._lock:
            found = self._backend.encode(batch_of(cells, self._spec, self._pad_id))
        is_finite = [bool(np.isfinite(vector).all()) for vector in found.cell]
        return EncodedCells(found.memory, found.cell, is_finite)

    def submit(
        self, cells: Sequence[FedCell], client: str = "", on_done: Callable[[int], None] = lambda _: None
    ) -> Future[Floats]:
        """Let cells wait to be embedded: float32 [N, d] of length 1 each, NaN for one that has no finite vector.

        A future that is cancelled takes them out again. `on_done` hears of cells as they are done.
        """
        job = _Job(cells, on_done)
        with self._turns_lock:
            self._turns.add([_Part(job, client)] * max(1, -(-len(cells) // ENCODE_CELLS)))
        job.future.add_done_callback(lambda _: self._forget(job))
        if self._refusal is not None:  # the end came meanwhile
            self.refuse(self._refusal)
        return job.future

    def embed_some(self) -> None:
        """Embed a few of the cells that wait; clients and requests take turns, and texts go on in between."""
        job = self._next_job()
        if job is None or job.future.done():
            return
        try:
            self._advance(job)
        except Exception as error:
            _answer(job, error)
            return
        if len(job.vectors) == len(job.cells):
            _answer(job, None)

    def refuse(self, error: Exception) -> None:
        """Answer what waits, and whatever comes, with an error."""
        self._refusal = error
        while (job := self._next_job(whole=True)) is not None:
            _answer(job, error)

    def _next_job(self, *, whole: bool = False) -> _Job | None:
        with self._turns_lock:
            part = self._turns.take()
            if part is not None and whole:
                self._turns.remove(part.request)
        return None if part is None else part.request

    def _forget(self, job: _Job) -> None:
        with self._turns_lock:
            self._turns.remove(job)

    def _advance(self, job: _Job) -> None:
        at = len(job.vectors)
        found = self.encode(job.cells[at : at + ENCODE_CELLS])
        for vector, is_finite in zip(found.vectors, found.is_finite, strict=True):
            # The bits that CellFeed gives, too.
            job.vectors.append(vector / np.sqrt(vector.dot(vector)) if is_finite else np.full_like(vector, np.nan))
        job.on_done(len(job.vectors) - at)


def _answer(job: _Job, error: Exception | None) -> None:
    if not job.future.set_running_or_notify_cancel():  # who asked is gone
        return
    if error is None:
        job.future.set_result(np.stack(job.vectors))
    else:
        job.future.set_exception(error)
