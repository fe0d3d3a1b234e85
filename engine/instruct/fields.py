"""Values that instructions are given, checked in one place: their names, their texts, and that something names them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.prompts import CellToken
from cellscribe.engine.instruct.templates import CELL, FIELDS, OWN, Instructions
from cellscribe.engine.sentences.templates import fields_of


def check_fields(fields: Mapping[str, str], cell: CellToken, where: str = "the fields") -> None:
    """Raise UsageError for a field that is not known, and a value that is no text, empty, or a cell or its end."""
    for name, value in fields.items():
        if name not in FIELDS[1:]:
            raise UsageError(f"the field {name!r} is not known; choose from {', '.join(FIELDS[1:])}.")
        if not isinstance(value, str):
            raise UsageError(f"the value of {name} is {value!r}, which is no text; give one, or leave it out.")
        if not value.strip():
            raise UsageError(f"the value of {name} is empty; name one, or leave it out.")
        odd = _odd_in(value, cell)
        if odd is not None:
            raise UsageError(f"{name} in {where} is {value[:60]!r}, where {odd} has a meaning of its own; rename it.")


def check_labels(labels: Collection[str], cell: CellToken) -> None:
    """Raise UsageError for a label that holds a cell, or a token that is no word."""
    for label in labels:
        odd = _odd_in(label, cell)
        if odd is not None:
            raise UsageError(f"a label is {label[:60]!r}, where {odd} has a meaning of its own; rename it.")


def _odd_in(text: str, cell: CellToken) -> str | None:
    return f"{{{CELL}}}" if f"{{{CELL}}}" in text else cell.odd_in(text)


def check_used(given: Collection[str], named: Collection[str], task: Instructions, known: Collection[str]) -> None:
    """Raise UsageError for a field that is given and that no instruction names.

    Parameters
    ----------
    given
        Names of the fields that a user gave.
    named
        Those that instructions name which were chosen, or could have been drawn.
    task, known
        Where they were chosen from, and by what was known: names of fields.
    """
    unused = next((name for name in given if name not in named), None)
    if unused is None:
        return
    if task.task == OWN:
        raise UsageError(
            f"the instruction does not name {{{unused}}}, for which a value is given; write it where it belongs, "
            "or leave it out."
        )
    lacking = [sorted(set(fields_of(one)) - {CELL, *known}) for one in task.prompts if unused in fields_of(one)]
    if not lacking:
        raise UsageError(
            f"no instruction of the task {task.task} names {{{unused}}}, for which a value is given; leave it out."
        )
    fewest = " and ".join(f"{{{one}}}" for one in min(lacking, key=len))
    more = f"those of the task {task.task} that do need {fewest}, too; give it" if fewest else "choose another one"
    raise UsageError(
        f"the instruction that fits does not name {{{unused}}}, for which a value is given, and {more}, or leave "
        f"{unused} out."
    )


def check_own(instruction: object, number: int | None, draws: bool) -> None:
    """Raise UsageError for an instruction in a user's own words that is no text, or that is to be a template, too."""
    if instruction is None:
        return
    if not isinstance(instruction, str):
        raise UsageError(f"the instruction is {instruction!r}, which is no text; write one.")
    if number is not None or draws:
        raise UsageError("an instruction of your own is no template; leave --template (template) out, or it.")


def without_clash(options: Mapping[str, str | None], fields: Mapping[str, str]) -> dict[str, str]:
    """Put values from options of their own (None for none) and other fields together.

    Raises
    ------
    UsageError
        For a field that has two values.
    """
    own = {name: value for name, value in options.items() if value is not None}
    double = next((name for name, value in own.items() if fields.get(name, value) != value), None)
    if double is not None:
        raise UsageError(f"{double} is given as {own[double]!r} and as {fields[double]!r}; give it once.")
    return {**own, **fields}
