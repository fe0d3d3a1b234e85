"""A question about cells or groups of them, in a user's own words or by a task, and its answers as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.sentences.known import checked_names
from cellscribe.engine.sentences.templates import About, Template, fields_of, known_task
from cellscribe.engine.text_groups import about_groups, ask_cells, fill_task, groups_of
from cellscribe.engine.text_model import Progress, TextModel
from cellscribe.engine.text_types import Answer, cut_note
from cellscribe.engine.types import Sampling

_OF_CELLS = ("cell_sentence", "cell_sentences", "num_cells")  # what the cells themselves say, where there are any


@dataclass(frozen=True)
class Question:
    """What is asked.

    Parameters
    ----------
    text
        A question in own words; ``{cell_sentence}`` stands for a cell's genes.
    task
        A task of the templates in its place.
    by
        An obs column: its groups are asked about, not single cells; this takes a task about groups.
    group_cells
        Cells of a group in one prompt, 5 to 20.
    fields
        More values for the prompt, as ``{"tissue": "blood"}``.

    Raises
    ------
    UsageError
        Unless either `text` or `task` is given, or for groups without a task.
    """

    text: str | None = None
    task: str | None = None
    by: str | None = None
    group_cells: int = 10
    fields: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.text is None) == (self.task is None):
            raise UsageError("ask takes a question or --task (task); give one of them.")
        if self.by is not None and self.task is None:
            raise UsageError(
                "--by (by) asks about groups, which needs a task; give --task (task), as in tissue_prediction."
            )


def ask(
    model: TextModel,
    source: CellSource | None,
    question: Question,
    *,
    limit: int | None = None,
    labels: Sequence[str] | None = None,
    sampling: Sampling | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> tuple[Answer, ...]:
    """Answer a question about every cell, or every group; once where a task is about no cells.

    Parameters
    ----------
    source
        The cells; None for a task about none of them.
    limit
        Only the first so many cells or groups.
    labels
        What answers must be one of; None leaves the model free.

    Raises
    ------
    UsageError
        For an unknown task, one about groups without them or about cells with them, no cells where it takes some, a
        value that the prompt lacks, or one that it has no place for.
    InputError
        For an unknown column, groups that all have fewer cells than a prompt takes, or genes of which none is known.
    """
    about = check_question(question, model.tasks)
    if about == "nothing" and question.task is not None:
        prompt = fill_task(model, question.task, question.task, question.fields)
        found = model.answers(
            [question.task], [prompt], labels=labels, sampling=sampling, max_new_tokens=max_new_tokens,
            batch_size=batch_size, progress=progress, frame=model.frame(question.task, question.fields),
        )  # fmt: skip
        _note(model, "", model.notice, cut_note(found, max_new_tokens))
        return found
    if source is None:
        raise UsageError("what is asked is about cells, and none are given; give CELLS (cells).")
    genes = checked_names(source, model.settings.organism)
    found = _about_cells(
        model, source, question, limit=limit, labels=labels, sampling=sampling, max_new_tokens=max_new_tokens,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    _note(model, genes.warning if genes else "", model.notice, cut_note(found, max_new_tokens))
    return found


def _note(model: TextModel, *said: str) -> None:
    model.notice = " ".join(one for one in said if one)


def _about_cells(
    model: TextModel,
    source: CellSource,
    question: Question,
    *,
    limit: int | None,
    labels: Sequence[str] | None,
    sampling: Sampling | None,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None,
) -> tuple[Answer, ...]:
    if question.by is not None and question.task is not None:
        groups = groups_of(source, question.by, question.group_cells, model.settings.seed)[:limit]
        return about_groups(
            model, source, groups, question.task, values=question.fields, labels=labels, sampling=sampling,
            max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress,
        )  # fmt: skip
    rows = np.arange(source.n_cells)[:limit]
    if question.text is not None:
        return ask_cells(
            model, source, question.text, rows=rows, values=question.fields, labels=labels, sampling=sampling,
            max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress,
        )  # fmt: skip
    return model.about_cells(
        source, str(question.task), rows=rows, values=question.fields, labels=labels, sampling=sampling,
        max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress,
    )  # fmt: skip


def answers_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """Lay answers out, one row each.

    Columns: ``name``, ``answer``, ``logprob`` (summed over its tokens), ``finish_reason`` ("stop", "length" where the
    limit of tokens cut it off, "failed") and ``status``. Answers about groups have ``cells``, too: the names of those
    in the prompt, one a line in its order.
    """
    found = pd.DataFrame(
        {
            "name": pd.Series([one.name for one in answers], dtype=object),
            "answer": pd.Series([one.text for one in answers], dtype=object),
            "logprob": np.array([one.logprob for one in answers], np.float64),
            "finish_reason": pd.Series([one.finish_reason for one in answers], dtype=object),
            "status": pd.Series([one.status for one in answers], dtype=object),
        }
    )
    if any(one.cells for one in answers):
        found["cells"] = pd.Series(["\n".join(one.cells) for one in answers], dtype=object)
    return found


def check_question(question: Question, tasks: Mapping[str, Template]) -> About:
    """Return what is asked about.

    Raises
    ------
    UsageError
        For an unknown task, one about groups without them or about cells with them, or a value that the prompt has no
        place for.
    """
    about: About = "cell" if question.task is None else _checked_kind(question, known_task(tasks, question.task))
    _check_fields(question, tasks, about)
    return about


def _checked_kind(question: Question, task: Template) -> About:
    """Return what a task is about; refuse one about groups without groups, and any other with them."""
    about = task.about
    if question.by is None and about == "group":
        raise UsageError(f"the task {question.task} is about groups of cells; add --by COLUMN (by), one of obs.")
    if question.by is not None and about != "group":
        raise UsageError(f"the task {question.task} is not about groups of cells; leave --by (by) out.")
    return about


def _check_fields(question: Question, tasks: Mapping[str, Template], about: About) -> None:
    """Refuse values that no prompt has a place for, and those that the cells give."""
    try:
        prompts = (question.text,) if question.text is not None else tasks[str(question.task)].prompts
        known = {name for one in prompts for name in fields_of(one)}
    except ValueError:
        return  # odd braces, which asking says more about
    free = known if about == "nothing" else known.difference(_OF_CELLS)
    for name in question.fields:
        if name not in free:
            raise UsageError(
                f"--set (fields) gives {name!r}, which the prompt has no place for; what can be set: "
                f"{', '.join(sorted(free)) or 'none'}."
            )
