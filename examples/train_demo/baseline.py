"""The yardstick: multinomial logistic regression on the log-normalised values of all 765 genes, same split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cells import Cells, folds, load, split
from sklearn.linear_model import LogisticRegression

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def linear_model(strength: float) -> LogisticRegression:
    """Return an untrained model; `strength` is the inverse of the L2 penalty."""
    return LogisticRegression(C=strength, max_iter=1000)


def choose_strength(train: Cells) -> float:
    """Choose the penalty by five-fold cross-validation inside the training cells."""
    return max(STRENGTHS, key=lambda strength: cross_validated(train, strength))


def cross_validated(train: Cells, strength: float) -> float:
    """Return the mean accuracy over the folds."""
    scores = []
    for fit, check in folds(train):
        model = linear_model(strength).fit(train.expression[fit], train.labels[fit])
        scores.append(model.score(train.expression[check], train.labels[check]))
    return float(np.mean(scores))


def predict_held_out() -> tuple[npt.NDArray[np.str_], float]:
    """Return the labels given to the held-out cells, in file order, and the penalty chosen."""
    cells = load()
    train, held_out = (cells.take(rows) for rows in split(cells))
    strength = choose_strength(train)
    return linear_model(strength).fit(train.expression, train.labels).predict(held_out.expression), strength


if __name__ == "__main__":
    guesses, chosen = predict_held_out()
    all_cells = load()
    truth = all_cells.labels[split(all_cells)[1]]
    print(f"logistic regression, C = {chosen:g}: {np.mean(guesses == truth):.1%} of {len(truth)} held-out cells")
