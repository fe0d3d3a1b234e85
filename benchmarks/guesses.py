"""What do guessed tokens gain? ``python benchmarks/guesses.py [--cells 48] [--rounds 5]``.

The packaged model describes packaged cells at 1 and 2 slots, with guesses and without, in turn in one run, the encoder
left out; texts end where the model ends them, and are the same both ways. How often guesses fit depends on how alike
the texts of a run are, and these are; a model this small sits in a cache, where a step costs little but its calls.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from hardware import hardware, written
from made_by import made_by
from peers.ours_lingocell import packaged_batch
from results_folder import results_folder

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.cpu import CpuBackend
from cellscribe.engine.bench.clock import in_turn, ratio
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.decode.scheduler import Request, Scheduler
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.types import Sampling
from cellscribe.engine.versions import versions

NEW_TOKENS, SLOTS = 96, (1, 2)


@dataclass(frozen=True, eq=False)
class Cells:
    """Encoded cells: memory [N, S, d] and mask bool [N, S]."""

    backend: CpuBackend
    memory: np.ndarray
    mask: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = measured(asked.cells, asked.rounds)
    written(results_folder() / "guesses.json", found)
    for row in found["rows"]:
        print(f"{row['slots']} slots: {row['ratio'][0]}x ({row['ratio'][1]} to {row['ratio'][2]})")


def measured(num_cells: int, rounds: int) -> dict[str, Any]:
    """Write texts with and without guesses."""
    backend = CpuBackend(open_bundle(packaged_bundle()))
    cells = packaged_batch(backend.bundle, num_cells)
    encoded = Cells(backend, backend.encode(cells).memory, cells.mask)
    return {
        "cells": num_cells,
        "rows": [row(encoded, slots, rounds) for slots in SLOTS],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": made_by(),
        "versions": versions(),
        "device": backend.device,
        "hardware": hardware(),
    }


def row(cells: Cells, num_slots: int, rounds: int) -> dict[str, Any]:
    """Time both ways in turn; ValueError where their texts differ."""
    ways, seconds = (True, False), {True: list[float](), False: list[float]()}
    texts = [texts_of(cells, num_slots, way) for way in ways]  # warm
    if texts[0] != texts[1]:
        raise ValueError("guesses changed a text")
    for number in range(rounds):
        for at in in_turn(len(ways), number):
            started = time.perf_counter()
            texts_of(cells, num_slots, ways[at])
            seconds[ways[at]].append(time.perf_counter() - started)
    found = ratio(*(tuple((one,) for one in seconds[way]) for way in (False, True)))
    return {
        "slots": num_slots,
        "tokens": sum(map(len, texts[0])),
        "seconds_with": [round(one, 4) for one in seconds[True]],
        "seconds_without": [round(one, 4) for one in seconds[False]],
        "ratio": [round(one, 3) for one in (found.value, found.low, found.high)],
    }


def texts_of(cells: Cells, num_slots: int, guesses: bool) -> list[tuple[int, ...]]:
    """Return the tokens of every text."""
    backend, mask = cells.backend, cells.mask
    slots = backend.open_slots(SlotPlan(num_slots, mask.shape[1], NEW_TOKENS, Sampling(), may_guess=guesses))
    ends = frozenset(backend.bundle.manifest.prompt.eos_token_ids)
    scheduler = Scheduler(slots, num_slots, eos_ids=ends, max_new_tokens=NEW_TOKENS)
    requests = (Request(i, i, cells.memory[i], mask[i]) for i in range(len(mask)))
    events = (event.text for event in scheduler.run(requests) if event.text.is_finished)
    found = {text.request.index: tuple(text.token_ids) for text in events}
    return [found[i] for i in range(len(mask))]


if __name__ == "__main__":
    main()
