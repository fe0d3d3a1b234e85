"""``cellscribe compare``: generated cells and real ones in, a page and figures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def compare(
    generated: Annotated[
        Path, typer.Argument(metavar="GENERATED.h5ad", help="Cells that a model wrote.", show_default=False)
    ],
    real: Annotated[Path, typer.Argument(metavar="REAL.h5ad", help="Cells to hold them to.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.html", help="The page.")],
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT.json", help="Also write all figures.", show_default=False),
    ] = None,
    label: Annotated[
        str, typer.Option("--label", metavar="COLUMN", help="Column of obs with the type that was asked for.")
    ] = "cell_type",
    label_real: Annotated[
        str | None,
        typer.Option(
            "--label-real",
            metavar="COLUMN",
            help="Column of the real cells; named like the other one without it.",
            show_default=False,
        ),
    ] = None,
    markers: Annotated[
        Path | None,
        typer.Option(
            "--markers",
            metavar="JSON",
            help="Genes of the dot plot by type; chosen from the real cells without it.",
            show_default=False,
        ),
    ] = None,
    neighbours: Annotated[
        str, typer.Option("--neighbours", metavar="K,K", help="Numbers of neighbours of sKNN, pKNN and mixing.")
    ] = "5,10,25,50",
    max_cells: Annotated[
        int, typer.Option("--max-cells", min=6, help="Of more cells of a file so many are drawn.")
    ] = 2000,
    no_map: Annotated[bool, typer.Option("--no-map", help="Leave out the UMAPs and their figures.")] = False,
    same_types: Annotated[
        bool, typer.Option("--same-types", help="Leave types that no generated cell has out of mixing and MMD.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Key of the draw and of the maps.")] = 0,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of the generated cells instead of X.", show_default=False),
    ] = None,
    layer_real: Annotated[
        str | None, typer.Option("--layer-real", help="Layer of the real cells instead of X.", show_default=False)
    ] = None,
    input_: Annotated[
        options.Values, typer.Option("--input", help="What the generated values are; auto looks at the whole file.")
    ] = options.Values.auto,
    input_real: Annotated[
        options.Values, typer.Option("--input-real", help="What the real values are.")
    ] = options.Values.auto,
    log_base: Annotated[
        float | None,
        typer.Option(
            "--log-base",
            help="Base of the generated cells' logarithms; looked for without it.",
            show_default=False,
        ),
    ] = None,
    log_base_real: Annotated[
        float | None,
        typer.Option("--log-base-real", help="Base of the real cells' logarithms.", show_default=False),
    ] = None,
    quiet: options.QuietOption = False,
) -> int:
    """Compare generated cells with real ones: sKNN, pKNN, MMD, mixing, marker genes and a map."""
    from cellscribe.cli.comparing import CompareJob, Side, compare_files, numbers
    from cellscribe.engine.instruct.compare_settings import CompareSettings

    settings = CompareSettings(
        neighbours=numbers(neighbours),
        has_map=not no_map,
        max_cells=max_cells,
        seed=seed,
        same_types=same_types,
        log_base=log_base,
        log_base_real=log_base_real,
    )
    job = CompareJob(
        Side(generated, label, layer, input_.value),
        Side(real, label_real or label, layer_real, input_real.value),
        output,
        settings,
        json,
        markers,
        quiet,
    )
    return compare_files(job)
