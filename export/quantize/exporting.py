"""Exporting straight to fewer bits: an fp32 bundle is made beside the target, quantised, and thrown away."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.output.folder import staging
from cellscribe.export.quantize.bundle import quantize_bundle


def export_quantized(
    export: Callable[[Path], object], bundle: Path, precision: str, cells: Path | None, say: Callable[[str], None]
) -> Manifest:
    """Make a quantised bundle of what `export` writes into the folder that it is given; errors as ``quantize_bundle``.

    The manifest is returned. `say` is told what is worked on.
    """
    said: list[str] = []

    def report(what: str, _share: float) -> None:
        if what not in said:
            said.append(what)
            say(f"quantising: {what}")

    with staging(bundle) as folder:
        whole, result = folder / "fp32", folder / "quantized"
        export(whole)
        manifest = quantize_bundle(whole, result, precision, cells=cells, progress=report).manifest
        shutil.rmtree(whole)
        for path in result.iterdir():
            path.rename(folder / path.name)
        result.rmdir()
    return manifest
