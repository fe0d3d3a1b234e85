"""The sizes of plans of bundles that read ranks."""

from __future__ import annotations

from dataclasses import replace

from cellscribe.engine.backends.device_match import CELLS
from cellscribe.engine.backends.match import rank_shape
from cellscribe.engine.backends.tensorrt.plan import Recipe
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.errors import PlanError, UsageError

_TEXT_TOKENS = 256  # of a text, unless more are asked for: a label with its definition


def rank_recipe(bundle: Bundle, recipe: Recipe, genes: int | None, text_tokens: int | None) -> Recipe:
    """Return the recipe for a bundle that reads ranks: texts in runs of `slots`, cells of up to `genes` tokens.

    Raises
    ------
    UsageError
        When a size is beyond the encoders' positions.
    PlanError
        When the bundle is not in half precision.
    """
    shape = rank_shape(bundle)
    if bundle.manifest.precision != "fp16":
        raise PlanError(
            f"the bundle {bundle.name} is {bundle.manifest.precision}; plans of {bundle.manifest.family} are built "
            "from fp16 bundles: export it again with --precision fp16."
        )
    if text_tokens is not None and shape.text is None:
        raise UsageError(f"--prompt-tokens is the longest text, and {bundle.name} reads none; leave it out.")
    most = 0 if shape.text is None else shape.text.max_positions
    longest = min(_TEXT_TOKENS, most) if text_tokens is None else text_tokens
    for option, asked, held in (("--genes", genes, shape.cell.max_positions), ("--prompt-tokens", longest, most)):
        if asked is not None and asked > held:
            raise UsageError(f"{option} is {asked}; the bundle {bundle.name} has {held} positions, choose fewer.")
    return replace(
        recipe,
        prompt_batch=1,
        encode_batch=CELLS,
        prompt_len=longest,
        max_new_tokens=0,
        capacity=0,
        genes=genes or shape.cell.max_positions,
        outputs=(),
        plugins=(),
    )
