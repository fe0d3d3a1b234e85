"""``cellscribe build``: a bundle's graphs become TensorRT plans."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


class Precision(StrEnum):
    """What a plan computes in."""

    fp16 = "fp16"
    fp32 = "fp32"


class Product(StrEnum):
    """Which TensorRT builds."""

    auto = "auto"
    rtx = "rtx"
    trt = "trt"


@guarded
def build(
    bundle: options.BundleArgument,
    target: Annotated[
        str, typer.Option("--target", metavar="GPU", help="rtx4090, h100, h200, sm_89 and the like, or this.")
    ],
    slots: Annotated[int, typer.Option("--slots", min=1, help="Texts in progress at a time, at most.")] = 32,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest text.")] = 96,
    genes: Annotated[
        int | None, typer.Option("--genes", min=1, help="Most tokens per cell; the bundle's without it.")
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens", min=1, help="Longest prompt (c2s), 1024 or less; longest text (langcell), 256."
        ),
    ] = None,
    evidence: Annotated[bool, typer.Option("--evidence/--no-evidence", help="Keep the attention to genes.")] = True,
    attention: Annotated[bool, typer.Option("--attention", help="Keep it for every layer and head (--save-attn).")] = (
        False
    ),
    precision: Annotated[
        Precision, typer.Option("--precision", help="fp32 for fp32 bundles that read cells as sentences.")
    ] = Precision.fp16,
    product: Annotated[
        Product, typer.Option("--product", help="rtx is TensorRT for RTX, trt is TensorRT 11.")
    ] = Product.auto,
    timing_cache: Annotated[
        Path | None, typer.Option("--timing-cache", metavar="F", help="Measurements to keep (TensorRT 11).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for plans, to be given to --plans; without it, the bundle's."
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build even if the plan is there.")] = False,
    quiet: options.QuietOption = False,
) -> None:
    """Build TensorRT plans of a bundle: for an RTX 4090 on any machine, for an H100 or H200 on the GPU itself.

    Plans are native code: other commands open by themselves only those that you built (listed in ~/.cache/cellscribe),
    and those of others, or in a folder of your own, with --plans DIR.
    """
    from cellscribe.cli.console import error_console
    from cellscribe.cli.progress import file_bars
    from cellscribe.engine.bundle import open_bundle
    from cellscribe.engine.errors import UsageError

    opened = open_bundle(options.bundle_folder(bundle))
    try:
        from cellscribe.export.tensorrt import build_plans
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cellscribe"):
            raise
        raise UsageError(f"build needs {error.name}; install it with: pip install 'cellscribe[export]'") from error
    asked = [name for name, wanted in (("evidence", evidence), ("attention", attention)) if wanted]
    with file_bars(quiet) as report:
        result = build_plans(
            opened,
            target,
            slots=slots,
            max_new_tokens=max_new_tokens,
            genes=genes,
            prompt_tokens=prompt_tokens,
            outputs=tuple(asked),
            precision=precision.value,
            product=product.value,
            timing_cache=timing_cache,
            output=output,
            rebuild=rebuild,
            progress=report,
        )
    if not quiet:
        for line in result.lines():
            error_console().print(line, markup=False, soft_wrap=True)
