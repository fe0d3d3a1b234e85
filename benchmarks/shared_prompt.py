"""What does the shared prompt save? ``python benchmarks/shared_prompt.py FOLDER [--precision int4] [--cells 8]``.

FOLDER holds, or gets, the bundles of ``seed_way.py``. The prompt of every cell through the layers from the first
cross-attention up, as the backend does, beside the whole prompt through all layers, the last layer's shortcut the same
in both; taking turns in one run, on the packaged cells. The shared part was computed by torch in fp32 when the bundle
was made: in fp32 logits differ by rounding alone, in int8 and int4 by what fewer bits change in those layers. The
result file has an entry for each precision; one that is measured again takes its old place.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware, written
from made_by import made_by
from peers.ours_lingocell import packaged_batch
from results_folder import results_folder
from seed_way import BUNDLES, bundle

from cellscribe.engine.backends.base import Admission, SlotPlan
from cellscribe.engine.backends.cpu import CpuBackend
from cellscribe.engine.backends.sessions import default_threads
from cellscribe.engine.bench.clock import in_turn, ratio
from cellscribe.engine.bench.cost import Cost
from cellscribe.engine.bench.hardware import Hardware
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.types import Sampling
from cellscribe.engine.versions import versions

Way = Callable[[], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", choices=list(BUNDLES), default="int4")
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    entry = measured(open_bundle(bundle(asked.folder / BUNDLES[asked.precision], asked.precision)), asked.cells,
                     asked.rounds)  # fmt: skip
    keep(results_folder() / "shared_prompt.json", entry)
    print(json.dumps({name: entry[name] for name in ("ratio", "largest_difference_of_logits", "percent_of_roofline")}))


def keep(path: Path, entry: dict[str, Any]) -> None:
    """Write an entry beside those of other precisions."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    written(path, {"entries": {**found.get("entries", {}), entry["precision"]: entry}})


def measured(opened: Bundle, cells: int, rounds: int) -> dict[str, Any]:
    """Time both ways in turn, the roofline before and after, and return the entry of a precision."""
    backend = CpuBackend(opened)
    calls, memory_len = ways(backend, opened, cells)
    difference = float(np.abs(calls["shared"]() - calls["whole"]()).max())
    roofline = Roofline(default_threads())
    roofline.measure(is_quick=True)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        for at in in_turn(len(names), number):
            started = time.perf_counter()
            calls[names[at]]()
            seconds[names[at]].append(time.perf_counter() - started)
    roofline.measure(is_quick=True)
    found = ratio(*(tuple((one,) for one in seconds[name]) for name in ("whole", "shared")))
    precision = opened.manifest.precision
    cost = Cost.of(opened.manifest, precision, Hardware.here().last_cache_bytes)
    ceilings = roofline.ceilings(precision)
    assert ceilings is not None
    floors = {"shared": cost.prompt(cells, memory_len), "whole": cost.with_whole_prompt().prompt(cells, memory_len)}
    return {
        "bundle": opened.name,
        "precision": precision,
        "cells": cells,
        "prompt_len": cost.prompt_len,
        "seconds": seconds,
        "ratio": [round(one, 3) for one in (found.value, found.low, found.high)],
        "largest_difference_of_logits": difference,
        "percent_of_roofline": {
            name: round(100 * ceilings.seconds(floors[name]) / float(np.median(seconds[name])), 1) for name in names
        },
        "roofline": roofline.as_dict(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": made_by(),
        "versions": versions(),
        "device": backend.device,
        "hardware": hardware(),
    }


def ways(backend: CpuBackend, opened: Bundle, cells: int) -> tuple[dict[str, Way], int]:
    """Return both ways, each giving logits [B, V] after the prompt, and the length S of the memories."""
    batch = packaged_batch(opened, cells)
    memory = backend.encode(batch).memory
    prompt = np.array(opened.manifest.prompt.token_ids)
    length, layers = len(prompt), opened.manifest.decoder.n_layers
    slots = backend.open_slots(SlotPlan(cells, batch.mask.shape[1], 4, Sampling(), forced=True))
    rows, positions = np.arange(cells).repeat(length), np.tile(np.arange(length), cells)
    last = np.arange(1, cells + 1) * length - 1

    def shared() -> np.ndarray:
        slots.admit([Admission(i, i, memory[i], batch.mask[i]) for i in range(cells)]).wait()
        return slots.logits(cells).copy()

    def whole() -> np.ndarray:
        for i in range(cells):
            slots._fill(Admission(i, i, memory[i], batch.mask[i]))
        x = backend.decoder.embed(np.tile(prompt, cells))
        return slots._passes.run(x, rows, positions, layers=(0, layers), chosen=last)[0]

    return {"shared": shared, "whole": whole}, batch.mask.shape[1]


if __name__ == "__main__":
    main()
