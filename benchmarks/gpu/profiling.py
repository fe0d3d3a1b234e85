"""Where do the microseconds of a step go? The kernels that take most of it, and how long the device waits."""

from __future__ import annotations

from typing import Any

from gpu.context import Context
from gpu.writing import admit, open_slots, step_tickets

_TOP, _TICKETS = 10, 4


def run(context: Context) -> None:
    """Profile a few steps at few and at many slots."""
    section = context.section("profile")
    for slots in context.sizes.profile_slots:
        steps, wall, kernels = profiled(context, slots)
        busy = sum(micros for micros, _ in kernels.values())
        section.fact(
            **{
                f"slots_{slots}": {
                    "steps": steps,
                    "us_per_step": round(wall / max(steps, 1), 1),
                    "busy_us_per_step": round(busy / max(steps, 1), 1),
                    "idle_share": round(max(0.0, 1 - busy / wall), 4),
                }
            }
        )
        for name, (micros, calls) in sorted(kernels.items(), key=lambda one: -one[1][0])[:_TOP]:
            section.row(
                slots=slots, kernel=name[:120], us_per_step=round(micros / max(steps, 1), 2),
                calls_per_step=round(calls / max(steps, 1), 2), share_of_busy=round(micros / max(busy, 1e-9), 4),
            )  # fmt: skip
    section.save("ok")


def profiled(context: Context, num_slots: int) -> tuple[int, float, dict[str, tuple[float, int]]]:
    """Return steps, wall microseconds without the profiler, and microseconds and calls of each kernel with it."""
    torch, backend = context.torch, context.backend
    activity = torch.profiler.ProfilerActivity
    used = [activity.CPU] if context.options.emulate else [activity.CUDA]
    memory = backend.encode(context.cells(min(num_slots, 64))).memory
    slots = open_slots(context, backend, num_slots, context.sizes.tokens)
    tickets = 1 if context.options.emulate else _TICKETS
    admit(context, slots, memory, num_slots)
    step_tickets(slots, num_slots, 1)
    counted: list[int] = []
    wall = 1e6 * context.clock.wall(lambda: counted.append(step_tickets(slots, num_slots, tickets)))
    with torch.profiler.profile(activities=used) as profile:
        step_tickets(slots, num_slots, tickets)
        context.clock.synchronize()
    return counted[0], wall, _kernels(profile, context.options.emulate)


def _kernels(profile: Any, emulate: bool) -> dict[str, tuple[float, int]]:
    found = {}
    for event in profile.key_averages():
        micros = event.self_cpu_time_total if emulate else event.self_device_time_total
        if micros > 0:
            found[str(event.key)] = (float(micros), int(event.count))
    return found
