"""Step time against the length of a cell's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.questions.steps import step_row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.bench.texts import Steps


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """All lengths and contenders in one group, as it is the lengths that are compared.

    Memories of real cells are cut off; those that the bundle has not got so long are left out, and its own length, with
    its half and quarter where no shorter one was asked for, is added.
    """
    cases = []
    for one in contenders:
        whole = one.longest_memory
        lengths = {length for length in settings.memory_lens if length < whole} or {whole // 4, whole // 2} - {0}
        for memory_len in sorted(lengths | {whole}):
            row = step_row("memory", one, settings.num_slots, settings.text_len, memory_len)
            cases.append(Case(row, partial(Steps, one, settings.num_slots, memory_len, settings.text_len)))
    yield Group("memory", tuple(cases))
