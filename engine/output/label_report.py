"""Labels of cells as one page: how many of each, how sure, against known labels, and the genes behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellscribe.engine.cells import CellSource
from cellscribe.engine.labelling.confusion import Confusion, confusion
from cellscribe.engine.labelling.expression import LabelExpression, expression_by_label
from cellscribe.engine.labelling.majority import names_in
from cellscribe.engine.labelling.markers import markers, places_of
from cellscribe.engine.labels import Labelled
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.dot_plot import dot_plot
from cellscribe.engine.output.page import decimal, facts, page, percent, safe
from cellscribe.engine.output.run import Run, count

MAX_LABELS = 40  # rows and columns of a table
_MAX_DOTS = 20  # labels of the dot plot
_STYLE = Path(__file__).with_name("labels.css")


@dataclass(frozen=True)
class LabelReport:
    """What a report of labels shows beside them.

    Parameters
    ----------
    truth
        A column of obs with known labels, for the confusion table.
    genes
        Marker genes by label, for the dot plot; chosen from the cells without it.
    genes_from
        Where those were given, for messages.
    """

    truth: str | None = None
    genes: Mapping[str, Sequence[str]] | None = None
    genes_from: str = "markers"


def write_label_report(run: Run, source: CellSource, out: Path, wanted: LabelReport | None = None) -> None:
    """Write :func:`label_report_html` to `out`, whole or not at all.

    Raises
    ------
    InputError
        When the cells have no such column, none of the genes, or cannot be read.
    OutputError
        When the file cannot be written.
    """
    html = label_report_html(run, source, wanted or LabelReport())
    with replacing(out) as part:
        part.write_text(html, encoding="utf-8")


def label_report_html(run: Run, source: CellSource, wanted: LabelReport) -> str:
    """Return the page; names and labels are untrusted and escaped.

    Parameters
    ----------
    run
        Annotated cells of `source`, which is read once more for the dot plot.
    """
    assert run.labels is not None
    found = run.labels
    truth = None if wanted.truth is None else names_in(source.obs_column(wanted.truth).iloc[run.rows])
    compared = None if truth is None else confusion(truth, found.chosen)
    expression = expression_by_label(source, run.rows, found.chosen)
    sections = [_labels(found)]
    if compared is not None:
        sections.append(_grid(compared, f"Known labels ({wanted.truth}) and found ones", "known"))
    if found.votes is not None:
        sections.append(_grid(confusion(found.votes.clusters, found.chosen), "Clusters and labels", "cluster"))
    sections += [_dots(expression, wanted), _failures(run)]
    return page(
        title=f"{count(len(run.names) - len(run.failed), run.noun)} labelled",
        summary=_summary(run, found, compared),
        facts=facts(run),
        body="<main>\n" + "\n".join(one for one in sections if one) + "\n</main>",
        settings=run.settings,
        style=_STYLE.read_text(encoding="utf-8"),
    )


def _summary(run: Run, found: Labelled, compared: Confusion | None) -> list[tuple[str, str]]:
    figures = [(f"{len(run.failed):,}", "could not be labelled")] if run.failed else []
    figures.append((f"{len(set(found.chosen) - {''}):,}", "labels found"))
    if np.isfinite(found.score).any():
        figures.append((decimal(float(np.nanmean(found.score))), "mean score"))
    if compared is not None and compared.num_cells:
        figures.append((percent(compared.accuracy, 1), "as known"))
        figures.append((decimal(compared.macro_f1), "macro F1"))
    return figures


def _labels(found: Labelled) -> str:
    """Count cells by label, with how sure they are."""
    chosen = np.array(found.chosen, dtype=object).astype(str)
    names, numbers = np.unique(chosen[chosen != ""], return_counts=True)
    order = np.argsort(-numbers, kind="stable")
    if not len(names):
        return ""
    most, head = numbers.max(), "<th>label</th><th>cells</th><th></th><th>mean score</th>"
    head += "<th>mean margin</th>" if found.margin is not None else ""
    rows = []
    for place in order[:MAX_LABELS]:
        own = chosen == names[place]
        row = (
            f'<th scope="row">{safe(names[place])}</th>'
            f'<td><i style="width:{100 * numbers[place] / most:.1f}%"></i></td>'
            f"<td>{numbers[place]:,}</td><td>{decimal(float(np.mean(found.score[own])))}</td>"
        )
        rows.append(
            row + (f"<td>{decimal(float(np.mean(found.margin[own])))}</td>" if found.margin is not None else "")
        )
    told = f"<p>The {MAX_LABELS} most frequent of {len(names):,} are shown.</p>" if len(names) > MAX_LABELS else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<section><h2>Labels</h2>{told}<table class="labels"><thead><tr>{head}</tr></thead>{body}</table></section>'


def _grid(compared: Confusion, title: str, corner: str) -> str:
    """Show a table of counts, shaded by the share of the row."""
    if not compared.num_cells:
        return f"<section><h2>{safe(title)}</h2><p>No cell has both.</p></section>"
    shown = compared.folded(MAX_LABELS)
    totals = np.maximum(shown.counts.sum(axis=1, keepdims=True), 1)
    shares = shown.counts / totals
    head = "".join(f'<th scope="col">{safe(name)}</th>' for name in shown.found)
    rows = []
    for name, counts, row in zip(shown.known, shown.counts, shares, strict=True):
        cells = "".join(
            f'<td style="--share:{share:.3f}"{" class=most" if share > 0.5 else ""}>{number if number else ""}</td>'
            for number, share in zip(counts.tolist(), row.tolist(), strict=True)
        )
        rows.append(f'<tr><th scope="row">{safe(name)}</th>{cells}</tr>')
    return (
        f"<section><h2>{safe(title)}</h2>"
        f"<p>Cells by {safe(corner)} (rows) and found label (columns), shaded by the share of the row.</p>"
        f'<table class="grid"><thead><tr><th>{safe(corner)}</th>{head}</tr></thead>{"".join(rows)}</table></section>'
    )


def _dots(expression: LabelExpression, wanted: LabelReport) -> str:
    if wanted.genes is None:
        chosen = markers(expression, _MAX_DOTS)
        told = "The genes are those that more cells of a label express, and more strongly, than other cells do."
    else:
        chosen = places_of(wanted.genes, expression.genes, wanted.genes_from)
        told = f"The genes are those of {wanted.genes_from}."
    genes = [gene for places in chosen.values() for gene in places]
    rows = expression.labels[:_MAX_DOTS]
    if not genes or not rows:
        return ""
    drawn = dot_plot(
        rows,
        [expression.genes[gene] for gene in genes],
        expression.share[: len(rows), genes],
        expression.mean[: len(rows), genes],
        [(label, len(places)) for label, places in chosen.items() if places],
    )
    return (
        f"<section><h2>Genes of the labels</h2><p>{safe(told)} Area: share of the label's cells that express the gene; "
        f"colour: mean of log1p of counts per 10,000, full at the gene's largest.</p>{drawn}</section>"
    )


def _failures(run: Run) -> str:
    if not run.failed:
        return ""
    return f"<section><h2>Not labelled</h2><p>{safe(run.failure_sentence())}</p></section>"
