"""Instructions of InstructCell's tasks, ours or a user's, and which of them fits what is known of a cell."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.keyed import cell_keys, stream_keys, uniforms
from cellscribe.engine.sentences.templates import check_tasks, checked_fields, fields_of, fill, read_json

ANNOTATION, SENSITIVITY, GENERATION = "cell_type_annotation", "drug_sensitivity_prediction", "cell_generation"
TASKS = (ANNOTATION, SENSITIVITY, GENERATION)
FIELDS = ("cell", "species", "tissue", "sequencing_method", "drug", "cell_type", "choices")
CELL = "cell"
OWN = "of your own"  # the task of an instruction in a user's own words
_UPSTREAM = {"input": CELL}  # names of InstructCell's own template files that differ from ours
_OPTIONS = {"cell_type": "--cell-type (cell_type)", "tissue": "--tissue (fields)"}  # of generate
_DRAW = 15  # stream of the draws that choose an instruction


@dataclass(frozen=True)
class Chosen:
    """An instruction with its values in place, the cell still ``{cell}``, and the names of its fields."""

    text: str
    fields: frozenset[str]


@dataclass(frozen=True)
class Instructions:
    """The ways to ask for one task, those that say most first."""

    task: str
    prompts: tuple[str, ...]

    def choose(self, number: int | None, known: Mapping[str, str], key: str = "", seed: int | None = None) -> str:
        """Return the text of :meth:`pick`."""
        return self.pick(number, known, key, seed).text

    def pick(self, number: int | None, known: Mapping[str, str], key: str = "", seed: int | None = None) -> Chosen:
        """Return one and fill it: of that `number`; or drawn by seed and key; or the first that lacks nothing.

        Parameters
        ----------
        number
            From 0 on; None where it is not chosen.
        known
            Values of fields; the cell stays ``{cell}``.
        key, seed
            A cell's name, and the key of the draw; None draws nothing.

        Raises
        ------
        UsageError
            When there is none of that number, or each of them lacks a value.
        """
        fitting = self.candidates(number, known, seed is not None)
        if seed is not None and len(fitting) > 1:
            drawn = uniforms(stream_keys(seed, cell_keys([key]), _DRAW), np.zeros(1, np.int64))
            fitting = fitting[int(drawn[0] * len(fitting)) :]
        return Chosen(fill(fitting[0], {**known, CELL: f"{{{CELL}}}"}), frozenset(fields_of(fitting[0])))

    def candidates(self, number: int | None, known: Collection[str], draws: bool) -> tuple[str, ...]:
        """Return what :meth:`pick` chooses from, with the same errors: one, or where one is drawn all that fit."""
        if number is not None:
            if not 0 <= number < len(self.prompts):
                raise UsageError(
                    f"the task {self.task} has instructions 0 to {len(self.prompts) - 1} and {number} was asked for; "
                    "choose one of them."
                )
            return (self.prompts[number],)
        values = {*known, CELL}
        fitting = tuple(one for one in self.prompts if values.issuperset(fields_of(one)))
        if not fitting:
            lacking = sorted(set(fields_of(self.prompts[-1])) - values)
            how = "--set NAME=TEXT (fields), or as a column of obs"
            if self.task == GENERATION:  # no cell is there yet
                how = " and ".join(_OPTIONS.get(one, f"--set {one}=TEXT (fields)") for one in lacking)
            raise UsageError(
                f"the task {self.task} needs a value for {' and '.join(f'{{{one}}}' for one in lacking)}; give it with "
                f"{how}."
            )
        return fitting if draws else fitting[:1]

    def named(self, number: int | None, known: Collection[str], draws: bool) -> frozenset[str]:
        """Return the names of the fields of :meth:`candidates`."""
        return frozenset(name for one in self.candidates(number, known, draws) for name in fields_of(one))


def own_instruction(text: str) -> Instructions:
    """Return an instruction in a user's own words; fields in braces as :data:`FIELDS`.

    Braces that are no fields, as those of JSON, are handed on; the tokenizer of a T5 knows none
    (:mod:`cellscribe.engine.instruct.unread`).

    Raises
    ------
    UsageError
        When it names a field that is not known, or leaves a brace open.
    """
    try:
        names = fields_of(text)
    except ValueError as error:
        if not _is_closed(text):
            raise UsageError(f"the instruction has odd braces ({error}); write {{{{ for one.") from error
        return Instructions(OWN, (_literal(text),))
    unknown = next((name for name in names if name not in FIELDS), None)
    if unknown is not None and unknown.isidentifier():
        raise UsageError(
            f"the instruction names {{{unknown}}}; known are {', '.join(FIELDS)} (write {{{{ and }}}} for braces)."
        )
    return Instructions(OWN, (text if unknown is None else _literal(text),))


def _is_closed(text: str) -> bool:
    """Whether every brace that opens is closed, and the other way round."""
    depths = list(accumulate((one == "{") - (one == "}") for one in text))
    return min(depths, default=0) >= 0 and depths[-1:] in ([], [0])


def _literal(text: str) -> str:
    """Double the braces, but for the cell's."""
    return text.replace("{", "{{").replace("}", "}}").replace(f"{{{{{CELL}}}}}", f"{{{CELL}}}")


def packaged_instructions() -> dict[str, Instructions]:
    """Return our own instructions by task."""
    text = files("cellscribe.engine.instruct").joinpath("templates.json").read_text(encoding="utf-8")
    return _parsed(json.loads(text), "templates.json")


def instructions_with(path: Path | None, task: str | None = None) -> dict[str, Instructions]:
    """Return our own instructions, those of a file (:func:`read_instructions`) in their place where there is one."""
    return packaged_instructions() | ({} if path is None else read_instructions(path, task))


def read_instructions(path: Path, task: str | None = None) -> dict[str, Instructions]:
    """Read a file of instructions.

    Parameters
    ----------
    path
        ``{task: [text, ...]}`` with fields in braces as :data:`FIELDS`; or a list as InstructCell's own files hold,
        ``[{"instruction": text, ...}, ...]`` with ``{input}`` for the cell.
    task
        What is asked, which the file must have texts for, and what such a list is for. For None one of our tasks must
        be there, and a list is looked at: texts without a cell are for generation, those with ``{drug}`` for drug
        sensitivity, others for cell types.

    Raises
    ------
    InputError
        When it cannot be read, has nothing for the task, or names a field that is not known.
    """
    raw = read_json(path)
    if isinstance(raw, list):
        texts = [one.get("instruction") if isinstance(one, dict) else one for one in raw]
        raw = {task or _task_of(texts): texts}
    found = _parsed(raw, str(path))
    if task is None:
        check_tasks(path, found, TASKS)
    elif task not in found:
        raise InputError(
            f"{path} has nothing for the task {task}, only for {', '.join(found)}; add it, or leave the file out."
        )
    return found


def _task_of(texts: Sequence[Any]) -> str:
    """Tell what a list of texts is for by the fields that it names."""
    every = " ".join(one for one in texts if isinstance(one, str))
    if not any(f"{{{name}}}" in every for name in (CELL, *_UPSTREAM)):
        return GENERATION
    return SENSITIVITY if "{drug}" in every else ANNOTATION


def _parsed(raw: Any, where: str) -> dict[str, Instructions]:
    if not isinstance(raw, dict) or not raw:
        raise InputError(f"{where} holds no tasks; give a task's name with a list of instructions.")
    return {str(task): Instructions(str(task), tuple(_texts(str(task), one, where))) for task, one in raw.items()}


def _texts(task: str, raw: Any, where: str) -> Sequence[str]:
    if not isinstance(raw, list) or not raw or not all(isinstance(one, str) and one.strip() for one in raw):
        raise InputError(f"{where}: the task {task} must be a list of texts.")
    found = []
    for text in raw:
        for theirs, ours in _UPSTREAM.items():
            text = text.replace(f"{{{theirs}}}", f"{{{ours}}}")
        names = checked_fields(text, task, where, FIELDS)
        if task == GENERATION and CELL in names:
            raise InputError(
                f"{where}: a text of the task {task} names {{{CELL}}} ({{input}}), and no cell is there before one is "
                "written; leave it out, or take a file of instructions for written cells."
            )
        if task != GENERATION and names.count(CELL) != 1:
            raise InputError(f"{where}: a text of the task {task} must name {{{CELL}}} once, where the cell belongs.")
        found.append(text)
    return found
