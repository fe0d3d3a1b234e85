"""How near to the device's ceilings is each kernel? At the sizes of lingocell-1.1b, with the L2 cache cold and warm."""

from __future__ import annotations

from gpu import kernel_attention, kernel_products
from gpu.context import Context
from gpu.kernel_cases import Bench, measure, swept


def run(context: Context) -> None:
    """Measure every kernel alone, then the numbers of blocks that the notes want to see varied."""
    section, bench = context.section("kernels"), Bench(context)
    section.fact(ceilings=context.ceilings.__dict__, l2_bytes=context.l2_bytes)
    for make in (*kernel_attention.cases(bench), *kernel_products.cases(bench)):
        case = make()
        if case is not None:
            section.row(**measure(bench, case))
    tokens = bench.model.prompt_len
    rows = (32 * tokens, 32 * bench.model.genes) if bench.sizes.is_full else (4, 8)
    for case in kernel_products.between(bench, *rows):
        section.row(**measure(bench, case))
    section.save("ok")


def run_sweeps(context: Context) -> None:
    """Vary the number of blocks."""
    section, bench = context.section("sweeps"), Bench(context)
    for row in swept(bench, lambda ops: kernel_attention.swept_cases(bench, ops)):
        section.row(**row)
    section.save("ok")
