"""One measured call of a kernel: what it must move and do, and how to make it over fresh inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gpu.clock import Call
from gpu.context import Context
from gpu.results import Row
from gpu.roofline import Work


@dataclass(frozen=True)
class Case:
    """A kernel at some sizes.

    `make(i)` returns the call over input set `i` of `sets`; `rival` names what else computes it and makes that call.
    """

    kernel: str
    sizes: Row
    work: Work
    sets: int
    make: Callable[[int], Call]
    rivals: dict[str, Callable[[int], Call]] = field(default_factory=dict)


class Bench:
    """Makes inputs for cases on the device of a run."""

    def __init__(self, context: Context) -> None:
        self.context, self.sizes, self.model = context, context.sizes, context.sizes.model
        self.torch, self.device = context.torch, context.device

    @cached_property
    def ops(self) -> Any:
        """The kernels as the backend calls them."""
        return self.tuned(0)

    def tuned(self, num_blocks: int) -> Any:
        """Return the kernels with another number of blocks, where a kernel lets that be chosen; 0: as it suggests."""
        from cellscribe.engine.backends.cuda.ops import Ops
        from cellscribe.kernels.library import load_library

        class Tuned(Ops):
            def launch(self, kernel: str, p: Any, *, workspace: bool = False) -> None:
                if num_blocks and hasattr(p, "num_blocks"):
                    p.num_blocks = num_blocks
                super().launch(kernel, p, workspace=workspace)

        return Tuned(load_library(self.context.library), self.torch, self.torch.device(self.device))

    def sets(self, bytes_of_one: float) -> int:
        """How many input sets it takes to span the L2 cache several times."""
        wanted = math.ceil(self.sizes.colds * self.context.l2_bytes / bytes_of_one)
        return max(1, min(wanted, self.sizes.max_sets))

    def half(self, *shape: int) -> Any:
        """Random fp16 numbers."""
        return self.torch.randn(shape, device=self.device, dtype=self.torch.float16)

    def wide(self, *shape: int) -> Any:
        """Random float32 numbers."""
        return self.torch.randn(shape, device=self.device)

    def ints(self, value: int, count: int) -> Any:
        """An int32 array of one value."""
        return self.torch.full((count,), value, dtype=self.torch.int32, device=self.device)


def measure(bench: Bench, case: Case) -> Row:
    """Time a case with the L2 cache cold (its input sets in turn) and warm (one set)."""
    clock, repeats, ceilings = bench.context.clock, bench.sizes.repeats, bench.context.ceilings
    cold = clock.each([case.make(i) for i in range(case.sets)], repeats)
    warm = clock.each([case.make(0)] * min(case.sets, 32), repeats)
    floor = ceilings.seconds(case.work)
    row = {
        "kernel": case.kernel,
        **case.sizes,
        "us_cold": round(1e6 * cold, 2),
        "us_warm": round(1e6 * warm, 2),
        "floor_us": round(1e6 * floor, 3),
        "percent_of_roofline": round(100 * floor / cold, 1),
        "binds": ceilings.binds(case.work),
        "gbs": round(case.work.bytes / cold / 1e9, 1),
        "gbs_warm": round(case.work.bytes / warm / 1e9, 1),
        "tflops": round(case.work.flops / cold / 1e12, 2),
        "bytes": int(case.work.bytes),
        "flops": int(case.work.flops),
        "input_sets": case.sets,
    }
    for name, make in case.rivals.items():
        row[f"{name}_us_cold"] = round(1e6 * clock.each([make(i) for i in range(case.sets)], repeats), 2)
    return row


def swept(bench: Bench, cases: Callable[[Any], Iterator[Case]]) -> Iterator[Row]:
    """Measure cases over numbers of blocks: `cases(ops)` makes them with kernels of that number."""
    for blocks in bench.sizes.swept_blocks:
        for case in cases(bench.tuned(blocks)):
            row = measure(bench, case)
            kept = ("kernel", *case.sizes, "us_cold", "us_warm", "percent_of_roofline")
            yield {"num_blocks": blocks, **{name: row[name] for name in kept}}
