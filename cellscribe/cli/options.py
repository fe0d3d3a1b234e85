"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

MAX_THREADS = 1_024  # more would only take memory

BundleOption = Annotated[
    str, typer.Option("--bundle", metavar="DIR", help="Bundle folder; 'demo' is the packaged one.")
]
BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle folder; 'demo' is the packaged one.")]
CELLS = "The cells: .h5ad, 10x .h5, 10x folder (matrix.mtx), .zarr."
CellsArgument = Annotated[Path, typer.Argument(metavar="CELLS", help=CELLS, show_default=False)]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="Result: .h5ad (a copy of an .h5ad input), .parquet, .jsonl or .csv.",
        show_default=False,
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="OUT.html", help="Also write one page with texts and genes.", show_default=False),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=MAX_THREADS, help="CPU threads; all cores without it.", show_default=False),
]
LayerOption = Annotated[
    str | None,
    typer.Option("--layer", help="Layer to read instead of X ('raw' for .raw).", show_default=False),
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N cells.", show_default=False)]
KeyOption = Annotated[str, typer.Option("--key-added", help="Name the keys of an .h5ad output are made from.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Cells in work at the same time.")]


class Values(StrEnum):
    """What the input holds."""

    auto = "auto"
    counts = "counts"
    lognorm = "lognorm"


class HvgFlavor(StrEnum):
    """How highly variable genes are chosen."""

    seurat_v3 = "seurat_v3"
    cell_ranger = "cell_ranger"


InputOption = Annotated[Values, typer.Option("--input", help="What the values are; auto looks at the whole file.")]


class BackendChoice(StrEnum):
    """What runs a bundle."""

    auto = "auto"
    tensorrt = "tensorrt"
    cuda = "cuda"
    cpu = "cpu"
    onnxruntime = "onnxruntime"
    onnxruntime_cuda = "onnxruntime-cuda"
    onnxruntime_cpu = "onnxruntime-cpu"


BackendOption = Annotated[
    BackendChoice,
    typer.Option("--backend", help="What runs the model; auto takes the best that can here. cpu is our own library."),
]
PlansOption = Annotated[
    Path | None,
    typer.Option(
        "--plans",
        metavar="DIR",
        help="TensorRT plans made with build --output; the bundle's and the user's without it.",
        show_default=False,
    ),
]
GenesOption = Annotated[
    Path | None,
    typer.Option(
        "--genes",
        metavar="LIST.txt",
        help="Genes to feed, one a line, to a bundle that wants highly variable ones.",
        show_default=False,
    ),
]
FlavorOption = Annotated[
    HvgFlavor | None,
    typer.Option("--hvg-flavor", help="How such a bundle chooses genes.", show_default=False),
]


OrganismOption = Annotated[str, typer.Option("--organism", help="As prompts name it.")]
SentenceOption = Annotated[
    int | None,
    typer.Option("--genes-per-cell", min=1, help="Genes of a sentence; the bundle's without it.", show_default=False),
]
TemplatesOption = Annotated[
    Path | None,
    typer.Option(
        "--templates", metavar="JSON", help="Prompts in place of ours: {task: {prompts, answer}}.", show_default=False
    ),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="N|draw",
        help="Which prompt of a task, from 0 on, or one drawn for every cell.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=TEXT", help="More values for the prompt.", show_default=False),
]


def template_number(text: str | None) -> int | None:
    """Return the number of a prompt, None for "draw"; the first one where nothing was said."""
    from cellscribe.engine.errors import UsageError

    if text is None:
        return 0
    if text == "draw":
        return None
    if not text.isdecimal():
        raise UsageError(f"--template is {text!r}; give the number of a prompt, from 0 on, or draw.")
    return int(text)


def pairs(given: list[str] | tuple[str, ...] | None) -> dict[str, str]:
    """Return what ``--set`` says; UsageError for what is no name=text, or a name with two texts."""
    from cellscribe.engine.errors import UsageError

    bad = next((one for one in given or () if "=" not in one), None)
    if bad is not None:
        raise UsageError(f"--set is {bad!r}; write it as name=text.")
    found: dict[str, str] = {}
    for name, text in (one.split("=", 1) for one in given or ()):
        if found.setdefault(name, text) != text:
            raise UsageError(f"--set gives {name} as {found[name]!r} and as {text!r}; give it once.")
    return found


def listed(text: str) -> tuple[str, ...]:
    """Return the names of "A, B"."""
    return tuple(one.strip() for one in text.split(",") if one.strip())


def bundle_folder(name: str) -> Path:
    """Return the folder of a bundle; "demo" and "demo-c2s" are the packaged ones, unless a folder has that name."""
    from cellscribe.engine.packaged import named_bundle

    return named_bundle(name)


def bundle_or_packaged(name: str | None, is_quiet: bool) -> str:
    """Return what ``--bundle`` names; without it the packaged bundle that reads and writes sentences, which is said."""
    from cellscribe.cli.console import error_console
    from cellscribe.engine.packaged import SENTENCES, packaged_bundle

    if name is not None:
        return name
    if not is_quiet:
        said = f"note: no --bundle is named; {SENTENCES} is taken, a packaged demonstration of blood cells alone"
        error_console().print(said, style="yellow", markup=False, soft_wrap=True)
    return str(packaged_bundle(SENTENCES))
