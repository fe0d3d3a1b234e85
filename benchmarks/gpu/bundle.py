"""What does the bundle under test take to make? Random weights of seed 0, fp16, exported as any checkpoint is.

It runs on the CPU, beside the parts that need no bundle. The export keeps what torch computes in float32 on the CPU for
four real cells: the part `parity` holds its own reference against that.
"""

from __future__ import annotations

import time
from dataclasses import asdict

from gpu.context import Context


def run(context: Context) -> None:
    """Export, unless a bundle was given or one is left from an earlier run."""
    section = context.section("bundle")
    if not context.bundle_folder.is_dir():
        from cellscribe.export.bundle import export_random

        started = time.perf_counter()
        export_random(
            context.sizes.shape, context.bundle_folder, precision="fp16", cross_attention="latent", seed=0,
            progress=lambda what: section.say(f"{time.perf_counter() - started:.0f} s: {what}"),
        )  # fmt: skip
        section.fact(export_seconds=round(time.perf_counter() - started, 1))
    else:
        section.fact(note="found, not exported here")
    manifest = context.bundle.manifest
    section.fact(
        name=context.bundle.name,
        shape=context.sizes.shape,
        notes=manifest.notes,
        cross_attention=manifest.cross_attention.form,
        prompt_len=len(manifest.prompt.token_ids),
        gigabytes=round(sum(one.bytes for one in manifest.files.values()) / 1e9, 3),
        parity=asdict(manifest.parity) if manifest.parity else None,
        model=asdict(context.model),
    )
    section.save("ok")
