"""What the parts of an answer cannot do without, and how near each engine comes to it.

Everything follows from what a result file holds, so that entries that were measured before are judged as well. The
floor is a bound of the form that an engine uses, in its own precision, and not of every conceivable one: engines that
keep cross keys and values of a LingoCell, as the plain way does, are judged by the work of that form, and ours, which
read the memory itself, by theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers.tiny_llama import LlamaShape
from peers.tiny_neox import NeoxShape

from cellscribe.engine.bench.cost import Cost
from cellscribe.engine.bench.hardware import Hardware
from cellscribe.engine.bench.precision import precision_named
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bench.work import Work
from cellscribe.engine.bundle import read_manifest

Sizes = Mapping[str, int]
Floors = Callable[[str, Sizes, str], Mapping[str, Work]]
"""Work of each part, by the precision of an engine, the sizes of a comparison, and the engine's name."""

PRECISIONS = {32: "fp32", 16: "fp16", 8: "int8", 4: "int4"}
OURS = "cellscribe"  # what the names of our engines begin with
PERCENTILES = {50: 1, 90: 10, 99: 100}  # and the fewest samples that tell them


@dataclass(frozen=True)
class Decoder:
    """What the floors of plain decoding follow from: weights of all layers, of the head, and widths L x H x D."""

    layers: int
    head: int
    queries: int
    keys: int

    @classmethod
    def of(cls, shape: LlamaShape | NeoxShape) -> Decoder:
        """Count a shape's; biases and norms are left out."""
        heads, d = shape.n_heads * shape.d_head, shape.d_model
        kv = shape.n_kv_heads * shape.d_head if isinstance(shape, LlamaShape) else heads
        linear = 3 if isinstance(shape, LlamaShape) else 2
        layers = shape.n_layers * (2 * d * (heads + kv) + linear * d * shape.d_ffn)
        return cls(layers, d * shape.vocab_size, shape.n_layers * heads, shape.n_layers * kv)


def plain(shape: LlamaShape | NeoxShape) -> Floors:
    """Return the floors of plain decoding after prompts of P tokens, T new ones.

    `slots` prompts at once; or `cells` of them, `batch` at a time: then a step is that of a batch, and the prompt and
    the whole are those of all batches.
    """
    decoder = Decoder.of(shape)

    def floors(precision: str, sizes: Sizes, who: str = "") -> dict[str, Work]:
        named, new, length = precision_named(precision), sizes["new_tokens"], sizes["prompt_len"]
        slots = min(sizes["batch"], sizes["cells"]) if "batch" in sizes else sizes["slots"]
        batches = sizes.get("cells", slots) / slots
        weights = decoder.layers * named.weight_bytes + decoder.head * named.outer_bytes  # as every engine keeps it
        cached = 2 * decoder.keys * named.state_bytes  # a token
        in_use = length + new / 2
        own = 4 * decoder.queries * in_use
        flops = slots * (2 * (decoder.layers + decoder.head) + own)
        step = Work(weights + slots * cached * in_use, flops, slots * own)
        seen = 2 * decoder.queries * length**2
        flops = slots * (2 * length * decoder.layers + 2 * decoder.head + seen)
        prompt = Work(weights + slots * cached * length, flops, slots * seen).times(batches)
        return {"step": step, "prompt": prompt, "whole": prompt + step.times(batches * (new - 1))}

    return floors


def lingocell(bundle: Path, cache_bytes: int | None = None) -> Floors:
    """Return the floors of cells described by a bundle's shape.

    Engines of ours have the bundle's form of cross-attention; the others keep keys and values, and run the whole prompt
    for every cell. `cache_bytes` is the processor's last cache, this machine's without; see :class:`Cost`.
    """
    manifest = read_manifest(bundle)
    cache = Hardware.here().last_cache_bytes if cache_bytes is None else cache_bytes

    def floors(precision: str, sizes: Sizes, who: str = OURS) -> dict[str, Work]:
        cost, cells = Cost.of(manifest, precision, cache), sizes["cells"]
        if not who.startswith(OURS):
            cost = cost.materialised().with_whole_prompt()
        memory_len = sizes.get("memory_len", manifest.cell_input.num_genes + 1)
        encoder = cost.encode(cells, memory_len)
        if "new_tokens" not in sizes:
            return {"whole": encoder}
        new = sizes["new_tokens"]
        prompt = cost.prompt(cells, memory_len)
        step = cost.step(cells, cost.mean_tokens_in_use(new), memory_len)
        whole = encoder + prompt + step.times(new - 1)
        return {"encoder": encoder, "prompt": prompt, "step": step, "whole": whole}

    return floors


def judge(entry: dict[str, Any], floors: Floors) -> None:
    """Write percentiles, bytes, operations, rates and shares of the roofline into every part of an entry's rows."""
    roofline = Roofline.from_dict(entry["roofline"])
    for row in entry["rows"]:
        precision = PRECISIONS[row["bits"]]
        sizes = {**entry["sizes"], **row.get("sizes", {})}
        work, ceilings = floors(precision, sizes, row["who"]), roofline.ceilings(precision)
        for name, part in row["parts"].items():
            samples = 1e3 * np.array([one for found in part["rounds"] for one in found])
            part["ms"] = {f"p{q}": _short(np.percentile(samples, q)) for q in PERCENTILES}
            if name not in work or ceilings is None:
                continue
            done = work[name]
            part["floor"] = {
                "bytes": _short(done.bytes),
                "flops": _short(done.flops),
                "gigabytes_per_s": _short(done.bytes / part["median"] / 1e9),
                "gigaflops_per_s": _short(done.flops / part["median"] / 1e9),
                "percent_of_roofline": _short(100 * ceilings.seconds(done) / part["median"]),
            }


def lines_of(entry: Mapping[str, Any], part: str) -> list[str]:
    """Say a part of every engine as a Markdown table; nothing where it was not judged."""
    rows = [row for row in entry["rows"] if "floor" in row["parts"].get(part, {})]
    if not rows:
        return []
    names = " / ".join(f"p{q}" for q in PERCENTILES)
    head = [f"{part} of", f"{names}, ms", "must move, GB", "must do, GFLOP", "GB/s", "GFLOP/s", "% of roofline"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        judged = row["parts"][part]
        ms, floor = judged["ms"], judged["floor"]
        samples = sum(map(len, judged["rounds"]))
        told = [f"{ms[f'p{q}']:,.1f}" if samples >= fewest else "-" for q, fewest in PERCENTILES.items()]
        cells = [row["who"], " / ".join(told)]
        cells += [f"{floor[name] / 1e9:,.2f}" for name in ("bytes", "flops")]
        cells += [f"{floor[name]:,.1f}" for name in ("gigabytes_per_s", "gigaflops_per_s")]
        cells.append(f"{floor['percent_of_roofline']:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _short(value: float) -> float:
    return float(f"{value:.6g}")
