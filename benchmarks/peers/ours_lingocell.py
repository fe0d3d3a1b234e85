"""Ours on LingoCell: a bundle through the public runtime's parts, on the packaged cells; encoder, prompt, steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers.protocol import Answer, Engine, serve, versions

from cellscribe.engine.backends.base import SlotPlan, Ticket
from cellscribe.engine.backends.choose import open_backend
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellTokenizer, TokenBatch, open_cells
from cellscribe.engine.decode.scheduler import Request, Scheduler
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.types import Sampling


class OurLingoCell(Engine):
    """Describes packaged cells with as many slots as cells, unless told otherwise."""

    def do_open(self, model: str, threads: int = 2, backend: str = "cpu") -> Answer:
        """Open a bundle's encoder and decoder."""
        self._bundle = open_bundle(Path(model))
        self._backend: Any = open_backend(self._bundle, backend, threads=threads)
        if backend == "cpu":
            _ = self._backend.encoder, self._backend.decoder
        return {
            "versions": versions("cellscribe", "numpy", "onnxruntime"),
            "precision": self._bundle.manifest.precision,
            "threads": threads,
            "notes": self._backend.device,
        }

    def do_describe(self, cells: int, new_tokens: int, slots: int = 0) -> Answer:
        """Describe the first packaged cells through the scheduler, with no end but the length."""
        batch = packaged_batch(self._bundle, cells)
        count = slots or cells
        started = time.perf_counter()
        encoded = self._backend.encode(batch)
        encoded_seconds = time.perf_counter() - started
        clocked = ClockedSlots(
            self._backend.open_slots(SlotPlan(count, batch.mask.shape[1], new_tokens, Sampling(), may_guess=False))
        )
        scheduler = Scheduler(clocked, count, eos_ids=frozenset(), max_new_tokens=new_tokens)
        requests: Iterator[Request] = (Request(i, i, encoded.memory[i], batch.mask[i]) for i in range(cells))
        tokens = {e.text.request.index: e.text.token_ids for e in scheduler.run(requests) if e.text.is_finished}
        return {
            "tokens": [tokens[i] for i in range(cells)],
            "seconds": time.perf_counter() - started,
            "encode_seconds": encoded_seconds,
            "prefill_seconds": sum(clocked.prompts),
            "step_seconds": clocked.steps,
            "cell_ids": list(batch.cell_ids),
        }

    def do_encode(self, cells: int, batch: int = 8, save: str = "") -> Answer:
        """Encode only; `save` keeps the memory as float32 .npy."""
        tokens = packaged_batch(self._bundle, cells)
        started = time.perf_counter()
        encoded = self._backend.encode(tokens)
        seconds = time.perf_counter() - started
        if save:
            np.save(save, encoded.host_memory().astype(np.float32))
        return {"seconds": seconds, "batch_seconds": [seconds]}


def packaged_batch(bundle: Bundle, count: int) -> TokenBatch:
    """Return the first packaged cells as tokens."""
    with open_cells(packaged_cells()) as source:
        tokenizer = CellTokenizer(bundle.manifest.cell_input, bundle.vocabulary, source)
        return next(tokenizer.batches(rows=np.arange(count), batch_cells=count))


class ClockedSlots:
    """Slots that note how long each call took."""

    def __init__(self, slots: Any) -> None:
        self._slots = slots
        self.depth, self.steps_per_ticket = slots.depth, slots.steps_per_ticket
        self.prompts: list[float] = []
        self.steps: list[float] = []

    def admit(self, admissions: Any) -> Ticket:
        """Fill slots."""
        return self._timed(self.prompts, self._slots.admit, admissions)

    def step(self, active: Any) -> Ticket:
        """Choose the next tokens."""
        return self._timed(self.steps, self._slots.step, active)

    def _timed(self, into: list[float], call: Any, argument: Any) -> Ticket:
        started = time.perf_counter()
        ticket: Ticket = call(argument)
        into.append(time.perf_counter() - started)
        return ticket


if __name__ == "__main__":
    serve(OurLingoCell())
