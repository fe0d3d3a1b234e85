from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.atlas.where import Condition
from cellscribe.engine.errors import InputError, UsageError

FRAME = pd.DataFrame(
    {
        "tissue": pd.Categorical(["blood", "liver", None, "blood"]),
        "n_genes": [100, 600, 700, 800],
        "score": [0.5, np.nan, -1.0, 2.0],
        "is_doublet": [True, False, False, True],
        "cell type": ["T", "B", "B", "NK"],
        "batch": pd.Categorical([1, 2, 1, 2]),
    }
)


def holds(text: str) -> list[bool]:
    return Condition.parse(text).holds(lambda name: FRAME[name], len(FRAME)).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('tissue == "blood"', [True, False, False, True]),
        ('tissue != "blood"', [False, True, True, False]),
        ('"blood" == tissue', [True, False, False, True]),
        ("n_genes > 600", [False, False, True, True]),
        ("600 < n_genes", [False, False, True, True]),
        ("600 <= n_genes < 800", [False, True, True, False]),
        ("score >= -1", [True, False, True, True]),
        ("not is_doublet", [False, True, True, False]),
        ("is_doublet and n_genes > 500", [False, False, False, True]),
        ('tissue == "liver" or n_genes < 200', [True, True, False, False]),
        ('`cell type` in ["B", "NK"]', [False, True, True, True]),
        ('`cell type` not in ("B",)', [True, False, False, True]),
        ("batch == 2", [False, True, False, True]),
        ('not (tissue == "blood" and batch == 2)', [True, True, True, False]),
        ("n_genes > batch", [True, True, True, True]),
    ],
)
def test_conditions(text: str, expected: list[bool]) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "tissue ==", "1 == 1", "__import__('os').system('true')", "tissue.str.len() > 3", "n_genes + 1 > 2",
     "n_genes[0] > 1", "lambda: tissue",
     "tissue == f'{n_genes}'", "tissue is None", "n_genes in 5", "x" * 20_000, "(" * 5000,
     "tissue == None", "-tissue == 3"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        Condition.parse(text)


@pytest.mark.parametrize("text", ["tissue > 5", 'n_genes == "600"', 'n_genes > "x"', "tissue", "n_genes < tissue"])
def test_values_of_another_kind_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--where"):
        holds(text)
