"""The sizes of plans of bundles that follow instructions."""

from __future__ import annotations

from dataclasses import replace

from cellscribe.engine.backends.device_instruct import PROMPTS
from cellscribe.engine.backends.instruct import instruct_shapes
from cellscribe.engine.backends.tensorrt.plan import Recipe, capacity_of
from cellscribe.engine.backends.text_feed import FEW
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.errors import PlanError, UsageError
from cellscribe.engine.instruct.prompts import MAX_TOKENS

_PROMPT_TOKENS, _GENES = 512, 8192  # of a prompt, and expressed by a cell, unless more are asked for


def check_instruct_options(bundle: Bundle, precision: str) -> None:
    """Raise UsageError for another precision than half, or PlanError for a bundle in another one."""
    if precision != "fp16":
        raise UsageError(
            f"--precision is {precision!r}; plans of bundles that follow instructions are fp16, leave it out."
        )
    if bundle.manifest.precision != "fp16":
        raise PlanError(
            f"the bundle {bundle.name} is {bundle.manifest.precision}; plans of {bundle.manifest.family} are built "
            "from fp16 bundles: export it again with --precision fp16."
        )


def instruct_recipe(
    bundle: Bundle, recipe: Recipe, max_new_tokens: int, genes: int | None, prompt_tokens: int | None
) -> Recipe:
    """Return the recipe for a bundle that follows instructions.

    Raises
    ------
    UsageError
        When a size is beyond what the bundle takes.
    """
    tower = instruct_shapes(bundle).tower
    longest = _PROMPT_TOKENS if prompt_tokens is None else prompt_tokens
    most = min(_GENES, tower.n_genes) if genes is None else genes
    if not tower.n_queries < longest <= MAX_TOKENS:
        raise UsageError(
            f"--prompt-tokens is {longest}; the bundle {bundle.name} takes prompts of up to {MAX_TOKENS:,}, "
            f"{tower.n_queries} of them for the cell."
        )
    if not 1 <= most <= tower.n_genes:
        raise UsageError(f"--genes is {most}; the bundle {bundle.name} reads {tower.n_genes:,}, choose no more.")
    return replace(
        recipe,
        prompt_batch=1,
        encode_batch=PROMPTS,
        prompt_len=longest,
        max_new_tokens=max_new_tokens,
        capacity=capacity_of(1 + FEW, max_new_tokens),
        genes=most,
        outputs=(),
        plugins=(),
        follows_instructions=True,
    )
