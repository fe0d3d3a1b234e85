"""The reference: the torch module in float32, greedy tokens and the logits that chose them.

On a GPU it runs in true float32 (TF32 off, attention by plain products), and is held against what the same module gave
on the CPU when the bundle was exported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from gpu.context import Context
from gpu.results import Row, rounded

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """Tokens int64 [B, T] that float32 chooses greedily and the logits float32 [B, T, V] before each."""

    tokens: Array
    logits: Array

    @cached_property
    def margins(self) -> Array:
        """Distance of the two best logits [B, T]."""
        best = np.partition(self.logits, -2, axis=-1)[..., -2:]
        found: Array = best[..., 1] - best[..., 0]
        return found


@contextlib.contextmanager
def in_float32(context: Context) -> Iterator[None]:
    """Make torch on the GPU compute in true float32, on the device by default."""
    torch = context.torch
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.device(context.device), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def reference_of(context: Context, cells: int) -> Reference:
    """Let the float32 module write about real cells."""
    from cellscribe.export.reference import decoder_reference, encoder_reference

    parts, batch = context.parts, context.cells(cells)
    with in_float32(context), context.torch.no_grad():
        found = encoder_reference(parts.encoder, batch)
        found |= decoder_reference(parts.decoder, parts.prompt_ids, found, context.sizes.tokens)
        return Reference(found["tokens"].cpu().numpy(), found["logits"].cpu().numpy())


def against_the_cpu(context: Context) -> Row:
    """Run the float32 module on the cells that the export kept, and compare with its CPU values."""
    from cellscribe.engine.bundle.load import REFERENCE
    from cellscribe.engine.verify import _batch
    from cellscribe.export.reference import encoder_reference

    kept = context.bundle.tensors(REFERENCE)
    parts, torch = context.parts, context.torch
    with in_float32(context), torch.no_grad():
        found = encoder_reference(parts.encoder, _batch(kept))
        prompt = torch.tensor(parts.prompt_ids).expand(len(kept["tokens"]), -1)
        tokens = torch.cat((prompt, torch.tensor(kept["tokens"])), 1)[:, :-1]
        logits, _ = parts.decoder.forward_train(tokens, found["memory"], found["mask"])
        logits = logits[:, len(parts.prompt_ids) - 1 :].cpu().numpy()
        memory = found["memory"].cpu().numpy()
    return {
        "cells": len(kept["tokens"]),
        "tokens": int(kept["tokens"].size),
        "memory_max_difference": rounded(float(np.abs(memory - kept["memory"]).max())),
        "logits_max_difference": rounded(float(np.abs(logits - kept["logits"]).max())),
        "equal_tokens": int((logits.argmax(-1) == kept["tokens"]).sum()),
    }
