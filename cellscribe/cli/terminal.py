"""Descriptions as they look in a terminal: the text with its genes marked, and bars of attention."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cellscribe.engine.output.run import count
from cellscribe.engine.output.text import gene_spans, printable, without_label
from cellscribe.engine.types import Description, TopGenes

WIDE = 100  # columns from which text and bars stand side by side
GENE, NAMED_BAR, OTHER_BAR, QUIET = "bold green", "green", "dim green", "dim"


class Bar:
    """A horizontal bar filling a share of its column."""

    def __init__(self, share: float, style: str) -> None:
        self.share, self.style = min(max(share, 0.0), 1.0), style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        halves = max(1, round(2 * self.share * options.max_width))
        full, half = ("-", "") if options.ascii_only else ("━", "╸")
        text = full * (halves // 2) + (half if halves % 2 else "")
        yield Segment(text.ljust(options.max_width), Style.parse(self.style))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(6, options.max_width)


def facts_table(facts: Iterable[tuple[str, str]]) -> RenderableType:
    """Lay out labelled facts in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=QUIET, no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in facts:
        table.add_row(label, Text(printable(without_label(label, text))))
    return table


def heading(text: str) -> RenderableType:
    """Return a headline with the program's name."""
    return Text.assemble(("cellscribe", GENE), "  ", printable(text))


def cell_panel(one: Description, width: int) -> RenderableType:
    """Return the panel of one description for a console `width` columns wide."""
    title = Text(printable(one.cell_id), style="bold default")
    if not one.is_ok:
        why = Text(f"not described: {printable(one.status.removeprefix('failed: '))}", style="red")
        return Panel(why, title=title, title_align="left", border_style="red", padding=(0, 2))
    body = _side_by_side(one) if width >= WIDE else _stacked(one)
    return Panel(
        body,
        title=title,
        title_align="left",
        subtitle=Text(_figures(one), style=QUIET),
        subtitle_align="right",
        border_style="bright_black",
        padding=(1, 2),
    )


def marked_text(one: Description) -> Text:
    """Return the text with the genes it names marked."""
    spans = gene_spans(one.text, one.named_genes)
    return Text.assemble(*((printable(part), GENE if is_gene else "") for part, is_gene in spans))


def gene_bars(top: TopGenes, named: Iterable[str]) -> RenderableType:
    """Return one bar per gene, as long as its weight beside the largest; named genes are marked."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, max_width=20, overflow="ellipsis")
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, width=1)
    most, in_text = max(top.weights, default=0.0) or 1.0, set(named)
    for gene, weight in zip(top.symbols, top.weights, strict=True):
        is_named = gene in in_text
        table.add_row(
            Text(printable(gene), style=GENE if is_named else ""),
            Bar(weight / most, NAMED_BAR if is_named else OTHER_BAR),
            Text(f"{100 * weight:.1f} %", style=QUIET),
            Text("✓" if is_named else "", style=GENE),
        )
    return table


def _stacked(one: Description) -> RenderableType:
    if not one.top_genes.symbols:
        return marked_text(one)
    return Group(marked_text(one), Text(), gene_bars(one.top_genes, one.named_genes))


def _side_by_side(one: Description) -> RenderableType:
    if not one.top_genes.symbols:
        return marked_text(one)
    table = Table.grid(padding=(0, 4, 0, 0), expand=True)
    table.add_column(ratio=11)
    table.add_column(ratio=9)
    table.add_row(marked_text(one), gene_bars(one.top_genes, one.named_genes))
    return table


def _figures(one: Description) -> str:
    parts = [
        count(one.num_tokens, "token"),
        f"log-probability {_signed(one.mean_logprob)}",
        f"{one.latency_ms:,.0f} ms",
    ]
    if one.top_genes.symbols:
        parts.append(f"{len(one.named_genes)} of {len(one.top_genes.symbols)} top genes named ✓")
    return " · ".join(parts)


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
