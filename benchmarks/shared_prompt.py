"""What does the shared prompt save? ``python benchmarks/shared_prompt.py BUNDLE [--cells 8] [--rounds 5]``.

The prompt of every cell through the layers from the first cross-attention up, as the backend does, beside the whole
prompt through all layers, the last layer's shortcut the same in both; taking turns in one run, on the packaged cells.
The shared part was computed by torch in fp32 when the bundle was made, so logits differ by rounding.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from hardware import hardware, written
from peers.ours_lingocell import packaged_batch

from cellscribe.engine.backends.base import Admission, SlotPlan
from cellscribe.engine.backends.cpu import CpuBackend
from cellscribe.engine.bench.clock import ratio
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.types import Sampling

RESULT = Path(__file__).parent / "results/shared_prompt.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    bundle = open_bundle(asked.bundle)
    backend = CpuBackend(bundle)
    batch = packaged_batch(bundle, asked.cells)
    memory = backend.encode(batch).memory
    prompt = np.array(bundle.manifest.prompt.token_ids)
    length, layers = len(prompt), bundle.manifest.decoder.n_layers
    slots = backend.open_slots(SlotPlan(asked.cells, batch.mask.shape[1], 4, Sampling(), forced=True))
    rows, positions = np.arange(asked.cells).repeat(length), np.tile(np.arange(length), asked.cells)
    last = np.arange(1, asked.cells + 1) * length - 1

    def shared() -> np.ndarray:
        slots.admit([Admission(i, i, memory[i], batch.mask[i]) for i in range(asked.cells)]).wait()
        return slots.logits(asked.cells).copy()

    def whole() -> np.ndarray:
        for i in range(asked.cells):
            slots._fill(Admission(i, i, memory[i], batch.mask[i]))
        x = backend.decoder.embed(np.tile(prompt, asked.cells))
        return slots._passes.run(x, rows, positions, layers=(0, layers), chosen=last)[0]

    difference = float(np.abs(shared() - whole()).max())
    seconds: dict[str, list[float]] = {"shared": [], "whole": []}
    for _ in range(asked.rounds):
        for name, call in (("shared", shared), ("whole", whole)):
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    found = ratio(*(tuple((one,) for one in seconds[name]) for name in ("whole", "shared")))
    row = {
        "bundle": bundle.name,
        "precision": bundle.manifest.precision,
        "cells": asked.cells,
        "prompt_len": length,
        "seconds": seconds,
        "ratio": [round(one, 3) for one in (found.value, found.low, found.high)],
        "largest_difference_of_logits": difference,
        "device": backend.device,
        "hardware": hardware(),
    }
    written(RESULT, row)
    print(json.dumps({name: row[name] for name in ("ratio", "largest_difference_of_logits", "seconds")}))


if __name__ == "__main__":
    main()
