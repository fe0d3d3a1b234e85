"""Comparisons as a page that a person reads, in Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from made_by import words
from peers import floors

from cellscribe.engine.bench.hardware import Hardware
from cellscribe.engine.bench.roofline import ALONE

THREADS = len(os.sched_getaffinity(0))


def page_of(entries: Mapping[str, Any], parts: Iterable[str]) -> str:
    """Say all comparisons of a file, and what the machine did around each."""
    parts = tuple(parts)
    best = max((max(_rates(entry, "fp32 registers"), default=0.0) for entry in entries.values()), default=0.0)
    lines = [f"{Hardware.here().line()}, {THREADS} threads", ""]
    for key, entry in entries.items():
        lines += lines_of(key, entry, parts)
        lines += floors.lines_of(entry, "step" if "step" in parts else "whole")
        if entry.get("roofline"):
            lines += [_machine(entry, best), ""]
        which = words(entry.get("made_by"))
        lines += [f"{which[0].upper()}{which[1:]}.", ""]
    return "\n".join(lines)


def _machine(entry: Mapping[str, Any], best: float) -> str:
    """Say what the machine did around a comparison, and whether other work on it shows."""
    read, copy, registers = (max(_rates(entry, name), default=0.0) for name in ("read", "copy", "fp32 registers"))
    said = f"{entry['rounds']} rounds; the machine read {read / 1e9:.0f} GB/s, copied {copy / 1e9:.0f} GB/s"
    said += f", made {registers / 1e9:.0f} GFLOP/s on registers"
    if best and registers < 0.9 * best:
        said += f", {registers / best:.0%} of what it did once: other work ran on it, or its clock was lower"
    busy = min(entry["roofline"].get("busy") or [1.0])
    shared = f" (shared: other work took {1 - busy:.0%} of the cores)" if busy < ALONE else ""
    return f"{said}; a product had {busy:.0%} of its cores{shared}."


def _rates(entry: Mapping[str, Any], name: str) -> list[float]:
    return list(entry.get("roofline", {}).get("rates", {}).get(name, []))


def lines_of(key: str, entry: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """Say a comparison as a Markdown table."""
    parts = tuple(parts)
    head = ["engine", *(f"{part}, ms (quartiles)" for part in parts), "a second"]
    head += ["peak GB, loading (running)", "tokens as the reference"]
    lines = [f"### {key}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in entry["rows"]:
        cells = [row["who"]]
        for part in parts:
            one = row["parts"][part]
            cells.append(f"{1e3 * one['median']:,.1f} ({1e3 * one['lower']:,.1f} to {1e3 * one['upper']:,.1f})")
        agreement = entry["agreement"].get(row["who"], "")
        running = f" ({row['running_peak_bytes'] / 1e9:.2f})" if "running_peak_bytes" in row else ""
        cells += [f"{row['units_per_s']:,.2f}", f"{row['peak_bytes'] / 1e9:.2f}{running}", agreement]
        lines.append("| " + " | ".join(cells) + " |")
    lines += _written(entry)
    return [*lines, *(f"- {name}: not measured, as {why}" for name, why in entry["missing"].items()), ""]


def _written(entry: Mapping[str, Any]) -> list[str]:
    """Say how many cells each engine wrote, where it was asked for a number of its own."""
    said = [f"{row['sizes']['n']:,} by {row['who']}" for row in entry["rows"] if "n" in row.get("sizes", {})]
    return ["", f"Times are those of one cell; cells written: {'; '.join(said)}."] if said else []
