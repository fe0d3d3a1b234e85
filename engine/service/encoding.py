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
    """Cells to embed, how many were `taken` and `done`, and the vectors of these; `on_done` hears how many were."""

    cells: Sequence[FedCell]
    on_done: Callable[[int], None]
    future: Future[Floats] = field(default_factory=Future)
    vectors: dict[int, Floats] = field(default_factory=dict)  # by place
    taken: int = 0
    is_over: bool = False


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
        found = self._next_job()
        if found is None or found[0].future.done():
            return
        job, at = found
        try:
            is_complete = self._advance(job, at)
        except Exception as error:
            self._answer(job, error)
            return
        if is_complete:
            self._answer(job, None)

    def refuse(self, error: Exception) -> None:
        """Answer what waits, and whatever comes, with an error."""
        self._refusal = error
        while (found := self._next_job(whole=True)) is not None:
            self._answer(found[0], error)

    def _next_job(self, *, whole: bool = False) -> tuple[_Job, int] | None:
        """Return whose turn it is, and from which of its cells on: threads that share a job take others each."""
        with self._turns_lock:
            part = self._turns.take()
            if part is None:
                return None
            job = part.request
            if whole:
                self._turns.remove(job)
            at, job.taken = job.taken, job.taken + ENCODE_CELLS
            return job, at

    def _forget(self, job: _Job) -> None:
        with self._turns_lock:
            self._turns.remove(job)

    def _advance(self, job: _Job, at: int) -> bool:
        """Embed some cells of a job; say whether they were the last that it waited for."""
        found = self.encode(job.cells[at : at + ENCODE_CELLS])
        vectors = {
            # The bits that CellFeed gives, too.
            at + i: vector / np.sqrt(vector.dot(vector)) if is_finite else np.full_like(vector, np.nan)
            for i, (vector, is_finite) in enumerate(zip(found.vectors, found.is_finite, strict=True))
        }
        with self._turns_lock:
            job.vectors |= vectors
            is_complete = len(job.vectors) == len(job.cells)
        job.on_done(len(vectors))
        return is_complete

    def _answer(self, job: _Job, error: Exception | None) -> None:
        with self._turns_lock:
            if job.is_over:
                return
            job.is_over = True
        if not job.future.set_running_or_notify_cancel():  # who asked is gone
            return
        if error is None:
            job.future.set_result(np.stack([job.vectors[place] for place in range(len(job.cells))]))
        else:
            job.future.set_exception(error)
