"""Tasks about groups of cells, and questions in own words: what is put into their prompts, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import InputError, UsageError
from cellscribe.engine.keyed import cell_keys, stream_keys, uniforms
from cellscribe.engine.sentences.templates import fields_of
from cellscribe.engine.text_model import NO_GENE, Progress, TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling

Rows = npt.NDArray[np.int64]

MIN_CELLS, MAX_CELLS = 5, 20  # of a group in one prompt
_DRAW = 14  # stream of the draws that choose the cells of a group
NO_GENES = "no gene is expressed in any of its cells"


@dataclass(frozen=True)
class Group:
    """Cells that are asked about together: a name, and rows int64 [n] of the source."""

    name: str
    rows: Rows


def groups_of(source: CellSource, column: str, num_cells: int, seed: int = 0) -> tuple[Group, ...]:
    """Return up to `num_cells` cells, drawn by name, of every value of an obs column.

    Raises
    ------
    UsageError
        For a number of cells that no prompt takes.
    InputError
        When the column is missing, or a group has fewer cells than a prompt takes.
    """
    if not MIN_CELLS <= num_cells <= MAX_CELLS:
        raise UsageError(f"{num_cells} cells of a group are asked for; choose from {MIN_CELLS} to {MAX_CELLS}.")
    values = source.obs_column(column).astype(object)
    names = values[values.notna()].map(str)
    drawn = uniforms(stream_keys(seed, cell_keys(source.obs_names), _DRAW), np.zeros(source.n_cells, np.int64))
    found = []
    for name in pd.unique(names):
        rows = np.flatnonzero((values.map(str) == name).to_numpy() & values.notna().to_numpy())
        if len(rows) < MIN_CELLS:
            raise InputError(
                f"the group {name!r} of {column} has {len(rows)} cells and a prompt takes at least {MIN_CELLS}; "
                "leave such groups out, or choose a coarser column."
            )
        found.append(Group(str(name), np.sort(rows[np.argsort(drawn[rows], kind="stable")[:num_cells]])))
    if not found:
        raise InputError(f"the obs column {column} of {source.name} names no group; choose another column.")
    return tuple(found)


def about_groups(
    model: TextModel,
    source: CellSource,
    groups: Sequence[Group],
    task: str,
    *,
    values: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    sampling: Sampling | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> tuple[Answer, ...]:
    """Answer a task about every group; see :meth:`TextModel.about_cells`.

    Cells that express nothing are left out of the prompt, and of the cells that it counts; a group of nothing else
    fails. Answers name the cells of their prompt, in its order.
    """
    prompts, empty, members = [], {}, []
    for i, group in enumerate(groups):
        kept = [(name, one) for name, one in zip(*model.sentences(source, group.rows), strict=True) if one]
        members.append(tuple(name for name, _ in kept))
        sentences = [one for _, one in kept]
        prompts.append(model.prompts.of_group(model.prompt_of(task, group.name), sentences, values))
        if not sentences:
            empty[i] = NO_GENES
    names = [group.name for group in groups]
    found = model.answers(
        names, prompts, empty, labels=labels, sampling=sampling, max_new_tokens=max_new_tokens, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    return tuple(replace(one, cells=mine) for one, mine in zip(found, members, strict=True))


def fill_task(model: TextModel, task: str, key: str, values: Mapping[str, Any]) -> str:
    """Fill the prompt of a task about no cells."""
    return model.prompts.of_nothing(model.prompt_of(task, key), values)


def ask_cells(
    model: TextModel,
    source: CellSource,
    question: str,
    *,
    rows: Rows | None = None,
    values: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    sampling: Sampling | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> tuple[Answer, ...]:
    """Put a question in a user's own words about every cell.

    Parameters
    ----------
    question
        Its ``{cell_sentence}`` becomes the cell's genes; without one they are put before it.
    values
        More values for the prompt.

    Raises
    ------
    UsageError
        When the question is empty, names another value in braces, or holds a token that is no text to the model.
    """
    if not question.strip():
        raise UsageError("the question is empty; write one.")
    try:
        is_whole = "cell_sentence" in fields_of(question)
    except ValueError as error:
        raise UsageError(f"the question has odd braces ({error}); write {{{{ for one.") from error
    prompts = model.prompts
    prompts.check("the question", question)
    prompt = (
        question if is_whole else "Genes of one {organism} cell, most expressed first: {cell_sentence}\n" + question
    )
    names, sentences = model.sentences(source, rows)
    texts = [prompts.of_cell(prompt, one, values) for one in sentences]
    empty = {i: NO_GENE for i, one in enumerate(sentences) if not one}
    return model.answers(
        names, texts, empty, labels=labels, sampling=sampling, max_new_tokens=max_new_tokens, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
