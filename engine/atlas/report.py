"""The page about a run: throughput over time, lengths, grounding, genes, failures; one file that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellscribe.engine.atlas.failures import Failures
from cellscribe.engine.atlas.folder import REPORT, AtlasFolder
from cellscribe.engine.atlas.manifest import Manifest, ShardRecord
from cellscribe.engine.atlas.progress import Progress
from cellscribe.engine.atlas.tables import OK
from cellscribe.engine.output.page import page, percent, safe
from cellscribe.engine.output.run import count

_NUM_GENES, _NUM_LABELS = 12, 24
_WIDTH, _HEIGHT = 720, 160
_FAILED = ("cell_id", "status")
_STYLE = """
main section { margin: 0 0 2rem; }
main { grid-template-columns: 1fr; }
svg { width: 100%; height: auto; max-width: 48rem; color: var(--accent, currentColor); }
svg text { fill: currentColor; font: 11px system-ui, sans-serif; opacity: .75; }
svg .axis { stroke: currentColor; opacity: .25; }
svg .line { fill: none; stroke: currentColor; stroke-width: 2; }
svg .bar { fill: currentColor; opacity: .65; }
table.wide { width: 100%; border-collapse: collapse; }
table.wide th, table.wide td { text-align: left; padding: .3rem .6rem .3rem 0; vertical-align: top; }
table.wide td { background: none; border-radius: 0; }
table.wide td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


class _Seen:
    """What the shards say, added up."""

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.grounding = np.zeros(2)  # sum, and of how many
        self.labels: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self.genes: dict[str, Counter[str]] = {}
        self.failures = Failures()
        self.n_missing = 0  # shards

    def add(self, table: pa.Table) -> None:
        """Look at a shard."""
        names = set(table.column_names)
        is_ok = pc.equal(table["status"], OK)
        for name, status in zip(*(table[one].filter(pc.invert(is_ok)).to_pylist() for one in _FAILED), strict=True):
            self.failures.add(name, status)
        if "num_tokens" in names:
            self.lengths.update(_counts(table["num_tokens"].filter(is_ok)))
        if "grounding" in names:
            values = table["grounding"].drop_null().to_numpy()
            self.grounding += values.sum(), len(values)
        if "label" in names:
            self.labels.update(_counts(table["label"].drop_null()))
        if "group" in names:
            self.groups.update(_counts(table["group"].drop_null()))
        if "top_genes" in names:
            self._add_genes(table)

    def _add_genes(self, table: pa.Table) -> None:
        """Add up attention by group and gene."""
        lists = table["top_genes"].combine_chunks()
        told = pa.table({"gene": lists.flatten(), "weight": table["top_gene_weights"].combine_chunks().flatten()})
        whose = table["group"].combine_chunks() if "group" in table.column_names else pa.nulls(len(table), pa.string())
        told = told.append_column("group", whose.take(pc.list_parent_indices(lists)))
        for row in told.group_by(["group", "gene"]).aggregate([("weight", "sum")]).to_pylist():
            self.genes.setdefault(row["group"] or "", Counter())[row["gene"]] += row["weight_sum"]


def _counts(column: pa.ChunkedArray) -> dict[Any, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()}


def write_atlas_report(
    folder: AtlasFolder, manifest: Manifest, records: Sequence[ShardRecord], progress: Progress
) -> None:
    """Write the page, whole or not at all.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    seen = _seen(folder, manifest)
    folder.put(REPORT, _html(manifest, records, progress, seen))


def _seen(folder: AtlasFolder, manifest: Manifest) -> _Seen:
    seen = _Seen()
    wanted = (*_FAILED, "group", "num_tokens", "grounding", "label", "top_genes", "top_gene_weights")
    for shard in manifest.plan.shards:
        try:
            table = folder.read_shard(shard, wanted)
        except FileNotFoundError:
            seen.n_missing += 1
        else:
            seen.add(table)
    return seen


def _html(manifest: Manifest, records: Sequence[ShardRecord], progress: Progress, seen: _Seen) -> str:
    now, plan = progress.now(), manifest.plan
    failed = sum(one.n_failed for one in records)
    summary = [(f"{failed:,}", "cells failed")] if failed else []
    summary += [(f"{len(plan.skipped):,}", "inputs skipped")] if plan.skipped else []
    summary += [(f"{now.cells_per_second:,.0f}", "cells a second")] if now.cells_per_second else []
    texts = sum(seen.lengths.values())
    if texts:
        summary.append((f"{sum(k * v for k, v in seen.lengths.items()) / texts:.0f}", "tokens per text"))
    if seen.grounding[1]:
        summary.append((percent(seen.grounding[0] / seen.grounding[1], 0), "of top genes named in the text"))
    settings = manifest.settings
    verb = {"describe": "described", "embed": "embedded", "annotate": "annotated"}[str(settings["task"])]
    chosen = [str(settings[name]) for name in ("where", "cells_where") if settings.get(name)]
    facts = [
        ("Inputs", count(len(plan.files) - len(plan.skipped), "file")),
        ("Cells", f"{plan.n_cells:,}" + (f" where {' and '.join(chosen)}" if chosen else "")),
        ("Shards", f"{len(records):,} of {len(plan.shards):,}"),
        ("Bundle", str(manifest.bundle["name"])),
        ("Hash", str(manifest.bundle["hash"])[:12]),
        ("Run", manifest.run),
    ]
    done = sum(one.n_cells for one in records)
    return page(
        title=f"{count(done - failed, 'cell')} {verb}",
        summary=summary,
        facts=facts,
        body=f"<main>{''.join(_sections(manifest, progress, seen))}</main>",
        settings={"versions": dict(manifest.versions)},
        style=_STYLE,
    )


def _sections(manifest: Manifest, progress: Progress, seen: _Seen) -> Iterator[str]:
    rows: Sequence[tuple[str, ...]]
    if seen.n_missing:
        yield f"<section><p>{_missing(seen.n_missing, len(manifest.plan.shards))}</p></section>"
    if len(progress.points) > 1:
        yield f"<section><h2>Throughput</h2>{_throughput(progress)}{_stages(progress)}</section>"
    if seen.lengths:
        yield f"<section><h2>Lengths of texts, in tokens</h2>{_histogram(seen.lengths)}</section>"
    if seen.labels:
        rows = [(name, f"{number:,}") for name, number in seen.labels.most_common(_NUM_LABELS)]
        yield f"<section><h2>Labels</h2>{_table(('label', 'cells'), rows)}</section>"
    genes = {label: found for label, found in seen.genes.items() if found}
    if genes:
        whose = sorted(genes, key=lambda one: -seen.groups[one])[:_NUM_LABELS]
        rows = [
            (
                one or ("other cells" if seen.groups else "all cells"),
                ", ".join(g for g, _ in genes[one].most_common(_NUM_GENES)),
            )
            for one in whose
        ]
        yield f"<section><h2>Most attended genes</h2>{_table(('of', 'genes'), rows)}</section>"
    if rows := [*seen.failures.rows()]:
        yield f"<section><h2>Failures</h2>{_table(('why', 'cells', 'such as'), rows)}</section>"
    if manifest.plan.skipped:
        rows = [(one.name, one.why) for one in manifest.plan.skipped]
        yield f"<section><h2>Inputs that were skipped</h2>{_table(('input', 'why'), rows)}</section>"


def _missing(number: int, shards: int) -> str:
    verb = "is" if number == 1 else "are"
    return (
        f"{number:,} of {count(shards, 'shard')} {verb} missing, and not counted here; --resume makes what is missing."
    )


def _throughput(progress: Progress) -> str:
    """Draw cells a second over the time of this call."""
    points = np.array([(seconds, cells) for seconds, cells, _ in progress.points], np.float64)
    times = np.linspace(0.0, points[-1, 0], min(120, len(points)) + 1)
    cells = np.interp(times, points[:, 0], points[:, 1])
    rates = np.diff(cells) / np.maximum(np.diff(times), 1e-9)
    most = max(float(rates.max()), 1e-9)
    xs = (times[1:] / times[-1]) * _WIDTH
    ys = _HEIGHT - rates / most * (_HEIGHT - 16)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    label = f"Cells a second over {_duration(float(times[-1]))}, at most {most:,.0f}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18}" role="img" aria-label="{safe(label)}">'
        f'<line class="axis" x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
        f'<polyline class="line" points="{line}"/><text x="0" y="12">{most:,.0f} cells/s</text>'
        f'<text x="0" y="{_HEIGHT + 14}">0</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{safe(_duration(float(times[-1])))}</text></svg>'
    )


def _stages(progress: Progress) -> str:
    now = progress.now()
    shares = {**now.utilisation, "padding": now.padding, "idle slots": now.idle_slots}
    said = [f"{name} {percent(one, 1)}" for name, one in shares.items() if one is not None and one >= 0.0005]
    text = f"Share of the workers' time: {', '.join(said)}." if said else ""
    if now.utilisation["model"] is not None:
        text += " Not measured: " + ", ".join(name for name, one in shares.items() if one is None) + "."
    return f"<p>{safe(text.strip())}</p>" if text else ""


def _histogram(lengths: Counter[int]) -> str:
    most, widest = max(lengths.values()), max(lengths) + 1
    width = _WIDTH / widest
    bars = "".join(
        f'<rect class="bar" x="{length * width:.1f}" y="{_HEIGHT - number / most * (_HEIGHT - 16):.1f}" '
        f'width="{max(width - 0.5, 0.5):.1f}" height="{number / most * (_HEIGHT - 16):.1f}"/>'
        for length, number in sorted(lengths.items())
    )
    label = f"Texts by length, up to {widest - 1} tokens"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18}" role="img" aria-label="{safe(label)}">{bars}'
        f'<line class="axis" x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
        f'<text x="0" y="{_HEIGHT + 14}">0</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{widest - 1}</text></svg>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{safe(one)}</th>' for one in head)
    body = "".join("<tr>" + "".join(f"<td>{safe(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f'<table class="wide"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"
