"""The yardsticks: the commonest type, the nearest centroid and logistic regression, each on one set by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sets import CellSet, Split
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.neighbors import NearestCentroid

from cellscribe.engine.keyed import stream_keys
from cellscribe.engine.sentences.ranked import rank_genes
from cellscribe.engine.sentences.transform import TIES

Floats = npt.NDArray[np.float32]
STRENGTHS = (0.03, 0.1, 0.3)
WORD_STRENGTHS = (1.0, 3.0, 10.0)
TEACHER_C = 0.1


def out_of_fold(cells: CellSet, folds: int = 5) -> tuple[npt.NDArray[np.str_], Floats]:
    """Return the labels [L] and what a linear model that did not see the cell gives each of them [N, L]."""
    chances = cross_val_predict(
        _linear(TEACHER_C), cells.expression, cells.labels, cv=_folds(folds), method="predict_proba"
    )
    return np.unique(cells.labels), chances.astype(np.float32)


def certain(cells: CellSet) -> tuple[npt.NDArray[np.str_], Floats]:
    """Return the labels [L], and 1 for each cell's own, [N, L]."""
    labels = np.unique(cells.labels)
    return labels, (labels[None] == cells.labels[:, None]).astype(np.float32)


def judge(split: Split, num_genes: int) -> dict[str, npt.NDArray[np.str_]]:
    """Return the label that each yardstick gives each held-out cell.

    Settings are chosen by cross-validation inside the training cells. Expression is log1p of counts per 10,000, of the
    genes that at least three training cells express; words are the first `num_genes` of the sentence, weighted by
    1 / log2(rank + 2): what the language model reads.
    """
    train, held_out = split.train, split.held_out
    names, counts = np.unique(train.labels, return_counts=True)
    kept = np.flatnonzero(train.counts.getnnz(0) >= 3)
    fit, asked = train.expression[:, kept], held_out.expression[:, kept]
    words = word_features(train, num_genes), word_features(held_out, num_genes)
    return {
        "majority": np.full(len(held_out), names[counts.argmax()]),
        "nearest_centroid": NearestCentroid().fit(fit.toarray(), train.labels).predict(asked.toarray()),
        "logistic_regression": _best(fit, train.labels, STRENGTHS).predict(asked),
        "logistic_regression_on_sentences": _best(words[0], train.labels, WORD_STRENGTHS).predict(words[1]),
    }


def word_features(cells: CellSet, num_genes: int) -> sparse.csr_matrix:
    """Return the sentences as weighted words, CSR [N, G]."""
    ranked = rank_genes(cells.part(), cells.genes, stream_keys(0, cells.keys, TIES), num_genes)
    shape = (len(cells), len(cells.genes.words))
    return sparse.csr_matrix((1 / np.log2(ranked.ranks + 2), ranked.genes, ranked.indptr), shape=shape)


def _best(
    features: sparse.csr_matrix, labels: npt.NDArray[np.str_], strengths: tuple[float, ...]
) -> LogisticRegression:
    score = {c: cross_val_score(_linear(c), features, labels, cv=_folds(4)).mean() for c in strengths}
    return _linear(max(strengths, key=score.__getitem__)).fit(features, labels)


def _linear(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=300)


def _folds(count: int) -> StratifiedKFold:
    return StratifiedKFold(count, shuffle=True, random_state=0)
