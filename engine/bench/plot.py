"""A plot of step time and throughput against slots, with the least time that the machine allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellscribe.engine.bench.row import Row
from cellscribe.engine.errors import BackendError, InputError
from cellscribe.engine.output.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart; markers say the same again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#555555"
_ROOFLINE = "roofline"
_DASHES = ((0, (1, 1)), (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (2, 1)), "solid")


def write_plot(rows: Sequence[Row], path: Path, title: str = "") -> None:
    """Draw the rows of the question ``slots``, a line for each engine and precision, into a PNG.

    Points are medians and bars the middle half of the samples; thin lines are the roofline of each precision.

    Raises
    ------
    BackendError
        When matplotlib is not installed.
    InputError
        When there is no such row.
    """
    found = [row for row in rows if row.question == "slots" and row.samples and "slots" in row.sizes]
    if not found:
        raise InputError("there are no step times to draw; ask the question slots first.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError(
            "the plot needs matplotlib; install it with: pip install 'cellscribe[bench]', or go without the plot."
        ) from error
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    steps, rates = figure.subplots(1, 2)
    _draw(steps, found, is_rate=False)
    _draw(rates, found, is_rate=True)
    steps.set_ylabel("milliseconds a step")
    rates.set_ylabel("tokens a second")
    if title:
        figure.suptitle(title, fontsize=12)
    handles = dict(zip(*reversed(steps.get_legend_handles_labels()), strict=True))
    labels = sorted(handles, key=lambda label: label.startswith(_ROOFLINE))  # engines first
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 3),
        frameon=False,
        fontsize=9.5,
    )
    with replacing(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _draw(axes: Axes, rows: Sequence[Row], *, is_rate: bool) -> None:
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.who, row.precision), []).append(row)
    for at, ((who, precision), line) in enumerate(lines.items()):
        _line(axes, sorted(line, key=_slots), f"{who}, {precision}", at, is_rate)
    _rooflines(axes, rows, is_rate)
    ticks = sorted({_slots(row) for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(_locator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.set_xlabel("slots")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, rows: Sequence[Row], label: str, at: int, is_rate: bool) -> None:
    spreads = [row.spread for row in rows]
    middle = [_value(row, one.median, is_rate) for row, one in zip(rows, spreads, strict=True)]
    first = [_value(row, one.lower, is_rate) for row, one in zip(rows, spreads, strict=True)]
    second = [_value(row, one.upper, is_rate) for row, one in zip(rows, spreads, strict=True)]
    below = [abs(m - min(a, b)) for m, a, b in zip(middle, first, second, strict=True)]
    above = [abs(max(a, b) - m) for m, a, b in zip(middle, first, second, strict=True)]
    axes.errorbar(
        [_slots(row) for row in rows],
        middle,
        yerr=[below, above],
        label=label,
        color=_COLOURS[at % len(_COLOURS)],
        marker=_MARKERS[at % len(_MARKERS)],
        markersize=5.5,
        linewidth=1.8,
        capsize=3,
        elinewidth=1.1,
    )


def _rooflines(axes: Axes, rows: Sequence[Row], is_rate: bool) -> None:
    """One thin line a precision: the least time of a step, or the most tokens a second."""
    bounds: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.bound_seconds is not None:
            bounds.setdefault(row.precision, {})[_slots(row)] = _value(row, row.bound_seconds, is_rate)
    for at, (precision, line) in enumerate(bounds.items()):
        style: Any = _DASHES[at % len(_DASHES)]
        axes.plot(
            sorted(line), [line[x] for x in sorted(line)],
            label=f"{_ROOFLINE}, {precision}", color=_GREY, linewidth=1.0, linestyle=style,
        )  # fmt: skip


def _value(row: Row, seconds: float, is_rate: bool) -> float:
    return row.units / seconds if is_rate else 1e3 * seconds


def _slots(row: Row) -> int:
    return row.sizes["slots"]


def _locator() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(base=10, subs=(1, 2, 5), numticks=12)
