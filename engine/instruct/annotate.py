"""Labels of cells from a bundle that follows instructions: one of a list, free, or found in what it says in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.answers import label_in
from cellscribe.engine.instruct.asking import AskSettings
from cellscribe.engine.instruct_model import InstructModel, Progress, Rows
from cellscribe.engine.labels import Labelled, Labels
from cellscribe.engine.output.run import Run
from cellscribe.engine.text_annotate import check_scores, described_answer, label_probabilities
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Description

NO_LABEL = "the answer names no label of the list, or several"
EMPTY = "the answer is empty"
CUT = "the answer was cut off by the limit of tokens; allow more (--max-new-tokens, max_new_tokens)"


def annotate_cells(
    model: InstructModel,
    source: CellSource,
    *,
    rows: Rows | None = None,
    labels: Labels | None = None,
    asked: AskSettings | None = None,
    all_scores: bool = False,
    in_words: bool = False,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Run:
    """Label cells; see :meth:`InstructModel.about_cells`.

    A score is the probability of the label's tokens among those that a label could go on with; of a free answer the
    probability of all its tokens, which falls with their number. With `all_scores` every label gets one, they sum to 1,
    and the best is taken. With `in_words` the model answers freely, as a chat model was trained to, and the label is
    what its answer names (:func:`cellscribe.engine.instruct.answers.label_in`), while the score is that of the whole
    answer; the answers are kept beside the labels, to be read where it matters. An answer that the limit of tokens cut
    off is no label, and one at its end is not looked for.

    Raises
    ------
    UsageError
        When a list is needed and there is none, for scores of all labels of answers in words, and as
        :meth:`InstructModel.about_cells`.
    """
    check_wishes(labels is not None, all_scores, in_words)
    rows = source.checked_rows(rows)
    asked = asked or AskSettings()
    found = model.about_cells(
        source,
        asked,
        rows=rows,
        labels=None if labels is None or in_words else labels.names,
        choices=None if labels is None else labels.names,
        all_labels=all_scores,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    described, labelled = labelled_answers(found, labels, all_scores, in_words)
    settings = model.settings_of(
        source, **asked.provenance(), in_words=in_words, scores=all_scores, max_new_tokens=max_new_tokens
    )
    report = {"sentence": model.cells(source).sentence(), "num_found": model.cells(source).num_found}
    return Run(rows, described, gene_report=report, settings=settings, labels=labelled, notice=model.notice)


def labelled_answers(
    found: Sequence[Answer], labels: Labels | None, all_scores: bool, in_words: bool = False
) -> tuple[tuple[Description, ...], Labelled]:
    """Return how each answer went, and the labels that the answers are, or name."""
    described, chosen = tuple(map(described_answer, found)), tuple(one.text for one in found)
    if labels is None or in_words:
        chosen = tuple(_label_of(one, labels if in_words else None) for one in found)
    described = tuple(
        one if name or not one.is_ok else _unlabelled(one) for one, name in zip(described, chosen, strict=True)
    )
    if all_scores and labels is not None:
        return described, Labelled.of_scores(labels, chosen, label_probabilities(found, len(labels.names)))
    score = np.exp(np.array([one.logprob for one in found], np.float32))
    said = tuple(one.text for one in found) if in_words else ()
    score = np.where([bool(one) for one in chosen], score, np.nan).astype(np.float32)
    return described, Labelled(labels, chosen, score, answers=said)


def check_wishes(has_labels: bool, all_scores: bool, in_words: bool) -> None:
    """Raise UsageError for scores or labels in words without a list of labels, or for both at the same time."""
    check_scores(has_labels, all_scores)
    if in_words and not has_labels:
        raise UsageError("finding labels in answers needs a list of them; give --labels (labels).")
    if all_scores and in_words:
        raise UsageError("an answer in words has no score for every label; leave --scores or --in-words out.")


def _label_of(one: Answer, labels: Labels | None) -> str:
    """Return the label that an answer is or names; one that may be cut off is none."""
    if labels is not None:
        return label_in(one.whole_words, labels.names)
    return "" if one.is_cut else one.text


def _unlabelled(one: Description) -> Description:
    why = CUT if one.finish_reason == "length" else NO_LABEL if one.text else EMPTY
    return replace(one, status=f"failed: {why}")
