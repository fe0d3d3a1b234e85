"""The CUDA backend with cross-attention materialised: the weights of a latent bundle, kept keys and values instead."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from gpu.context import Context


def materialised_backend(context: Context) -> Any:
    """Open it.

    A latent bundle is loaded with the projections that its prompts need (`to_keys`, which carry the scale, and
    `to_values`), so nothing but the form has to change.
    """
    from cellscribe.engine.backends.cuda import CudaBackend
    from cellscribe.engine.backends.cuda.decoder import Decoder

    manifest = context.bundle.manifest
    cross = replace(manifest.cross_attention, form="materialised")

    class Materialised(CudaBackend):
        counted_as = replace(manifest, cross_attention=cross)

        @cached_property
        def _decoder(self) -> Decoder:
            latent = context.backend._decoder
            return Decoder(latent.weights, latent.shape, cross, latent.ops)

    return Materialised(context.bundle, context.device, context.library)
