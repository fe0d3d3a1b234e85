"""Scores of labels for a cell, as LangCell's zero-shot annotation mixes them.

The similarity of vectors over a temperature of 0.05, and the probabilities that texts match the cell, each pass a
softmax over all labels; the score is ``alpha`` times the first plus ``1 - alpha`` times the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import UsageError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Match = Callable[[Ints], Floats]

TEMPERATURE = 0.05
_AT_ONCE = 8  # texts that are matched before it is asked whether the label is sure


@dataclass(frozen=True)
class ZeroShot:
    """How labels are scored.

    Parameters
    ----------
    alpha
        Weight of the similarity, 0 to 1; 1 matches no text.
    rerank
        ``all``: every text is matched with every cell. A number: the so many most similar ones, and the others count as
        not matching at all. ``sure``: texts in order of similarity until no other one can win, whatever its match; the
        label is that of ``all``, and its score is known from below only.

    Raises
    ------
    UsageError
        For a value out of range.
    """

    alpha: float = 0.1
    rerank: int | Literal["all", "sure"] = "all"

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise UsageError(f"alpha is {self.alpha:g}; choose a weight of the similarity from 0 to 1.")
        if self.rerank not in ("all", "sure") and (type(self.rerank) is not int or self.rerank < 1):
            raise UsageError(f"rerank is {self.rerank!r}; choose all, sure, or how many texts to match, from 1 on.")


@dataclass(frozen=True, eq=False)
class LabelScores:
    """The label of a cell by its place, its score, the scores of all labels float32 [L] where they are all known."""

    best: int
    score: float
    every: Floats | None
    num_matched: int


def label_scores(cell: Floats, texts: Floats, match: Match, how: ZeroShot, threshold: float = 0.0) -> LabelScores:
    """Score labels for a cell.

    Parameters
    ----------
    cell, texts
        Vectors of length 1: float32 [p] and [L, p].
    match
        Returns the probability that each of some texts, by their places, fits the cell.
    threshold
        A score; a label that is sure is also known to reach it, or not to.
    """
    similar = softmax((texts.astype(np.float64) @ cell.astype(np.float64)) / TEMPERATURE)
    if how.rerank == "sure" and how.alpha < 1.0:
        return _sure(similar, match, how.alpha, threshold)
    matched = np.zeros(len(texts))
    order = np.argsort(-similar, kind="stable")
    chosen = order if isinstance(how.rerank, str) else order[: how.rerank]
    if how.alpha < 1.0:
        chosen = np.sort(chosen)
        matched[chosen] = match(chosen)
        scores = how.alpha * similar + (1.0 - how.alpha) * softmax(matched)
    else:
        chosen, scores = chosen[:0], similar
    best = int(scores.argmax())
    return LabelScores(best, float(scores[best]), scores.astype(np.float32), len(chosen))


def softmax(x: Doubles) -> Doubles:
    """Return exp(x) over its sum, [L]."""
    powers = np.exp(x - x.max())
    found: Doubles = powers / powers.sum()
    return found


def _sure(similar: Doubles, match: Match, alpha: float, threshold: float) -> LabelScores:
    """Match texts until the label is sure, and on which side of the threshold its score lies.

    The score of a text is ``alpha * similar + (1 - alpha) * exp(p) / total`` with p from 0 to 1, so that what is not
    matched yet lies between bounds, and so does the total. The difference of two scores is linear in one over the
    total: what holds at both ends of its range holds within.
    """
    order = np.argsort(-similar, kind="stable")
    powers = np.full(len(similar), np.e)  # the most that a text which is not matched can have
    known = 0
    while True:
        some = np.sort(order[known : known + _AT_ONCE])
        powers[some] = np.exp(match(some).astype(np.float64))
        known += len(some)
        done, left = order[:known], order[known:]
        least, most = (powers[done].sum() + len(left) * one for one in (1.0, np.e))
        ends = [alpha * similar + (1.0 - alpha) * powers / total for total in (least, most)]
        best = int(done[ends[0][done].argmax()])
        if not len(left):
            return LabelScores(best, float(ends[0][best]), ends[0].astype(np.float32), known)
        is_sided = ends[0][best] < threshold or ends[1][best] >= threshold
        if is_sided and all(_wins(one, best) for one in ends):
            return LabelScores(best, float(ends[1][best]), None, known)


def _wins(scores: Doubles, best: int) -> bool:
    """Whether a label is above all others."""
    others = np.delete(scores, best)
    return bool((scores[best] > others).all())
