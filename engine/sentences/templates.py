"""Prompts of the tasks that a bundle without an encoder does, ours or a user's, and how they are filled."""

from __future__ import annotations

import difflib
import hashlib
import json
import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.keyed import cell_keys, stream_keys, uniforms

FIELDS = (
    "organism", "num_genes", "num_cells", "cell_sentence", "cell_sentences", "cell_type", "cell_types", "tissue",
    "abstract", "genes", "gene_set",
)  # fmt: skip
_NEEDED = {
    "cell_type_prediction": ("cell_sentence",),
    "conditional_cell_generation": ("cell_type",),
    "cells_generation": ("num_cells",),
    "tissue_cells_generation": ("tissue", "num_cells"),
    "cell_type_cells_generation": ("cell_type", "num_cells"),
    "tissue_prediction": ("cell_sentences",),
    "cell_types_prediction": ("cell_sentences",),
    "abstract_generation": ("cell_sentences",),
    "abstract_cells_generation": ("abstract", "num_cells"),
    "gene_set_name": ("genes",),
    "gene_set_genes": ("gene_set",),
}  # what a prompt must name, or it asks for the same whatever is wanted
ANNOTATION = "cell_type_prediction"  # what annotate asks
_ANSWERED = {ANNOTATION: "cell_type"}  # what the answer must name
_OF_CELLS = frozenset({"cell_sentence", "cell_sentences"})
_DRAW = 13  # stream of the draws that choose a prompt


T = TypeVar("T")
About = Literal["cell", "group", "nothing"]


@dataclass(frozen=True)
class Template:
    """One task: the ways to ask, and what the answer says (:func:`cellscribe.engine.sentences.frame.frame_of`)."""

    task: str
    prompts: tuple[str, ...]
    answer: str

    @property
    def about(self) -> About:
        """What it asks about: a cell, a group of cells, or neither."""
        named = {name for one in self.prompts for name in fields_of(one)}
        return "group" if "cell_sentences" in named else "cell" if "cell_sentence" in named else "nothing"

    def prompt(self, number: int | None, key: str, seed: int = 0) -> str:
        """Return a prompt by its number, or one drawn by seed and key (a cell's name) where `number` is None.

        Raises
        ------
        UsageError
            When there is no prompt of that number.
        """
        if number is None:
            drawn = uniforms(stream_keys(seed, cell_keys([key]), _DRAW), np.zeros(1, np.int64))
            number = int(drawn[0] * len(self.prompts))
        if not 0 <= number < len(self.prompts):
            raise UsageError(
                f"the task {self.task} has prompts 0 to {len(self.prompts) - 1} and {number} was asked for; "
                "choose one of them, or draw."
            )
        return self.prompts[number]


def fill(prompt: str, values: Mapping[str, Any]) -> str:
    """Fill a prompt with values.

    Raises
    ------
    UsageError
        When the prompt wants a value that is not given, or one with a format.
    """
    text = ""
    for literal, name, form, conversion in string.Formatter().parse(prompt):
        text += literal
        if name is None:
            continue
        if form or conversion:
            raise UsageError(f"the prompt gives {{{name}}} a format, which is not taken; write the name alone.")
        if name not in values:
            raise UsageError(f"the prompt needs a value for {{{name}}}; give it, or choose another prompt.")
        text += str(values[name])
    return text


def fields_of(prompt: str) -> tuple[str, ...]:
    """Return the names between braces; ValueError for odd braces, or more than a name between them."""
    found = []
    for _, name, form, conversion in string.Formatter().parse(prompt):
        if form or conversion:
            raise ValueError(f"{{{name}}} has a format, and takes none")
        if name is not None:
            found.append(name)
    return tuple(found)


def packaged_templates() -> dict[str, Template]:
    """Return our own templates by task."""
    text = files("cellscribe.engine.sentences").joinpath("templates.json").read_text(encoding="utf-8")
    return _parsed(json.loads(text), "templates.json")


def templates_with(path: Path | None) -> dict[str, Template]:
    """Return our own templates, those of a file (:func:`read_templates`) in their place where there is one."""
    return packaged_templates() | ({} if path is None else read_templates(path))


def known_task(tasks: Mapping[str, T], name: str) -> T:
    """Return what a task is asked with; UsageError for one that is not known."""
    if name not in tasks:
        raise UsageError(f"the task {name!r} is not known; choose from {', '.join(tasks)}.")
    return tasks[name]


def read_templates(path: Path) -> dict[str, Template]:
    """Read a file of templates: ``{task: {"prompts": [...], "answer": "..."}}``, fields in braces as :data:`FIELDS`.

    Raises
    ------
    InputError
        When it cannot be read, names a field that is not known or lacks one that its task needs, or has no task of ours
        (:func:`packaged_templates`), others being a user's own.
    """
    found = _parsed(read_json(path), str(path))
    check_tasks(path, found, packaged_templates())
    return found


def read_json(path: Path) -> Any:
    """Return what a file of templates holds; InputError for one that cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON ({error}); write the templates again.") from error


def check_tasks(path: Path, found: Collection[str], ours: Collection[str]) -> None:
    """Raise InputError for a file that has none of our tasks, whose texts would never be asked."""
    if not set(found) & set(ours):
        raise InputError(f"{path} has none of our tasks, only {', '.join(found)}; ours are {', '.join(ours)}.")


def checked_fields(text: str, task: str, where: str, known: Collection[str]) -> tuple[str, ...]:
    """Return the names between the braces of a task's text; InputError for odd braces, or one that is not known."""
    try:
        names = fields_of(text)
    except ValueError as error:
        raise InputError(f"{where}: a text of the task {task} has odd braces ({error}); write {{{{ for one.") from error
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise InputError(f"{where}: the task {task} names {{{unknown}}}; known are {', '.join(known)}.")
    return names


def digest(templates: Mapping[str, Template]) -> str:
    """Return 16 hex digits that change with the prompts of tasks, and not with how their file is laid out."""
    said = [(one.task, one.prompts, one.answer) for _, one in sorted(templates.items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def own_tasks(templates: Iterable[str], ours: Collection[str] | None = None) -> str:
    """Say which tasks of a file are none of ours, a user's own or misspelt; empty when there are none.

    `ours` are those of :func:`packaged_templates` for None.
    """
    ours = packaged_templates() if ours is None else ours
    own = [f"{one!r}{_near(one, ours)}" for one in templates if one not in ours]
    return f"The templates have tasks of their own, used only where they are named: {', '.join(own)}." if own else ""


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.8)
    return f" (is {near[0]!r} meant?)" if near else ""


def _parsed(raw: Any, where: str) -> dict[str, Template]:
    if not isinstance(raw, dict) or not raw:
        raise InputError(f"{where} holds no tasks; give a task's name with its prompts and its answer.")
    return {str(task): _template(str(task), one, where) for task, one in raw.items()}


def _template(task: str, raw: Any, where: str) -> Template:
    prompts = raw.get("prompts") if isinstance(raw, dict) else None
    answer = raw.get("answer") if isinstance(raw, dict) else None
    if not isinstance(prompts, list) or not prompts or not all(isinstance(one, str) for one in (*prompts, answer)):
        raise InputError(f'{where}: the task {task} must be {{"prompts": [text, ...], "answer": text}}.')
    for text in (*prompts, str(answer)):
        checked_fields(text, task, where, FIELDS)
    for needed in _NEEDED.get(task, ()):
        if not all(needed in fields_of(text) for text in prompts):
            raise InputError(
                f"{where}: a prompt of the task {task} lacks {{{needed}}}; name it, or it asks for the same each time."
            )
    if len({frozenset(_OF_CELLS & set(fields_of(text))) for text in prompts}) > 1:
        raise InputError(
            f"{where}: some prompts of the task {task} are about other cells than the rest; name "
            f"{' or '.join(f'{{{one}}}' for one in sorted(_OF_CELLS))} in all of them, or in none."
        )
    if (wanted := _ANSWERED.get(task)) is not None and wanted not in fields_of(str(answer)):
        raise InputError(
            f"{where}: the answer of the task {task} lacks {{{wanted}}}, where labels stand; name it there."
        )
    return Template(task, tuple(prompts), str(answer))
