"""What does ONNX Runtime's CUDA provider need for the same bundle? In emulation its CPU provider runs the same code."""

from __future__ import annotations

from gpu.context import Context
from gpu.parity import compared, forced, kept
from gpu.results import SKIPPED, rounded
from gpu.roofline import cell_floor
from gpu.writing import describe, open_slots

_SLOTS = (1, 32)


def run(context: Context) -> None:
    """Measure the engine's own backend for it, where the provider is there."""
    from cellscribe.engine.backends.cuda_provider import cuda_provider_problem
    from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda
    from cellscribe.engine.backends.sessions import Device

    section = context.section("onnxruntime-cuda")
    emulate, tokens = context.options.emulate, context.sizes.tokens
    problem = "" if emulate else cuda_provider_problem()
    if problem:
        section.say(problem)
        section.save(SKIPPED, problem)
        return
    backend = OnnxRuntimeCuda(context.bundle, Device("cpu" if emulate else "cuda"))
    section.fact(backend=backend.device)
    few = min(2 if emulate else 8, len(kept(context).tokens))
    found = compared(kept(context), forced(context, backend, few))
    section.fact(check={key: found[key] for key in ("tokens", "percent_equal", "near_ties", "others")})
    section.fact(remarks=list(backend.remarks))
    for slots in _SLOTS[:1] if emulate else _SLOTS:
        opened = open_slots(context, backend, slots, tokens)
        describe(context, backend, opened, slots, slots, tokens)
        written = describe(context, backend, opened, slots, max(2 * slots, 4), tokens)
        ms = 1e3 * written.seconds / len(written.latencies_ms)
        floor = cell_floor(context.model, slots, tokens, context.ceilings)
        section.row(
            slots=slots, tokens=tokens, ms_per_cell=rounded(ms), floor_ms_per_cell=rounded(floor.ms),
            percent_of_roofline=rounded(100 * floor.ms / ms, 3), tokens_per_s=rounded(1e3 * tokens / ms),
        )  # fmt: skip
        del opened
    section.save("ok")
