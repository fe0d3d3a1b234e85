"""The frame of all pages: one file that needs nothing else, no script, no request, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from cellscribe.engine.output.run import Run
from cellscribe.engine.output.text import printable, without_label

_TEMPLATE = Path(__file__).with_name("page.html")
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


def page(
    *,
    title: str,
    summary: Sequence[tuple[str, str]],
    facts: Sequence[tuple[str, str]],
    body: str,
    settings: Mapping[str, object],
    notice: str = "",
    legend: str = "",
    style: str = "",
) -> str:
    """Return a page.

    Parameters
    ----------
    title, summary, facts, notice
        Texts, which are escaped: figures with what they count, and what was run, with labels.
    body, legend, style
        HTML and CSS, which are not.
    settings
        Of the run; its versions stand at the foot.
    """
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=safe(title),
        summary="\n".join(f"<li><b>{safe(number)}</b> {safe(what)}</li>" for number, what in summary),
        facts="\n".join(f"<div><dt>{safe(label)}</dt><dd>{safe(text)}</dd></div>" for label, text in facts),
        notice=f'<p class="notice">{safe(notice)}</p>' if notice else "",
        body=body,
        legend=legend,
        style=style,
        version=safe(_version(settings)),
    )


def facts(run: Run) -> list[tuple[str, str]]:
    """Say what a run was made of: input, values, genes, bundle, device."""
    known: dict[str, object] = {**run.settings, "genes": run.gene_report.get("sentence", "")}
    known["bundle_hash"] = str(known.get("bundle_hash", ""))[:_NUM_HASH_DIGITS]
    if run.pooled_by:
        known["input"] = f"{known.get('input', '')}, pooled by {run.pooled_by}".lstrip(", ")
    return [(label, without_label(label, known[name])) for label, name in _FACTS.items() if known.get(name)]


def safe(value: object) -> str:
    """Return an untrusted text for HTML."""
    return escape(printable(value), quote=True)


def percent(share: float, digits: int) -> str:
    """Write a share as percent."""
    return f"{100 * share:.{digits}f}\N{NARROW NO-BREAK SPACE}%"


def decimal(value: float) -> str:
    """Write a number with two digits and a real minus sign."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _version(settings: Mapping[str, object]) -> str:
    versions = settings.get("versions")
    return f"Cellscribe {versions.get('cellscribe', '')}".strip() if isinstance(versions, Mapping) else "Cellscribe"
