"""Rows as the cells of a table, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from cellscribe.engine.bench.row import Row
from cellscribe.engine.output.run import count

_SIZES = {
    "slots": ("slots",),
    "lengths": ("slots", "new_tokens"),
    "memory": ("slots", "memory_len"),
    "capacity": ("slots", "capacity"),
    "prompts": ("cells",),
    "admission": ("slots", "cells"),
    "encoding": ("cells", "memory_len"),
    "reading": ("cells",),
    "cells": ("slots", "cells"),
}
COLUMNS = (
    "engine", "precision", "what", "sizes", "median", "quartiles", "rate", "p50 / p90 / p99 a cell",
    "GB/s", "GFLOP/s", "roofline", "memory",
)  # fmt: skip
CACHE_MARK, OVER_MARK, OVER_PERCENT = "†", "‡", 105
OVER_NOTE = (
    f"{OVER_MARK} more than the roofline: its ceiling was measured while the machine was slower, or the shape of this "
    "work suits the machine better than that of the product behind the ceiling"
)
MANY_SAMPLES = 100  # with fewer, the highest percentile is hardly more than the largest sample
CACHE_NOTE = f"{CACHE_MARK} the weights fit into the processor's last cache, so that memory bandwidth is no ceiling"


def cells_of(row: Row) -> tuple[str, ...]:
    """Return what a row says under each of the columns."""
    spread = row.spread
    return (
        row.who,
        row.precision,
        row.what,
        sizes(row),
        duration(row.median),
        f"{duration(spread.lower)} to {duration(spread.upper)}",
        f"{figure(row.units_per_s)} {row.unit}/s",
        latencies(row),
        figure(row.gigabytes_per_s),
        figure(row.gigaflops_per_s),
        percent(row),
        f"{figure(row.peak_memory_bytes / 1e9)} GB" if row.peak_memory_bytes else "",
    )


def sizes(row: Row) -> str:
    """Name the sizes that matter for the row's question; all of them for a question that is not known."""
    wanted = _SIZES.get(row.question, tuple(row.sizes))
    return ", ".join(_size(name, row.sizes[name]) for name in wanted if name in row.sizes)


_UNITS = {"slots": "slot", "cells": "cell", "new_tokens": "token", "memory_len": "gene", "prompt_len": "prompt token"}


def _size(name: str, size: int) -> str:
    return count(size, _UNITS[name]) if name in _UNITS else f"{name.replace('_', ' ')} {size:,}"


def latencies(row: Row) -> str:
    """Say the percentiles of the time per cell, and of how many where they are few."""
    found = [row.latency(one) for one in (50, 90, 99)]
    if not row.latency_ms:
        return ""
    samples = len(row.latency_ms)
    few = f" of {count(samples, 'sample')}" if samples < MANY_SAMPLES else ""
    return " / ".join(figure(one) for one in found) + f" ms{few}"


def is_over(row: Row) -> bool:
    """Whether a row is faster than the roofline allows."""
    return (row.percent_of_roofline or 0.0) > OVER_PERCENT


def percent(row: Row) -> str:
    """Say the share of the roofline, marked where memory bandwidth is no ceiling and where it is passed."""
    if row.percent_of_roofline is None:
        return ""
    return (
        f"{row.percent_of_roofline:.0f} %{CACHE_MARK if row.fits_in_cache else ''}{OVER_MARK if is_over(row) else ''}"
    )


def duration(seconds: float) -> str:
    """Say a time with three digits."""
    if not seconds < 1:
        return f"{figure(seconds)} s"
    return f"{figure(1e3 * seconds)} ms" if seconds >= 1e-3 else f"{figure(1e6 * seconds)} µs"


def figure(value: float | None) -> str:
    """Say a number with three digits; nothing for none."""
    if value is None or value != value:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 0.01 else f"{value:.2g}"


def used_columns(rows: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
    """Return the columns in which any row says anything."""
    return tuple(i for i in range(len(COLUMNS)) if any(row[i] for row in rows))


def by_question(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each question, in the order of their first rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.question, []).append(row)
    return found
