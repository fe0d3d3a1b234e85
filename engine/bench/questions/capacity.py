"""Step time against the room in the caches, with the same tokens in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.questions.steps import step_row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bench.texts import Steps

_NEW_TOKENS = 32


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """All capacities and contenders in one group, as it is the capacities that are compared."""
    cases = []
    for one in contenders:
        for capacity in settings.capacities:
            room = capacity - one.prompt_len
            if room < _NEW_TOKENS or capacity > one.max_positions:
                continue
            row = step_row("capacity", one, settings.num_slots, _NEW_TOKENS, one.longest_memory, capacity)
            steps = partial(
                Steps, one, settings.num_slots, one.longest_memory, _NEW_TOKENS, burst=8, max_new_tokens=room
            )
            cases.append(Case(row, steps))
    if cases:
        yield Group("capacity", tuple(cases))
