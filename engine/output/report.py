"""A run as one HTML page that needs nothing else: no script, no request, light and dark."""

from __future__ import annotations

from pathlib import Path

from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.page import decimal, facts, page, percent, safe
from cellscribe.engine.output.run import Run, count
from cellscribe.engine.output.text import gene_spans
from cellscribe.engine.types import Description

MAX_CELLS = 500
_LEGEND = (
    '<span><i class="key"></i>top gene that the text names</span>\n<span><i></i>top gene that it does not name</span>'
)


def write_report(run: Run, out: Path, max_cells: int = MAX_CELLS) -> None:
    """Write :func:`report_html` to `out`, whole or not at all.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    with replacing(out) as part:
        part.write_text(report_html(run, max_cells), encoding="utf-8")


def report_html(run: Run, max_cells: int = MAX_CELLS) -> str:
    """Return the page: what was run, then each text with its genes marked and its top genes as bars.

    Parameters
    ----------
    run
        The descriptions to show. Names and texts are untrusted and escaped.
    max_cells
        Only the first ones are shown beyond this, and the page says so.
    """
    shown = run.descriptions[:max_cells]
    cards = "\n".join(_card(one) for one in shown)
    return page(
        title=f"{count(len(run.descriptions) - len(run.failed), run.noun)} described",
        summary=_summary(run),
        facts=facts(run),
        notice=_notice(run, len(shown)),
        body=f"<main>\n{cards}\n</main>",
        legend=_LEGEND,
        settings=run.settings,
    )


def _summary(run: Run) -> list[tuple[str, str]]:
    done = [one for one in run.descriptions if one.is_ok]
    figures = [(f"{len(run.failed):,}", "could not be described")] if run.failed else []
    grounded = [one.grounding for one in done if one.top_genes.symbols]
    if grounded:
        figures.append((percent(sum(grounded) / len(grounded), 0), "of top genes named in the text"))
    if done:
        figures.append((f"{run.num_tokens / len(done):.0f}", "tokens per text"))
        figures.append((decimal(sum(one.mean_logprob for one in done) / len(done)), "mean log-probability"))
    return figures


def _notice(run: Run, num_shown: int) -> str:
    total = len(run.descriptions)
    if num_shown == total:
        return ""
    return f"The first {num_shown:,} of {count(total, run.noun)} are shown."


def _card(one: Description) -> str:
    if not one.is_ok:
        why = safe(one.status.removeprefix("failed: "))
        return f'<article class="failed"><h2>{safe(one.cell_id)}</h2><p>Not described: {why}.</p></article>'
    return (
        f"<article><h2>{safe(one.cell_id)}</h2>\n"
        f'<p class="text">{_marked(one)}</p>\n{_bars(one)}'
        f'<p class="meta">{_meta(one)}</p></article>'
    )


def _marked(one: Description) -> str:
    spans = gene_spans(one.text, one.named_genes)
    return "".join(f"<mark>{safe(text)}</mark>" if is_gene else safe(text) for text, is_gene in spans)


def _bars(one: Description) -> str:
    top = one.top_genes
    if not top.symbols:
        return ""
    most = max(top.weights) or 1.0
    named = set(one.named_genes)
    rows = "".join(
        f'<tr{" class=named" if gene in named else ""}><th scope="row">{safe(gene)}</th>'
        f'<td><i style="width:{100 * weight / most:.1f}%"></i></td><td class="share">{percent(weight, 1)}</td></tr>'
        for gene, weight in zip(top.symbols, top.weights, strict=True)
    )
    return f"<table><caption>Share of attention</caption>{rows}</table>\n"


def _meta(one: Description) -> str:
    parts = [
        count(one.num_tokens, "token"),
        f"log-probability {decimal(one.mean_logprob)}",
        f"{one.latency_ms:,.0f} ms",
    ]
    if one.top_genes.symbols:
        parts.append(f"{len(one.named_genes)} of {len(one.top_genes.symbols)} top genes named")
    if one.finish_reason == "length":
        parts.append("cut at the token limit")
    return "".join(f"<span>{safe(part)}</span>" for part in parts)
