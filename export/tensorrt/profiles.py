"""Which sizes a plan must run, and which it should be fast at."""

from __future__ import annotations

from cellscribe.engine.backends.tensorrt.plan import SMALLEST_PIECE, Recipe, piece_sizes
from cellscribe.engine.backends.text_feed import FEW
from cellscribe.engine.bundle.load import CROSS, ENCODER, KEYS, MATCH, TEXT, TOWER
from cellscribe.engine.errors import PlanError
from cellscribe.export.tensorrt.graph import Dimension, Value

Range = tuple[int, int, int]  # least, best, greatest
TYPICAL_GENES = 2048  # that a cell expresses
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def profiles(graph: str, recipe: Recipe) -> tuple[dict[str, Range], ...]:
    """Return the range of every varying size, by name, for each profile of a graph.

    The decoder is one plan with two profiles, a step and a prompt, not two plans: a plan holds its weights, so two of
    a 1.1 billion model would take 4.6 GB of the card instead of 2.3. A step has one token and nothing known, a prompt
    one token and all that is known before it. The memory may have any length, as a pool is a memory of one token.
    Without an encoder a step has one token, or a few where a label goes on by itself, and a prompt pieces of one row.
    Texts are matched with one cell at a time.
    """
    if recipe.reads_sentences:
        largest, least = piece_sizes(recipe.capacity)[0], SMALLEST_PIECE
        one = (1, 1, 1)
        return (
            {"batch": _upto(recipe.slots), "tokens": (1, 1, FEW), "outputs": one},
            {"batch": one, "tokens": (least, largest, largest), "outputs": one},
        )
    genes = (1, recipe.genes, recipe.genes)
    if recipe.follows_instructions:
        return (_instructions(graph, recipe),)
    if graph == ENCODER:
        return ({"batch": _upto(recipe.encode_batch), "genes": genes},)
    texts, one = {"texts": _upto(recipe.slots), "tokens": (1, recipe.prompt_len, recipe.prompt_len)}, (1, 1, 1)
    if graph == TEXT:
        return (texts,)
    if graph == KEYS:
        return ({"cells": one, "genes": genes},)
    if graph == MATCH:
        return ({**texts, "cells": one, "genes": genes},)
    if graph == CROSS:
        return ({"batch": _upto(recipe.prompt_batch), "genes": genes},)
    return (
        _decoder(_upto(recipe.slots), genes, known=0),
        _decoder(_upto(recipe.prompt_batch), genes, known=recipe.prompt_len - 1),
    )


def shapes(name: str, value: Value, ranges: dict[str, Range]) -> Shapes:
    """Return the least, best and greatest shape of an input.

    Raises
    ------
    PlanError
        When a size varies under a name that no profile knows.
    """
    least, best, greatest = (tuple(_size(name, d, ranges, i) for d in value.shape) for i in range(3))
    return least, best, greatest


def _size(name: str, dimension: Dimension, ranges: dict[str, Range], which: int) -> int:
    if isinstance(dimension, int):
        return dimension
    if dimension not in ranges:
        raise PlanError(f"the input {name} varies in {dimension!r}, which this release does not know; export it anew.")
    return ranges[dimension][which]


def _decoder(batch: Range, genes: Range, known: int) -> dict[str, Range]:
    total = (known + 1,) * 3
    return {"batch": batch, "genes": genes, "tokens": (1, 1, 1), "known": (known,) * 3, "known + tokens": total}


def _instructions(graph: str, recipe: Recipe) -> dict[str, Range]:
    """Return the ranges of a bundle that follows instructions: cells and the states of prompts come one at a time."""
    one, prompt = (1, 1, 1), (1, recipe.prompt_len, recipe.prompt_len)
    if graph == TOWER:
        return {"batch": one, "expressed": (1, min(TYPICAL_GENES, recipe.genes), recipe.genes)}
    if graph == ENCODER:
        return {"batch": (recipe.encode_batch,) * 3, "tokens": prompt}
    if graph == CROSS:
        return {"batch": one, "tokens": prompt}
    return {"batch": _upto(recipe.slots), "tokens": (1, 1, FEW), "states": prompt}


def _upto(greatest: int) -> Range:
    return 1, greatest, greatest
