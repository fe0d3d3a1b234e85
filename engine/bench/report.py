"""Results as a page that a person reads, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from cellscribe.engine.bench.questions import QUESTIONS
from cellscribe.engine.bench.results import MARKDOWN_NAME, Results
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.table import (
    CACHE_NOTE,
    COLUMNS,
    OVER_NOTE,
    by_question,
    cells_of,
    figure,
    is_over,
    used_columns,
)
from cellscribe.engine.output.atomic import replacing

_RATES = {"read": ("reading", 1e9, "GB/s"), "copy": ("copying", 1e9, "GB/s")}
SHARED_NOTE = "other work ran meanwhile; these times and ceilings cannot be trusted, measure again on a quiet machine"
_PRODUCT = ("product", 1e9, "GFLOP/s")


def write_markdown(results: Results) -> None:
    """Write the page beside the JSON file."""
    with replacing(results.folder / MARKDOWN_NAME) as path:
        path.write_text(markdown(results), encoding="utf-8")


def markdown(results: Results) -> str:
    """Return the page: what was measured on what, the ceilings, and a table a question."""
    head, rows = results.head, results.judged()
    lines = [f"# Benchmark of {head['bundle']['name']}", ""]
    lines += [f"- machine: {head['machine']}", f"- command: `{head['command']}`", f"- date: {results.date}"]
    lines += [f"- versions: {', '.join(f'{name} {version}' for name, version in head['versions'].items())}"]
    lines += [f"- ceilings: {roofline_line(results.roofline)}"]
    lines += [f"- **{SHARED_NOTE}**", ""] if results.roofline.was_shared else [""]
    for question, found in by_question(rows).items():
        title = QUESTIONS[question].title if question in QUESTIONS else question
        lines += [f"## {title}", "", *table(found), "", *notes(found)]
    lines += [f"- left out, {key}: {why}" for key, why in results.skipped.items()]
    return "\n".join(lines).rstrip() + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """Return rows as an aligned Markdown table without empty columns."""
    told = [cells_of(row) for row in rows]
    used = used_columns(told)
    lines = [[COLUMNS[i] for i in used], *([one[i].replace("|", "/") for i in used] for one in told)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(used))]
    padded = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
              for line in lines]  # fmt: skip
    return [padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]]


def notes(rows: Sequence[Row]) -> list[str]:
    """Return what must be known of rows, once each, and an empty line."""
    found = dict.fromkeys(f"{row.what}: {note}" for row in rows for note in row.notes)
    if any(row.fits_in_cache and row.percent_of_roofline is not None for row in rows):
        found[CACHE_NOTE] = None
    if any(map(is_over, rows)):
        found[OVER_NOTE] = None
    return [*(f"- {note}" for note in found), ""] if found else []


def roofline_line(roofline: Roofline) -> str:
    """Say the ceilings: least, median and most of all measurements."""
    threads = "1 thread" if roofline.threads == 1 else f"{roofline.threads} threads"
    parts = []
    for name in roofline.rates:
        what, scale, unit = _RATES.get(name, (f"{name} {_PRODUCT[0]}", *_PRODUCT[1:]))
        spread = roofline.spread(name)
        least, median, most = (figure(one / scale) for one in (spread.least, spread.median, spread.most))
        parts.append(f"{what} {least} / {median} / {most} {unit}")
    drift = f"; drifting: {', '.join(roofline.drifting)}" if roofline.drifting else ""
    count = max(map(len, roofline.rates.values()), default=0)
    return f"{', '.join(parts)} (least / median / most of {count}, {threads}){drift}"
