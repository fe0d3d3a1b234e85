"""Lists of labels, with Cell Ontology ids where they are known, and what was decided by them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import CellscribeError, UsageError

TERM = re.compile(r"CL:\d{7}")


@dataclass(frozen=True)
class Labels:
    """Names of labels, their Cell Ontology ids and definitions, each "" where none was given."""

    names: tuple[str, ...]
    term_ids: tuple[str, ...]
    definitions: tuple[str, ...] = ()

    @property
    def has_definitions(self) -> bool:
        """Whether every label has one."""
        return bool(self.definitions) and all(self.definitions)

    @property
    def has_terms(self) -> bool:
        """Whether any id was given."""
        return any(self.term_ids)


@dataclass(frozen=True, eq=False)
class Votes:
    """What the clusters of N cells voted: cluster and label of each cell ("" for none), and the share that agreed.

    `share` is float32 [N], NaN where there is no label.
    """

    clusters: tuple[str, ...]
    chosen: tuple[str, ...]
    share: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labels of N cells.

    Parameters
    ----------
    labels
        What could be chosen; None where answers were free.
    chosen
        The label of each cell, "" where it failed.
    score
        How likely it was among the labels (0..1), or by itself where answers were free; float32 [N].
    margin
        How far the next label's score lies below, float32 [N]; None where only the best was worked out.
    scores
        Of all labels, float32 [N, L]; None likewise.
    votes
        Of clusters, where they were asked for.
    answers
        What a model said where the label was found in its words [N]; empty otherwise.
    """

    labels: Labels | None
    chosen: tuple[str, ...]
    score: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32] | None = None
    scores: npt.NDArray[np.float32] | None = None
    votes: Votes | None = None
    answers: tuple[str, ...] = ()

    @classmethod
    def of_scores(cls, labels: Labels, chosen: tuple[str, ...], scores: npt.NDArray[np.float32]) -> Labelled:
        """Work score and margin out of the scores of all labels, float32 [N, L], NaN where a cell failed."""
        falling = -np.sort(-scores, axis=1)
        margin = falling[:, 0] - falling[:, 1] if scores.shape[1] > 1 else falling[:, 0]
        return cls(labels, chosen, falling[:, 0], margin, scores)

    @property
    def runners_up(self) -> tuple[str, ...]:
        """The second best label of each cell, "" where it is not known."""
        if self.scores is None or self.labels is None or len(self.labels.names) < 2:
            return ("",) * len(self.chosen)
        second = np.argsort(-self.scores, axis=1, kind="stable")[:, 1]
        is_lost = np.isnan(self.scores.sum(axis=1))
        return tuple("" if is_lost[row] else self.labels.names[place] for row, place in enumerate(second.tolist()))

    @property
    def term_ids(self) -> tuple[str, ...]:
        """The Cell Ontology id of each cell's label, "" where there is none."""
        found = {} if self.labels is None else dict(zip(self.labels.names, self.labels.term_ids, strict=True))
        return tuple(found.get(name, "") for name in self.chosen)


def labels_of(given: Labels | Mapping[str, str | None] | Sequence[str] | None) -> Labels | None:
    """Make labels of names, or of a mapping of names to Cell Ontology ids (None for none); None of None.

    Raises
    ------
    UsageError
        When there is no label, one is no text or empty, two are alike, or an id is none.
    """
    if given is None or isinstance(given, Labels):
        return given
    if not isinstance(given, Iterable):
        raise UsageError(f"labels is {given!r}; give a list of names, or a mapping of names to ids.")
    pairs = list(given.items()) if isinstance(given, Mapping) else [(name, None) for name in given]
    if not pairs:
        raise UsageError("there are no labels; give one at least, or leave them out.")
    bad = next((one for pair in pairs for one in pair if one is not None and not isinstance(one, str)), None)
    if bad is not None or any(name is None for name, _ in pairs):
        raise UsageError(f"labels has {bad!r}, which is no text; give names.")
    return checked_labels([(name.strip(), (term or "").strip(), "") for name, term in pairs], "labels", UsageError)


def with_definitions(labels: Labels, wanted: bool) -> Labels:
    """Return labels whose texts have their definitions, or do not.

    Raises
    ------
    UsageError
        When definitions are wanted and a label has none.
    """
    if not wanted:
        return Labels(labels.names, labels.term_ids)
    if not labels.has_definitions:
        pairs = zip(labels.names, labels.definitions or ("",) * len(labels.names), strict=True)
        first = next(name for name, told in pairs if not told)
        raise UsageError(
            f"--definitions (definitions) asks for them and the label {first!r} has none; give it one (.tsv, .json or "
            ".obo), or leave the option out."
        )
    return labels


def twice(names: Sequence[str]) -> str:
    """Say which two names are alike but for case and spaces; empty when none are."""
    seen: dict[str, str] = {}
    for name in names:
        plain = " ".join(name.casefold().split())
        other = seen.get(plain)
        if other == name:
            return f"the label {name!r} is there twice; give each once."
        if other is not None:
            return f"the labels {other!r} and {name!r} differ in case or spaces alone; keep one."
        seen[plain] = name
    return ""


def checked_labels(rows: Sequence[tuple[str, str, str]], where: str, kind: type[CellscribeError]) -> Labels:
    """Make labels of names, ids and definitions ("" for none); raise `kind` where they are none."""
    names = [name for name, _, _ in rows]
    problem = "" if all(names) else "a label has no name; give it one, or leave it out."
    problem = problem or twice(names)
    if problem:
        raise kind(f"{where}: {problem}")
    wrong = next((term for _, term, _ in rows if term and not TERM.fullmatch(term)), None)
    if wrong is not None:
        raise kind(f"{where} gives the id {wrong!r}, which is none of the Cell Ontology; write it as CL:0000236.")
    told = tuple(told for _, _, told in rows)
    return Labels(tuple(names), tuple(term for _, term, _ in rows), told if any(told) else ())
