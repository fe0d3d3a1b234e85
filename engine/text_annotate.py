"""Labels of cells from a bundle that reads sentences, with the scores of all labels on request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.labels import Labelled, Labels
from cellscribe.engine.output.run import Run
from cellscribe.engine.sentences.known import gene_report
from cellscribe.engine.text_model import Progress, Rows, TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Description


def annotate_cells(
    model: TextModel,
    source: CellSource,
    *,
    rows: Rows | None = None,
    labels: Labels | None = None,
    all_scores: bool = False,
    max_new_tokens: int = 32,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Run:
    """Label cells; see :meth:`TextModel.about_cells`.

    A score is the probability of the label's tokens among those that a label could go on with; of a free answer
    the probability of its tokens. Scores of labels compare the labels of the list with each other: they change with the
    list and do not say whether any label fits. With `all_scores` every label of the list gets one, they sum to 1, the
    best is taken, and the margin is how far the next one lies below.

    Raises
    ------
    UsageError
        When all scores are asked for without a list, and as :meth:`TextModel.about_cells`.
    InputError
        When none of many genes has a name that is known (:func:`cellscribe.engine.sentences.known.gene_report`).
    """
    check_scores(labels is not None, all_scores)
    report = gene_report(source, model.settings.organism)
    rows = np.arange(source.n_cells) if rows is None else rows
    found = model.about_cells(
        source,
        rows=rows,
        labels=None if labels is None else labels.names,
        all_labels=all_scores,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    described, labelled = labelled_answers(found, labels, all_scores)
    settings = model.settings_of(source)
    return Run(rows, described, gene_report=report, settings=settings, labels=labelled, notice=model.notice)


def labelled_answers(
    found: Sequence[Answer], labels: Labels | None, all_scores: bool
) -> tuple[tuple[Description, ...], Labelled]:
    """Return how each answer went, and the labels that the answers are."""
    texts, described = tuple(one.text for one in found), tuple(map(described_answer, found))
    if all_scores and labels is not None:
        return described, Labelled.of_scores(labels, texts, label_probabilities(found, len(labels.names)))
    return described, Labelled(labels, texts, np.exp(np.array([one.logprob for one in found], np.float32)))


def check_scores(has_labels: bool, all_scores: bool) -> None:
    """Raise UsageError for scores of all labels without a list of them."""
    if all_scores and not has_labels:
        raise UsageError("the scores of all labels need a list of them; give --labels (labels).")


def described_answer(one: Answer) -> Description:
    """Return an answer as every text is told of."""
    mean = one.logprob / max(1, len(one.token_ids))
    return Description(one.name, one.text, one.token_ids, mean, finish_reason=one.finish_reason, status=one.status)


def label_probabilities(found: Sequence[Answer], num_labels: int) -> npt.NDArray[np.float32]:
    """Return the probabilities of all labels, float32 [N, L], NaN where a cell has no answer."""
    none = np.full(num_labels, np.nan, np.float32)
    return np.exp(np.stack([none if one.label_logprobs is None else one.label_logprobs for one in found]))
