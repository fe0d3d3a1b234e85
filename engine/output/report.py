"""A run as one HTML page that needs nothing else: no script, no request, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template

from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.run import Run, count
from cellscribe.engine.output.text import gene_spans, printable, without_label
from cellscribe.engine.types import Description

MAX_CELLS = 500
_TEMPLATE = Path(__file__).with_name("report.html")
_FACTS = {
    "Input": "input",
    "Values": "values",
    "Genes": "genes",
    "Bundle": "bundle",
    "Hash": "bundle_hash",
    "Precision": "precision",
    "Device": "backend",
    "Sampling": "sampling",
}
_NUM_HASH_DIGITS = 12


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
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_safe(f"{count(len(run.descriptions) - len(run.failed), run.noun)} described"),
        summary=_summary(run),
        facts="\n".join(_facts(run)),
        notice=_notice(run, len(shown)),
        cards="\n".join(_card(one) for one in shown),
        version=_safe(_version(run.settings)),
    )


def _safe(value: object) -> str:
    return escape(printable(value), quote=True)


def _version(settings: Mapping[str, object]) -> str:
    versions = settings.get("versions")
    return f"Cellscribe {versions.get('cellscribe', '')}".strip() if isinstance(versions, Mapping) else "Cellscribe"


def _summary(run: Run) -> str:
    done = [one for one in run.descriptions if one.is_ok]
    figures = [(f"{len(run.failed):,}", "could not be described")] if run.failed else []
    grounded = [one.grounding for one in done if one.top_genes.symbols]
    if grounded:
        figures.append((_percent(sum(grounded) / len(grounded), 0), "of top genes named in the text"))
    if done:
        figures.append((f"{run.num_tokens / len(done):.0f}", "tokens per text"))
        figures.append((_decimal(sum(one.mean_logprob for one in done) / len(done)), "mean log-probability"))
    return "\n".join(f"<li><b>{_safe(number)}</b> {_safe(what)}</li>" for number, what in figures)


def _facts(run: Run) -> list[str]:
    known: dict[str, object] = {**run.settings, "genes": run.gene_report.get("sentence", "")}
    known["bundle_hash"] = str(known.get("bundle_hash", ""))[:_NUM_HASH_DIGITS]
    if run.pooled_by:
        known["input"] = f"{known.get('input', '')}, pooled by {run.pooled_by}".lstrip(", ")
    return [
        f"<div><dt>{label}</dt><dd>{_safe(without_label(label, known[name]))}</dd></div>"
        for label, name in _FACTS.items()
        if known.get(name)
    ]


def _notice(run: Run, num_shown: int) -> str:
    total = len(run.descriptions)
    if num_shown == total:
        return ""
    return f'<p class="notice">The first {num_shown:,} of {count(total, run.noun)} are shown.</p>'


def _card(one: Description) -> str:
    if not one.is_ok:
        why = _safe(one.status.removeprefix("failed: "))
        return f'<article class="failed"><h2>{_safe(one.cell_id)}</h2><p>Not described: {why}.</p></article>'
    return (
        f"<article><h2>{_safe(one.cell_id)}</h2>\n"
        f'<p class="text">{_marked(one)}</p>\n{_bars(one)}'
        f'<p class="meta">{_meta(one)}</p></article>'
    )


def _marked(one: Description) -> str:
    spans = gene_spans(one.text, one.named_genes)
    return "".join(f"<mark>{_safe(text)}</mark>" if is_gene else _safe(text) for text, is_gene in spans)


def _bars(one: Description) -> str:
    top = one.top_genes
    if not top.symbols:
        return ""
    most = max(top.weights) or 1.0
    named = set(one.named_genes)
    rows = "".join(
        f'<tr{" class=named" if gene in named else ""}><th scope="row">{_safe(gene)}</th>'
        f'<td><i style="width:{100 * weight / most:.1f}%"></i></td><td class="share">{_percent(weight, 1)}</td></tr>'
        for gene, weight in zip(top.symbols, top.weights, strict=True)
    )
    return f"<table><caption>Share of attention</caption>{rows}</table>\n"


def _meta(one: Description) -> str:
    parts = [
        count(one.num_tokens, "token"),
        f"log-probability {_decimal(one.mean_logprob)}",
        f"{one.latency_ms:,.0f} ms",
    ]
    if one.top_genes.symbols:
        parts.append(f"{len(one.named_genes)} of {len(one.top_genes.symbols)} top genes named")
    if one.finish_reason == "length":
        parts.append("cut at the token limit")
    return "".join(f"<span>{_safe(part)}</span>" for part in parts)


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f}\N{NARROW NO-BREAK SPACE}%"


def _decimal(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
