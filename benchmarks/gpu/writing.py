"""Describing real cells as the engine does, on slots that are open and warm: file, tokens, memory, prompt, steps, text.

The texts do not end before their last token, so that every number of slots does the same work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gpu.context import Context


@dataclass
class Written:
    """What came of a run of cells: wall seconds, milliseconds from slot to last token, token ids by cell."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    token_ids: dict[int, list[int]] = field(default_factory=dict)
    texts: int = 0


def requests(context: Context, backend: Any, source: Any, tokenizer: Any, count: int) -> Iterator[Any]:
    """Read, tokenise and encode `count` cells, the file over and over, each time under other names."""
    from cellscribe.engine.decode.scheduler import Request
    from cellscribe.engine.describe import CellFeed
    from cellscribe.engine.keyed import cell_key

    made = 0
    while made < count:
        rows = np.arange(min(source.n_cells, count - made))
        for subject, memory, mask in CellFeed(backend, context.bundle, tokenizer, source, rows):
            yield subject.axis, Request(made, cell_key(f"{subject.cell_id}#{made // source.n_cells}"), memory, mask)
            made += 1


def describe(context: Context, backend: Any, slots: Any, num_slots: int, cells: int, tokens: int) -> Written:
    """Run cells through open slots, as `Writer` of the engine does; the clock runs from the file to the last text."""
    from cellscribe.engine.cells import CellTokenizer, open_cells
    from cellscribe.engine.decode.ahead import Ahead
    from cellscribe.engine.decode.evidence import named_genes, top_genes
    from cellscribe.engine.decode.scheduler import Scheduler
    from cellscribe.engine.decode.texts import decode
    from cellscribe.engine.packaged import packaged_cells

    found, axes = Written(), {}
    with open_cells(packaged_cells()) as source:
        tokenizer = CellTokenizer(context.bundle.manifest.cell_input, context.bundle.vocabulary, source)
        started = time.perf_counter()
        feed = requests(context, backend, source, tokenizer, cells)
        with closing(Ahead(feed, backend.cells_ahead)) as ready:

            def asked() -> Iterator[Any]:
                for axis, request in ready:
                    axes[request.index] = axis
                    yield request

            scheduler = Scheduler(slots, num_slots, eos_ids=frozenset(), max_new_tokens=tokens, is_ready=ready.is_ready)
            for event in scheduler.run(asked()):
                if event.text.is_finished:
                    text, axis = event.text, axes[event.text.request.index]
                    genes = top_genes(text.evidence, axis, 10)
                    named_genes(decode(context.bundle.tokenizer, text.token_ids), genes.symbols)
                    found.latencies_ms.append(text.latency_ms)
                    found.token_ids[text.request.index] = text.token_ids
                    found.texts += text.finish_reason == "length"
        context.clock.synchronize()
        found.seconds = time.perf_counter() - started
    return found


def open_slots(context: Context, backend: Any, num_slots: int, tokens: int, *, forced: bool = False) -> Any:
    """Open slots whose texts end at their last token alone."""
    from cellscribe.engine.backends.base import SlotPlan
    from cellscribe.engine.types import Sampling

    genes = context.cells(1).genes.shape[1]
    return backend.open_slots(SlotPlan(num_slots, genes, tokens, Sampling(), forced=forced))


def admit(context: Context, slots: Any, memory: Any, num_slots: int) -> None:
    """Fill all slots with encoded cells, over and over, and wait for their first tokens."""
    from cellscribe.engine.backends.base import Admission

    mask = context.cells(1).mask[0]
    slots.admit([Admission(i, i, memory[i % len(memory)], mask) for i in range(num_slots)]).wait()


def step_tickets(slots: Any, num_slots: int, tickets: int) -> int:
    """Give steps to the device as the scheduler does, two tickets at a time; returns the tokens of the first slot."""
    active, seen = np.arange(num_slots), 0
    under_way: deque[Any] = deque()
    for _ in range(tickets):
        under_way.append(slots.step(active))
        if len(under_way) >= slots.depth:
            seen += len(under_way.popleft().wait())
    while under_way:
        seen += len(under_way.popleft().wait())
    return seen
