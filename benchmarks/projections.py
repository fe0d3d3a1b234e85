"""What could other GPUs reach? ``python benchmarks/projections.py``: bytes and operations over datasheet rates.

Writes benchmarks/results/projections.json and projections.md. Nothing is measured here: every row is what the work of
lingocell-1.1b (gpu/roofline.py has the formulas) would take at a device's rates, at a stated share of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from gpu.roofline import (
    LINGOCELL,
    Ceilings,
    Model,
    cell_floor,
    cell_flops,
    mean_context,
    memory_bytes,
    step_weight_bytes,
    step_work,
    step_work_in_cache,
)
from results_folder import results_folder

LABEL = "projection, not measured"
TOKENS, TARGET_MS = 96, 180.0
SLOTS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512)
SHARES = (1.0, 0.85, 0.65)  # of the ceilings: the floor, a good kernel, what one slot is asked to reach
_MIB = 1 << 20


@dataclass(frozen=True)
class Device:
    """A GPU and where its rates come from."""

    ceilings: Ceilings
    memory_gb: float
    source: str


DEVICES = (
    Device(Ceilings("RTX 4090", 1008e9, 165e12, 72 * _MIB), 24, "datasheet; dense fp16 with fp32 sums"),
    Device(Ceilings("H100 SXM", 3350e9, 989e12, 50 * _MIB), 80, "datasheet; dense fp16"),
    Device(Ceilings("H200", 4800e9, 989e12, 60 * _MIB), 141, "datasheet; dense fp16"),
)  # fmt: skip


def rows() -> list[dict[str, object]]:
    """Return every device, number of slots, width of weights and share of the ceilings."""
    found: list[dict[str, object]] = []
    for device in DEVICES:
        for weights in ("fp16", "int8"):
            for slots in SLOTS if weights == "fp16" else (1, 2, 4, 8):  # the kernels read 8 bits up to 8 rows
                found += [row(device, weights, slots, share) for share in SHARES]
    return found


def row(device: Device, weights: str, slots: int, share: float) -> dict[str, object]:
    """Return one projection."""
    model, ceilings = model_with(weights), at_share(device.ceilings, share)
    floor = cell_floor(model, slots, TOKENS, ceilings)
    fits = slots * memory_bytes(model) <= device.ceilings.l2_bytes
    cached = ceilings.seconds(step_work_in_cache(model, slots, mean_context(model, TOKENS)))
    in_l2 = round(1e3 * cached, 3) if fits else None
    return {
        "label": LABEL, "device": ceilings.name, "weights": weights, "slots": slots, "share_of_ceilings": share,
        "ms_per_cell": round(floor.ms, 3), "encoder_ms": round(floor.encoder_ms, 3),
        "prompt_ms": round(floor.prompt_ms, 3), "steps_ms": round(floor.steps_ms, 3),
        "step_ms": round(floor.step_ms, 3), "step_binds": floor.binds,
        "step_ms_with_memories_in_l2": in_l2,
    }  # fmt: skip


def routes(device: Device, share: float) -> list[dict[str, object]]:
    """Return what brings a cell under the target with one slot, or with how many."""
    found: list[dict[str, object]] = []
    for weights in ("fp16", "int8"):
        floor = cell_floor(model_with(weights), 1, TOKENS, at_share(device.ceilings, share))
        rest = floor.encoder_ms + floor.prompt_ms
        found.append(
            {
                "label": LABEL, "device": device.ceilings.name, "share_of_ceilings": share, "weights": weights,
                "ms_at_one_slot": round(floor.ms, 1), "under_180_ms": floor.ms <= TARGET_MS,
                # A draft that costs nothing: each reading of the weights then has to bring this many tokens.
                "tokens_a_step_needed": round(max(1.0, floor.steps_ms / (TARGET_MS - rest)), 2),
                "slots_needed": slots_for(device, weights, share),
            }
        )  # fmt: skip
    return found


def slots_for(device: Device, weights: str, share: float) -> int | None:
    """Return the fewest slots that bring a cell under the target; None where none does."""
    ceilings = at_share(device.ceilings, share)
    return next((n for n in SLOTS if cell_floor(model_with(weights), n, TOKENS, ceilings).ms <= TARGET_MS), None)


def model_with(weights: str) -> Model:
    """Return lingocell-1.1b with decoder weights in fp16 or 8 bits."""
    return LINGOCELL if weights == "fp16" else LINGOCELL.with_weights(1)


def at_share(ceilings: Ceilings, share: float) -> Ceilings:
    """Return a device that reaches a share of its ceilings."""
    return Ceilings(ceilings.name, share * ceilings.bandwidth, share * ceilings.flops, ceilings.l2_bytes)


def result() -> dict[str, object]:
    """Return all projections with what they rest on."""
    m = LINGOCELL
    return {
        "label": LABEL,
        "shape": "lingocell-1.1b, latent cross-attention, fp16",
        "new_tokens": TOKENS,
        "model": asdict(m),
        "rests_on": {
            "step_weight_bytes": int(step_weight_bytes(m)),
            "memory_bytes_per_cell": memory_bytes(m),
            "step_bytes_96_slots": int(step_work(m, 96, m.prompt_len + TOKENS / 2).bytes),
            "flops_per_cell": int(cell_flops(m, TOKENS)),
        },
        "assumes": "every phase at the stated share of the slower of bandwidth and fp16 rate; memories read anew in "
        "every layer; launches, sampling and the host cost nothing; the first token comes from the prompt",
        "devices": [
            {"name": d.ceilings.name, "gbs": d.ceilings.bandwidth / 1e9, "tflops": d.ceilings.flops / 1e12,
             "l2_mib": d.ceilings.l2_bytes / _MIB, "source": d.source} for d in DEVICES
        ],
        "under_180_ms_on_a_4090": [one for share in SHARES for one in routes(DEVICES[0], share)],
        "rows": rows(),
    }  # fmt: skip


def markdown(found: dict[str, object]) -> str:
    """Return the projections as tables; every row carries its label."""
    lines = [f"# Projections ({LABEL}): {found['shape']}, {TOKENS} new tokens", "", f"Assumes {found['assumes']}.", ""]
    lines += _table(["device", "GB/s", "TFLOP/s", "L2 MiB", "rates from"], [
        [d.ceilings.name, f"{d.ceilings.bandwidth / 1e9:.0f}", f"{d.ceilings.flops / 1e12:.0f}",
         f"{d.ceilings.l2_bytes / _MIB:.0f}", d.source] for d in DEVICES
    ])  # fmt: skip
    lines += ["## Under 180 ms per cell on an RTX 4090", ""]
    head = ["weights", "share of ceilings", "ms at 1 slot", "tokens a step needed", "slots needed", "what it is"]
    lines += _table(head, [
        [r["weights"], f"{r['share_of_ceilings']:.0%}", f"{r['ms_at_one_slot']:.1f}", r["tokens_a_step_needed"],
         r["slots_needed"], LABEL] for share in SHARES for r in routes(DEVICES[0], share)
    ])  # fmt: skip
    lines += ["## Milliseconds per cell, genes to last token", ""]
    shares = (f"at {share:.0%}" for share in SHARES)
    head = ["device", "weights", "slots", *shares, "step ms at 100%", "with memories in L2", "binds", "what it is"]
    lines += _table(head, [_line(d, w, n) for d in DEVICES for w in ("fp16", "int8") for n in SLOTS
                           if w == "fp16" or n <= 8])  # fmt: skip
    return "\n".join(lines)


def _line(device: Device, weights: str, slots: int) -> list[object]:
    floors = [cell_floor(model_with(weights), slots, TOKENS, at_share(device.ceilings, share)) for share in SHARES]
    times = [f"{floor.ms:.2f}" for floor in floors]
    cached = row(device, weights, slots, 1.0)["step_ms_with_memories_in_l2"]
    steps = [f"{floors[0].step_ms:.3f}", "they do not fit" if cached is None else cached]
    return [device.ceilings.name, weights, slots, *times, *steps, floors[0].binds, LABEL]


def _table(head: list[str], body: list[list[object]]) -> list[str]:
    rule = f"|{'---|' * len(head)}"
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(map(str, line))} |" for line in body), ""]


def main() -> None:
    found = result()
    (results_folder() / "projections.json").write_text(json.dumps(found, indent=1) + "\n")
    (results_folder() / "projections.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
