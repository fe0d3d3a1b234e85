"""What is asked of every cell: in a user's own words, or by the instructions of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.fields import check_fields, check_own, check_used
from cellscribe.engine.instruct.prompts import CELL, CellToken, framed
from cellscribe.engine.instruct.templates import ANNOTATION, GENERATION, SENSITIVITY, Instructions, own_instruction

FROM_OBS = ("species", "tissue", "sequencing_method", "drug")  # fields that obs may hold, a value for every cell

_UNKNOWN = ("", "nan", "None", "NaT", "<NA>")


@dataclass(frozen=True)
class AskSettings:
    """What is asked of every cell.

    Parameters
    ----------
    instruction
        In a user's own words, ``{cell}`` where the cell belongs; without one the cell is put before it. It may name
        other fields in braces. None takes the task's instructions.
    task
        One of the templates that is about a cell.
    fields
        Values for the instruction; those that are left out are taken from columns of obs of their names.
    number
        Which instruction of the task, from 0 on; None takes the first whose values are known.
    seed
        Key of the draws; with `draws` also of an instruction for every cell.
    """

    instruction: str | None = None
    task: str = ANNOTATION
    fields: Mapping[str, str] = field(default_factory=dict)
    number: int | None = None
    draws: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_own(self.instruction, self.number, self.draws)
        if self.instruction is None and self.task == GENERATION:
            raise UsageError(
                f"the task {GENERATION} writes cells and asks about none; use generate, or choose {ANNOTATION} or "
                f"{SENSITIVITY}."
            )

    def provenance(self) -> dict[str, object]:
        """Return what a result depends on, for its settings."""
        template = "drawn" if self.draws else "the first that fits" if self.number is None else self.number
        how = {"template": template} if self.instruction is None else {"instruction": self.instruction}
        return {"task": self.task, "fields": dict(self.fields), "seed": self.seed, **how}


def instructions_for(
    source: CellSource,
    rows: npt.NDArray[np.int64],
    asked: AskSettings,
    task: Instructions,
    cell: CellToken,
    choices: Sequence[str] | None = None,
    lost: dict[int, str] | None = None,
) -> list[str]:
    """Return the framed instruction for every cell. A blank value of obs is not known, as an empty one.

    Parameters
    ----------
    rows
        Which cells, int64 [N].
    task
        Its instructions, where `asked` has none of its own.
    choices
        What ``{choices}`` stands for.
    lost
        Gets the places of cells whose obs holds what would be read as a cell, and why; their instructions are empty.
        None raises for the first.

    Raises
    ------
    UsageError
        For an empty instruction, a value that none of the task's can do without, a field that is not known or that no
        instruction names which is chosen for a cell, or a value that is empty or would be read as a cell.
    """
    check_fields(asked.fields, cell)
    if asked.instruction is not None:
        if not asked.instruction.strip():
            raise UsageError("the instruction is empty; write one.")
        task = own_instruction(asked.instruction if CELL in asked.instruction else f"{CELL} {asked.instruction}")
    known = {**({} if choices is None else {"choices": ", ".join(choices)}), **asked.fields}
    columns = {
        name: source.obs_column(name).astype(str).str.strip().to_numpy()[rows]
        for name in FROM_OBS
        if name in source.obs_columns and name not in known
    }
    drawn, found = asked.seed if asked.draws else None, []
    kinds = set[frozenset[str]]()
    for i, row in enumerate(rows.tolist()):
        own = {name: str(column[i]) for name, column in columns.items() if column[i] not in _UNKNOWN}
        try:
            check_fields(own, cell, f"obs of {source.obs_names[row]}")
        except UsageError as error:
            if lost is None:
                raise
            lost[i] = str(error).removesuffix(".")
            found.append("")
            continue
        values = {**own, **known}
        found.append(framed(task.pick(asked.number, values, str(source.obs_names[row]), drawn).text, cell))
        kinds.add(frozenset(values))
    if kinds:
        named = {name for one in kinds for name in task.named(asked.number, one, asked.draws)}
        check_used(asked.fields, named, task, frozenset.union(*kinds))
    return found
