"""Step time against slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.questions.steps import step_row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bench.texts import Steps


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """One group a number of slots, all contenders in it."""
    for num_slots in settings.slots:
        cases = []
        for one in contenders:
            row = step_row("slots", one, num_slots, settings.text_len, one.longest_memory)
            cases.append(Case(row, partial(Steps, one, num_slots, one.longest_memory, settings.text_len)))
        yield Group(f"slots {num_slots}", tuple(cases))
