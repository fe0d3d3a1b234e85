"""Are the tokens those of float32? Teacher-forced over real cells; every token that differs with its margin.

A token that differs is a near-tie where the reference's two best logits are nearer to each other than twice the largest
error of that step's logits: then either may come first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gpu.context import Context
from gpu.reference import Array, Reference, against_the_cpu, reference_of
from gpu.results import Row, rounded

_QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5)


def run(context: Context) -> None:
    """Compare the CUDA backend with float32, with many slots and with few, whose kernels are others."""
    section, sizes = context.section("parity"), context.sizes
    section.fact(reference_on=context.device, reference_against_the_cpu=against_the_cpu(context))
    reference = reference_of(context, max(sizes.parity_cells))
    section.fact(reference_tokens=int(reference.tokens.size), margin_quantiles=quantiles(reference.margins))
    keep(context, reference)
    for cells in sizes.parity_cells:
        section.row(weights="fp16", slots=cells, **compared(reference, forced(context, context.backend, cells)))
    few = [cells for cells in sizes.parity_cells if cells <= 8]
    backend = context.new_backend(step_weights="int8")
    section.row(weights="int8", slots=few[0], **compared(reference, forced(context, backend, few[0])))
    section.save("ok")


def forced(context: Context, backend: Any, cells: int) -> Array:
    """Return the backend's logits [B, T, V] before each token of the reference, from the cells' values on."""
    from cellscribe.engine.verify import teacher_forced

    batch, reference = context.cells(cells), kept(context)
    encoded = backend.encode(batch)
    return teacher_forced(context.bundle, backend, encoded.memory, batch.mask, reference.tokens[:cells])


def compared(reference: Reference, logits: Array) -> Row:
    """Say how many tokens are equal, and why the others are not."""
    count = len(logits)
    theirs, wanted, margins = reference.logits[:count], reference.tokens[:count], reference.margins[:count]
    errors = np.abs(theirs - logits).max(-1)  # [B, T]
    differs = np.argwhere(logits.argmax(-1) != wanted)
    found = [
        {
            "cell": int(cell),
            "token": int(at),
            "margin_of_the_reference": rounded(float(margins[cell, at])),
            "largest_error_of_the_step": rounded(float(errors[cell, at])),
            "is_near_tie": bool(margins[cell, at] <= 2 * errors[cell, at]),
        }
        for cell, at in differs
    ]
    return {
        "tokens": int(wanted.size),
        "equal": int(wanted.size - len(differs)),
        "percent_equal": round(100 * (1 - len(differs) / wanted.size), 3),
        "near_ties": sum(one["is_near_tie"] for one in found),
        "others": sum(not one["is_near_tie"] for one in found),
        "largest_margin_that_differs": max((one["margin_of_the_reference"] for one in found), default=0.0),
        "logits_max_error": rounded(float(errors.max())),
        "logits_error_quantiles": quantiles(errors),
        "mean_kl_nats": rounded(float(divergence(theirs, logits))),
        "differing": found,
    }


def divergence(theirs: Array, ours: Array) -> float:
    """Mean Kullback-Leibler divergence of our next-token distribution from the reference's, in nats."""
    total = 0.0
    for a, b in zip(theirs, ours, strict=True):  # a cell at a time: the logits are large
        p, q = _log_softmax(a), _log_softmax(b)
        total += float((np.exp(p) * (p - q)).sum(-1).mean())
    return total / len(theirs)


def quantiles(values: Array) -> Row:
    """Return a few quantiles and the largest."""
    return {f"{q:g}": rounded(float(np.quantile(values, q))) for q in _QUANTILES} | {
        "max": rounded(float(values.max()))
    }


def keep(context: Context, reference: Reference) -> None:
    """Keep the reference for the peers, whose outputs are checked before they are timed."""
    np.savez(context.options.work / "reference.npz", tokens=reference.tokens, logits=reference.logits)


def kept(context: Context) -> Reference:
    """Return the reference of this run; made where the part that makes it has not run."""
    path = context.options.work / "reference.npz"
    if not path.is_file():
        keep(context, reference_of(context, max(context.sizes.parity_cells)))
    with np.load(path) as found:
        return Reference(found["tokens"], found["logits"])


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
