"""Time to admit cells: their prompts up to the first token.

Whether the shared prefix pays is seen where a contender that runs whole prompts takes part beside the others; its cost
is :meth:`cellscribe.engine.bench.cost.Cost.with_whole_prompt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from cellscribe.engine.backends.base import Admission
from cellscribe.engine.bench.case import Case, Group
from cellscribe.engine.bench.clock import Call, timed
from cellscribe.engine.bench.contender import Contender
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.types import MIN_NEW_TOKENS


def groups(contenders: Sequence[Contender], settings: Settings) -> Iterator[Group]:
    """One group a number of cells that are admitted together: one, and as many as there are slots."""
    for num_cells in sorted({1, settings.num_slots}):
        cases = (Case(_row(one, num_cells), partial(_open, one, num_cells)) for one in contenders)
        yield Group(f"prompts {num_cells}", tuple(cases))


def _row(one: Contender, num_cells: int) -> Row:
    what = "admission of cells" if one.cost.shares_prefix else "admission of cells, whole prompt"
    work = one.cost.prompt(num_cells, one.longest_memory)
    return one.row("prompts", what, "cells", num_cells, work, slots=num_cells, cells=num_cells)


def _open(one: Contender, num_cells: int) -> Call:
    slots = one.backend.open_slots(one.plan(num_cells, one.longest_memory, MIN_NEW_TOKENS))
    admissions = [
        Admission(cell.index, cell.key, cell.memory, cell.mask) for cell in one.requests(num_cells, one.longest_memory)
    ]
    return timed(lambda: slots.admit(admissions).wait())
