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
from cellscribe.engine.output.run import count
from cellscribe.engine.sentences.templates import fields_of
from cellscribe.engine.text_model import LESS, NO_GENE, Progress, TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling

Rows = npt.NDArray[np.int64]

MIN_CELLS, MAX_CELLS = 5, 20  # of a group in one prompt
_DRAW = 14  # stream of the draws that choose the cells of a group
NO_GENES = "no gene is expressed in any of its cells"
_LESS = f"choose fewer cells (--cells, group_cells; at least {MIN_CELLS}), or {LESS.removeprefix('choose ')}"
_FEW = f"it has {{}} and a prompt takes at least {MIN_CELLS}"


@dataclass(frozen=True)
class Group:
    """Cells that are asked about together: a name, and rows int64 [n] of the source."""

    name: str
    rows: Rows


def groups_of(source: CellSource, column: str, num_cells: int, seed: int = 0) -> tuple[Group, ...]:
    """Return up to `num_cells` cells, drawn by name, of every value of an obs column, in the order of the first cells.

    A group of fewer cells than a prompt takes comes with those that it has; :func:`about_groups` lets it fail.

    Raises
    ------
    UsageError
        For a number of cells that no prompt takes.
    InputError
        When the column is missing, or every group has fewer cells than a prompt takes.
    """
    if not MIN_CELLS <= num_cells <= MAX_CELLS:
        raise UsageError(f"groups of {count(num_cells, 'cell')} are asked for; choose from {MIN_CELLS} to {MAX_CELLS}.")
    values = source.obs_column(column).astype(object)
    named = np.flatnonzero(values.notna().to_numpy())
    places, names = pd.factorize(values.iloc[named].map(str))
    if not len(names):
        raise InputError(f"the obs column {column} of {source.name} names no group; choose another column.")
    sizes = np.bincount(places, minlength=len(names))
    if sizes.max() < MIN_CELLS:
        raise InputError(
            f"the group {names[0]!r} of {column} has {count(int(sizes[0]), 'cell')} and a prompt takes at "
            f"least {MIN_CELLS}, which none of the groups has; choose a coarser column."
        )
    drawn = uniforms(stream_keys(seed, cell_keys(source.obs_names), _DRAW), np.zeros(source.n_cells, np.int64))
    order = named[np.lexsort((named, drawn[named], places))]  # group by group, those drawn first before the others
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return tuple(Group(str(name), np.sort(rows[:num_cells])) for name, rows in zip(names, parts, strict=True))


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
    fails, and so does one of fewer cells than a prompt takes. Answers name the cells of their prompt, in its order.
    """
    sizes = [len(group.rows) for group in groups]
    lost = {i: _FEW.format(count(size, "cell")) for i, size in enumerate(sizes) if size < MIN_CELLS}
    rows = np.unique(np.concatenate([np.empty(0, np.int64), *(group.rows for group in groups)]))
    names, texts = model.sentences(source, rows)
    prompts, members, filling = [], [], model.prompts
    for i, group in enumerate(groups):
        kept = [place for place in np.searchsorted(rows, group.rows).tolist() if texts[place] and i not in lost]
        members.append(tuple(names[place] for place in kept))
        sentences = [texts[place] for place in kept]
        prompts.append(filling.of_group(model.prompt_of(task, group.name), sentences, values))
        if not sentences:
            lost.setdefault(i, NO_GENES)
    found = model.answers(
        [group.name for group in groups], prompts, lost, labels=labels, sampling=sampling,
        max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress, mend=_LESS,
        frame=model.frame(task, values),
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
    check_text(model, question)
    names, sentences = model.sentences(source, rows)
    texts = question_prompts(model, question, sentences, values)
    empty = {i: NO_GENE for i, one in enumerate(sentences) if not one}
    return model.answers(
        names, texts, empty, labels=labels, sampling=sampling, max_new_tokens=max_new_tokens, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip


def question_prompts(
    model: TextModel, question: str, sentences: Sequence[str], values: Mapping[str, str] | None = None
) -> list[str]:
    """Put a question in a user's own words about every cell; parameters and errors as :func:`ask_cells`."""
    is_whole, prompts = check_text(model, question), model.prompts
    prompt = (
        question if is_whole else "Genes of one {organism} cell, most expressed first: {cell_sentence}\n" + question
    )
    return [prompts.of_cell(prompt, one, values) for one in sentences]


def check_text(model: TextModel, question: str) -> bool:
    """Say whether a question names the cell itself; UsageError for what is none."""
    if not question.strip():
        raise UsageError("the question is empty; write one.")
    try:
        is_whole = "cell_sentence" in fields_of(question)
    except ValueError as error:
        raise UsageError(f"the question has odd braces ({error}); write {{{{ for one.") from error
    model.prompts.check("the question", question)
    return is_whole
