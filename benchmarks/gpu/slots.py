"""The time of a cell with 1, 8, 32, 96 and 512 slots, and how near it is to the floor."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

import numpy as np
from gpu.context import Context
from gpu.results import Row, rounded
from gpu.roofline import Model, cell_floor, mean_context, memory_bytes, step_work, step_work_in_cache
from gpu.writing import Written, admit, describe, open_slots, step_tickets

_WARM_TICKETS = 2


def run(context: Context) -> None:
    """Measure our kernels at every number of slots."""
    section = context.section("slots")
    section.fact(backend=context.backend.device, tokens=context.sizes.tokens, ceilings=context.ceilings.__dict__)
    for num_slots, cells in zip(context.sizes.slots, context.sizes.cells, strict=True):
        section.row(**measure(context, context.backend, context.model, num_slots, cells))
    section.save("ok")


def run_int8(context: Context) -> None:
    """Measure 8-bit weights where the kernels for few rows read them, if the backend can."""
    section, sizes = context.section("int8"), context.sizes
    backend = context.new_backend(step_weights="int8")
    eight = context.model.with_weights(1)
    for num_slots, cells in sorted(zip(sizes.slots, sizes.cells, strict=True)):
        if num_slots <= 8:
            section.row(weights="int8", **measure(context, backend, eight, num_slots, cells))
    section.save("ok")


def run_materialised(context: Context) -> None:
    """The same model, weights and kernels with cross keys and values kept for each cell."""
    from gpu.materialised import materialised_backend

    section, sizes = context.section("materialised"), context.sizes
    backend, model = materialised_backend(context), replace(context.model, is_latent=False)
    section.fact(note="floors are those of this form: it has more to read")
    for num_slots, cells in sorted(zip(sizes.slots, sizes.cells, strict=True)):
        if num_slots in sizes.peer_slots:
            section.row(form="materialised", **measure(context, backend, model, num_slots, cells))
    section.save("ok")


def measure(context: Context, backend: Any, model: Model, num_slots: int, cells: int) -> Row:
    """Return the figures of one number of slots."""
    tokens = context.sizes.tokens
    row: Row = {"slots": num_slots, "cells": cells, "tokens": tokens}
    memory = backend.encode(context.cells(min(num_slots, 64))).memory
    open_slots(context, backend, 1, tokens)  # the first slots of a backend load its weights
    _free(context)
    before = _allocated(context)
    started = time.perf_counter()
    slots = open_slots(context, backend, num_slots, tokens)
    row |= _memory(context, backend, num_slots, _allocated(context) - before)
    admit(context, slots, memory, num_slots)
    step_tickets(slots, num_slots, _WARM_TICKETS)
    row["opening_s"] = round(time.perf_counter() - started, 2)
    row |= _step(context, model, slots, memory, num_slots)
    describe(context, backend, slots, num_slots, min(cells, num_slots), tokens)  # all sizes of graphs are captured
    row |= _whole(context, model, describe(context, backend, slots, num_slots, cells, tokens), num_slots)
    row["peak_gb"] = round(_peak(context) / 1e9, 3)
    del slots, memory
    _free(context)
    return row


def _step(context: Context, model: Model, slots: Any, memory: Any, num_slots: int) -> Row:
    """Time steps alone, all slots at work, in the middle of their texts."""
    ceilings, tickets = context.ceilings, context.sizes.tickets
    prompt = context.clock.wall(lambda: admit(context, slots, memory, num_slots))
    steps = step_tickets(slots, num_slots, _WARM_TICKETS)
    counted: list[int] = []
    seconds = context.clock.wall(lambda: counted.append(step_tickets(slots, num_slots, tickets)))
    taken = counted[0]
    at = model.prompt_len + steps + taken / 2
    work = step_work(model, num_slots, at)
    step = seconds / max(taken, 1)
    in_cache = step_work_in_cache(model, num_slots, at)
    return {
        "prompt_ms_per_cell": rounded(1e3 * prompt / num_slots),
        "step_ms": rounded(1e3 * step),
        "steps_timed": taken,
        "step_floor_ms": rounded(1e3 * ceilings.seconds(work)),
        "step_binds": ceilings.binds(work),
        "step_percent_of_roofline": rounded(100 * ceilings.seconds(work) / step, 3),
        "step_gbs": rounded(work.bytes / step / 1e9),
        "step_tflops": rounded(work.flops / step / 1e12),
        "memories_fit_l2": 0 < num_slots * memory_bytes(model) <= context.l2_bytes,
        "step_floor_ms_with_memories_in_l2": rounded(1e3 * ceilings.seconds(in_cache)),
        "step_bytes": int(work.bytes),
        "step_flops": int(work.flops),
        "mean_context": at,
    }


def _whole(context: Context, model: Model, written: Written, num_slots: int) -> Row:
    tokens, cells = context.sizes.tokens, len(written.latencies_ms)
    if not cells or written.texts != cells:
        raise RuntimeError(f"{written.texts} of {cells} texts reached their last token: some are not finite")
    floor = cell_floor(model, num_slots, tokens, context.ceilings)
    ms = 1e3 * written.seconds / cells
    p50, p90, p99 = np.percentile(written.latencies_ms, [50, 90, 99])
    return {
        "ms_per_cell": rounded(ms),
        "floor_ms_per_cell": rounded(floor.ms),
        "percent_of_roofline": rounded(100 * floor.ms / ms, 3),
        "tokens_per_s": rounded(cells * tokens / written.seconds),
        "latency_p50_ms": rounded(p50),
        "latency_p90_ms": rounded(p90),
        "latency_p99_ms": rounded(p99),
        "mean_context_of_a_text": mean_context(model, tokens),
    }


def _memory(context: Context, backend: Any, num_slots: int, allocated: int) -> Row:
    """Compare what opening the slots took with what the engine computes for them."""
    from cellscribe.engine.backends.base import SlotPlan
    from cellscribe.engine.backends.cuda.faults import slot_budget
    from cellscribe.engine.types import Sampling

    genes = context.cells(1).genes.shape[1]
    plan = SlotPlan(num_slots, genes, context.sizes.tokens, Sampling())
    manifest = getattr(backend, "counted_as", context.bundle.manifest)
    computed = slot_budget(manifest, plan, 0).slot.total
    row: Row = {"computed_bytes_per_slot": computed}
    if context.options.emulate:
        return row
    each = allocated / num_slots
    return {**row, "bytes_per_slot": int(each), "bytes_per_slot_over_computed": rounded(each / computed, 5)}


def _allocated(context: Context) -> int:
    return 0 if context.options.emulate else int(context.torch.cuda.memory_allocated())


def _peak(context: Context) -> int:
    return 0 if context.options.emulate else int(context.torch.cuda.max_memory_allocated())


def _free(context: Context) -> None:
    gc.collect()
    if not context.options.emulate:
        context.torch.cuda.synchronize()
        context.torch.cuda.empty_cache()
        context.torch.cuda.reset_peak_memory_stats()
