"""Generated cells against real ones as one page: figures, marker genes, a map, and the types."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellscribe.engine.instruct.compared_cells import ComparedCells, drawn
from cellscribe.engine.instruct.comparison import Comparison
from cellscribe.engine.instruct.likeness import Likeness, Shares
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.cell_map import COLOURS, OTHERS, Doubles, MapPoints, cell_map, colours
from cellscribe.engine.output.dot_plot import dot_plot
from cellscribe.engine.output.page import decimal, page, percent, safe
from cellscribe.engine.output.run import count
from cellscribe.engine.versions import versions

MAX_POINTS = 2_500  # of each set in the map
MAX_TYPES = 60  # rows of the table
_NONE = "\N{EN DASH}"
_STYLES = ("labels.css", "comparison.css")
_MEANINGS = {
    "sKNN": "share of a generated cell's nearest generated cells that are of its type. Expected: that of real cells.",
    "pKNN": "share of generated cells whose nearest real cells elect the type that was asked for. Expected: that of "
    "real cells, each without itself.",
    "Mixing": "share of real cells among a generated cell's nearest of both sets, over that of sets which lie alike; "
    "below 1 generated cells lie apart, or crowd together; above 1 they lie more thinly than the real cells around "
    "them.",
    "Reach": "the same of generated cells around real ones; below 1 parts of the real cells are not reached; above 1 "
    "generated cells crowd where real ones lie more thinly. Unequal shares of types move both, too.",
    "MMD": "maximum mean discrepancy, biased, summed over three Gaussian kernels. Expected: its mean over random "
    "splits of the same cells.",
    "Components and map": "of both sets together, so that equal sets give what is expected.",
    "Published": "by InstructCell's authors: components and map are fitted to the real cells, and the generated "
    "ones placed in it. Even other real cells lie apart there, the more so the fewer there are: compare such figures "
    "between models on the same real cells.",
}


def write_comparison_report(found: Comparison, out: Path) -> None:
    """Write :func:`comparison_report_html` to `out`, whole or not at all.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    html = comparison_report_html(found)
    with replacing(out) as part:
        part.write_text(html, encoding="utf-8")


def comparison_report_html(found: Comparison) -> str:
    """Return the page; names and types are untrusted and escaped."""
    sections = (_figures(found), _map(found), _dots(found), _types(found))
    return page(
        title=f"{count(found.generated.num_cells, 'generated cell')} against {found.real.num_cells:,} real ones",
        summary=_summary(found),
        facts=_facts(found),
        notice=" ".join(found.notes),
        body="<main>\n" + "\n".join(one for one in sections if one) + "\n</main>",
        settings={"versions": versions()},
        style="".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _STYLES),
    )


def spaces(found: Comparison) -> list[tuple[str, list[tuple[str, str, str, str]]]]:
    """Return the name of every space with its figures in words: name, number of neighbours, found, expected."""
    shown = [("components", figures(found.components))]
    if found.map is not None:
        shown.append(("map", figures(found.map)))
    if found.published is not None:
        shown.append(("published", [_as_published(line) for line in figures(found.published)]))
    return shown


def figures(one: Likeness) -> list[tuple[str, str, str, str]]:
    """Return the figures of one space in words: name, number of neighbours, what was found, what is expected."""
    shares = (("sKNN", one.sknn, one.sknn_real), ("pKNN", one.pknn, one.pknn_real))
    ratios = (("Mixing", one.mixing), ("Reach", one.mixing_real))
    lines = [
        *(
            (name, str(k), _percent(share), _percent(other))
            for name, own, real in shares
            for k, share, other in zip(one.neighbours, own.whole, real.whole, strict=True)
        ),
        *(
            (name, str(k), decimal(float(ratio)), "1")
            for name, mixed in ratios
            for k, ratio in zip(one.neighbours, mixed.whole, strict=True)
        ),
    ]
    return [*lines, ("MMD", "", f"{one.mmd.mmd:.4f}", f"{one.mmd.chance:.4f}")]


def _as_published(line: tuple[str, str, str, str]) -> tuple[str, str, str, str]:
    """Leave out what is not published, and what cannot be expected where real cells are fitted more closely."""
    name, k, found, expected = line
    return name, k, _NONE if name in ("Mixing", "Reach") else found, expected if name == "sKNN" else _NONE


def _summary(found: Comparison) -> list[tuple[str, str]]:
    """Return the figures that stand first, without those that one type alone makes 1."""
    one = found.components
    k = one.neighbours[0]
    pknn = (_percent(one.pknn.whole[0]), f"pKNN of {k} neighbours, of real cells {_percent(one.pknn_real.whole[0])}")
    sknn = (_percent(one.sknn.whole[0]), f"sKNN, of real cells {_percent(one.sknn_real.whole[0])}")
    return [
        *([pknn] if (found.num_real > 0).sum() > 1 else []),
        *([sknn] if (found.num_generated > 0).sum() > 1 else []),
        (decimal(float(one.mixing.whole[0])), "mixing, 1 if alike"),
        (decimal(float(one.mixing_real.whole[0])), "reach, 1 if alike"),
        (f"{one.mmd.mmd:.3f}", f"MMD, {one.mmd.chance:.3f} if alike"),
    ]


def _facts(found: Comparison) -> list[tuple[str, str]]:
    sides = (("Generated", found.generated), ("Real", found.real))
    return [
        *((name, _cells(side)) for name, side in sides),
        ("Genes", f"{len(found.genes):,} names that both have"),
        *((f"{name}: values", " ".join(side.notes).removeprefix("Values: ")) for name, side in sides),
        ("Neighbours", ", ".join(map(str, found.components.neighbours))),
    ]


def _cells(side: ComparedCells) -> str:
    told = "" if side.num_cells == side.num_all - side.num_untyped else f", {side.num_cells:,} of them drawn"
    return f"{Path(side.source).name}, {count(side.num_all, 'cell')}{told}"


def _figures(found: Comparison) -> str:
    shown = spaces(found)
    head = "<th></th><th></th>" + "".join(f'<th colspan="2">{safe(name)}</th>' for name, _ in shown)
    second = "<th></th><th>neighbours</th>" + "<th>found</th><th>expected</th>" * len(shown)
    rows: list[str] = []
    before = ""
    for lines in zip(*(lines for _, lines in shown), strict=True):
        name, k = lines[0][:2]
        cells = "".join(f'<td>{safe(value)}</td><td class="expected">{safe(other)}</td>' for *_, value, other in lines)
        rows.append("" if name == before else "</tbody><tbody>" if rows else "<tbody>")
        rows.append(f'<tr><th scope="row">{safe(name if name != before else "")}</th><td>{k}</td>{cells}</tr>')
        before = name
    meanings = "".join(f"<p><b>{name}</b>: {safe(text)}</p>" for name, text in _MEANINGS.items())
    return (
        f'<section><h2>Figures</h2>{meanings}<table class="figures"><thead><tr>{head}</tr><tr>{second}</tr></thead>'
        f"{''.join(rows)}</tbody></table></section>"
    )


def _map(found: Comparison) -> str:
    if found.places is None:
        return ""
    order = np.argsort(-(found.num_real + found.num_generated), kind="stable")
    shown = [found.types[place] for place in order[: len(COLOURS)]]
    sets = zip((found.generated, found.real), found.places, strict=True)
    generated, real = (_points(cells, places, found.settings.seed) for cells, places in sets)
    keys = ['<span><i class="faint"></i>real</span>', '<span><i class="marked"></i>generated</span>']
    keys += [_key(name, colour) for name, colour in colours(shown).items()]
    keys += [_key(f"{len(found.types) - len(shown)} others", OTHERS)] if len(found.types) > len(shown) else []
    told = "UMAP of both sets together."
    for what, cells, points in (("real", found.real, real), ("generated", found.generated, generated)):
        if len(points.types) < cells.num_cells:
            told += f" {len(points.types):,} of {cells.num_cells:,} {what} cells are drawn."
    return (
        f'<section><h2>Map</h2><p>{safe(told)}</p><div class="keys">{"".join(keys)}</div>'
        f"{cell_map(real, generated, shown)}</section>"
    )


def _points(cells: ComparedCells, places: Doubles, seed: int) -> MapPoints:
    some = drawn(cells.cell_ids, MAX_POINTS, seed)
    return MapPoints(places[some], [cells.types[place] for place in some])


def _key(name: str, colour: str) -> str:
    return f'<span><i style="background:{colour}"></i>{safe(name)}</span>'


def _dots(found: Comparison) -> str:
    dots = found.dots
    if not dots.genes:
        return ""
    rows = [f"{name}, {kind}" for name in dots.types for kind in ("real", "generated")]
    share, mean = (
        np.stack(pair, axis=1).reshape(len(rows), len(dots.genes))
        for pair in ((dots.share, dots.share_generated), (dots.mean, dots.mean_generated))
    )
    return (
        "<section><h2>Marker genes</h2><p>Two rows a type: real cells, and generated ones below them. Area: share of "
        "the cells that express the gene; colour: mean of log1p of values per 10,000, full at the gene's largest.</p>"
        f"{dot_plot(rows, dots.genes, share, mean, dots.groups, together=2)}</section>"
    )


def _types(found: Comparison) -> str:
    one = found.components
    heads = ("real cells", "generated cells", "sKNN", "expected", "pKNN", "expected", "mixing", "MMD", "by chance")
    rows = []
    for place in np.lexsort((-found.num_generated, -found.num_real))[:MAX_TYPES]:
        mmd = one.mmd_by_type[place]
        mixed = one.mixing.by_type[0, place]
        cells = (
            f"{found.num_real[place]:,}",
            f"{found.num_generated[place]:,}",
            *(_percent(_of(shares, place)) for shares in (one.sknn, one.sknn_real, one.pknn, one.pknn_real)),
            decimal(float(mixed)) if np.isfinite(mixed) else _NONE,
            *((f"{mmd.mmd:.4f}", f"{mmd.chance:.4f}") if mmd is not None else (_NONE, _NONE)),
        )
        shown = "".join(f"<td>{safe(cell)}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{safe(found.types[place])}</th>{shown}</tr>')
    told = f"Of {one.neighbours[0]} neighbours in the components."
    if len(found.types) > MAX_TYPES:
        told += f" The {MAX_TYPES} types of most real cells of {len(found.types):,} are shown."
    head = "".join(f"<th>{name}</th>" for name in ("type", *heads))
    return (
        f"<section><h2>Types</h2><p>{safe(told)}</p>"
        f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></section>'
    )


def _of(shares: Shares, place: int) -> float:
    return float(shares.by_type[0, place])


def _percent(share: float) -> str:
    return percent(float(share), 1) if np.isfinite(share) else _NONE
