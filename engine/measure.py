"""What a check needs besides the reference of a bundle: real cells, what the CPU makes of them, and times."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Admission, Array, Backend, Floats, Ints, Memory, SlotPlan
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellTokenizer, TokenBatch, open_cells
from cellscribe.engine.decode.scheduler import Request, Scheduler
from cellscribe.engine.errors import BackendError, InputError, RoomError
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.types import Sampling

Arrays = dict[str, npt.NDArray[np.generic]]

NUM_CELLS, NUM_TOKENS = 8, 32
SLOT_COUNTS = (1, 8, 32)


@dataclass(frozen=True)
class Expected:
    """What another backend, or torch, computed for a batch.

    memory [B, S, d], cell float32 [B, d], and greedy tokens int64 [B, T] with the logits float32 [B, T, V] before
    each, where there is a decoder.
    """

    batch: TokenBatch
    memory: Array
    cell: Floats
    tokens: Ints | None = None
    logits: Floats | None = None


@dataclass(frozen=True)
class Timing:
    """How long a backend took on this machine: to encode (`slots` 0), or to write `tokens` a text in full slots.

    The first round, which warms up, is not counted.
    """

    slots: int
    cells: int
    tokens: int
    seconds: float
    why_not: str = ""

    @property
    def ms_per_cell(self) -> float:
        """Milliseconds per cell."""
        return 1e3 * self.seconds / self.cells if self.cells else float("nan")

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second over all slots."""
        return self.cells * self.tokens / self.seconds if self.seconds else float("nan")

    def line(self) -> str:
        """Say it in words."""
        if self.why_not:
            return f"{self.slots} slots: {self.why_not}"
        if not self.slots:
            return f"encoding {self.cells} cells: {self.ms_per_cell:.2f} ms a cell"
        slots = "1 slot" if self.slots == 1 else f"{self.slots} slots"
        return (
            f"{slots}, {self.tokens} tokens a text: {self.ms_per_cell:.2f} ms a cell, "
            f"{self.tokens_per_second:,.0f} tokens/s"
        )


def real_cells(bundle: Bundle, path: Path | None, num_cells: int = NUM_CELLS) -> tuple[TokenBatch | None, str]:
    """Return a few cells of a file with its name; of the packaged ones without a path, or why those will not do."""
    chosen = path or packaged_cells()
    try:
        with open_cells(chosen) as source:
            tokenizer = CellTokenizer(bundle.manifest.cell_input, bundle.vocabulary, source)
            rows = np.arange(min(num_cells, source.n_cells))
            (batch,) = tokenizer.batches(rows=rows, batch_cells=num_cells)
    except InputError as error:
        if path is not None:
            raise
        return None, f"the packaged cells do not suit this bundle; give others with --cells ({error})"
    if not batch.n_cells:
        raise InputError(f"{chosen.name} has no usable cell among its first {num_cells}; give other cells.")
    return batch, chosen.name


def reference_batch(reference: Arrays) -> TokenBatch:
    """Return the cells of a bundle's reference.safetensors."""
    genes = reference["genes"].astype(np.int64)
    count = len(genes)
    return TokenBatch(
        rows=np.arange(count),
        cell_ids=tuple(f"reference {i}" for i in range(count)),
        genes=genes,
        values=reference["values"].astype(np.float32),
        mask=reference["mask"].astype(bool),
        columns=np.full(genes.shape, -1, dtype=np.int64),
        failures=(),
    )


def expected_of(bundle: Bundle, backend: Backend, batch: TokenBatch, num_tokens: int = NUM_TOKENS) -> Expected:
    """Run a batch greedily on a backend that another is compared with."""
    encoded = backend.encode(batch)
    if not bundle.describes:
        return Expected(batch, encoded.host_memory(), encoded.cell)
    tokens, logits = _greedy(backend, encoded.memory, batch.mask, num_tokens)
    return Expected(batch, encoded.host_memory(), encoded.cell, tokens, logits)


def _greedy(backend: Backend, memory: Memory, mask: npt.NDArray[np.bool_], num_tokens: int) -> tuple[Ints, Floats]:
    count = len(mask)
    slots = backend.open_slots(SlotPlan(count, mask.shape[1], num_tokens, Sampling(), forced=True))
    slots.admit([Admission(i, i, memory[i], mask[i]) for i in range(count)]).wait()
    tokens, logits = [], []
    for _ in range(num_tokens):
        seen = slots.logits(count).copy()
        logits.append(seen)
        tokens.append(seen.argmax(-1))
        slots.force(tokens[-1])
        if len(tokens) < num_tokens:
            slots.step(np.arange(count)).wait()
    return np.stack(tokens, 1), np.stack(logits, 1)


def teacher_forced(
    bundle: Bundle, backend: Backend, memory: Memory, mask: npt.NDArray[np.bool_], tokens: Ints
) -> Floats:
    """Return the logits [B, T, V] before each of the given tokens [B, T], run the way texts are written.

    Where there is no room for so many slots they are run a few at a time.
    """
    count = len(tokens)
    try:
        return _forced(backend, memory, mask, tokens, range(count))
    except RoomError as error:
        fitting = error.num_fitting
        if not 0 < fitting < count:
            raise
    parts = (range(first, min(first + fitting, count)) for first in range(0, count, fitting))
    return np.concatenate([_forced(backend, memory, mask, tokens, rows) for rows in parts])


def _forced(backend: Backend, memory: Memory, mask: npt.NDArray[np.bool_], tokens: Ints, rows: range) -> Floats:
    count, length = len(rows), tokens.shape[1]
    slots = backend.open_slots(SlotPlan(count, memory.shape[1], length, Sampling(), forced=True))
    slots.admit([Admission(i, row, memory[row], mask[row]) for i, row in enumerate(rows)]).wait()
    seen = [slots.logits(count).copy()]
    for t in range(length - 1):
        slots.force(tokens[rows.start : rows.stop, t])
        slots.step(np.arange(count)).wait()
        seen.append(slots.logits(count).copy())
    return np.stack(seen, 1)


def time_backend(bundle: Bundle, backend: Backend, batch: TokenBatch) -> tuple[Timing, ...]:
    """Time encoding, and writing with few and many slots."""
    backend.encode(batch)
    started = time.perf_counter()
    encoded = backend.encode(batch)
    found = [Timing(0, batch.n_cells, 0, time.perf_counter() - started)]
    if bundle.describes:
        found += [_time_slots(backend, encoded.memory, batch.mask, count) for count in SLOT_COUNTS]
    return tuple(found)


def _time_slots(backend: Backend, memory: Memory, mask: npt.NDArray[np.bool_], count: int) -> Timing:
    try:
        slots = backend.open_slots(SlotPlan(count, mask.shape[1], NUM_TOKENS, Sampling(), may_guess=False))
        for _ in range(2):
            scheduler = Scheduler(slots, count, eos_ids=frozenset(), max_new_tokens=NUM_TOKENS)
            requests = (Request(i, i, memory[i % len(mask)], mask[i % len(mask)]) for i in range(count))
            started = time.perf_counter()
            for _ in scheduler.run(requests):
                pass
            seconds = time.perf_counter() - started
    except BackendError as error:
        return Timing(count, 0, 0, 0.0, str(error))
    return Timing(count, count, NUM_TOKENS, seconds)
