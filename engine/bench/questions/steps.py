"""The row of a decode step, which several questions time."""

from __future__ import annotations

from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.row import Row


def step_row(
    question: str,
    contender: Contender,
    num_slots: int,
    new_tokens: int,
    memory_len: int,
    capacity: int | None = None,
) -> Row:
    """Return the row of a step of full slots.

    Its work is the mean over a whole text, until that of the steps that are timed takes its place.
    """
    cost = contender.cost
    return contender.row(
        question,
        "a decode step",
        "tokens",
        num_slots,
        cost.step(num_slots, cost.mean_tokens_in_use(new_tokens), memory_len),
        slots=num_slots,
        new_tokens=new_tokens,
        memory_len=memory_len,
        capacity=capacity or contender.prompt_len + new_tokens,
    )
