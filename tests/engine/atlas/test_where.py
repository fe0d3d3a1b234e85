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
        "donor": ["a", None, "c", "b"],
        "leiden": pd.Categorical(["1", "2", "1", "2"]),
        "nullable": pd.array([True, None, False, True], dtype="boolean"),
        "masked": np.array([True, None, False, np.nan], dtype=object),
        "flag": pd.Categorical([True, None, False, True]),
        "few": pd.array([1, None, 3, 4], dtype="Int64"),
        "empty": np.array([None] * 4, dtype=object),
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
        ("score == -1", [False, False, True, False]),
        ("score in [-1, 0.5]", [True, False, True, False]),
        ("score not in [-1, 0.5]", [False, True, False, True]),
        ("is_doublet == True", [True, False, False, True]),
        ("is_doublet in [False]", [False, True, True, False]),
        ("nullable", [True, False, False, True]),
        ("not nullable", [False, True, True, False]),
        ("nullable == True", [True, False, False, True]),
        ("nullable == False", [False, False, True, False]),
        ("nullable != False", [True, True, False, True]),
        ("masked", [True, False, False, False]),
        ("not masked", [False, True, True, True]),
        ("masked == False", [False, False, True, False]),
        ("masked == nullable", [True, False, True, False]),
        ("flag", [True, False, False, True]),
        ('donor > "a"', [False, False, True, True]),
        ('donor not in ["a"]', [False, True, True, True]),
        ("few >= 3", [False, False, True, True]),
        ("few in [1, 3]", [True, False, True, False]),
        ("few != batch", [False, True, True, True]),
        ("n_genes > few", [True, False, True, True]),
        ('empty == "a" or empty > 1 or empty', [False, False, False, False]),
        ("n_genes in []", [False, False, False, False]),
    ],
)
def test_conditions(text: str, expected: list[bool]) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "tissue ==", "1 == 1", "__import__('os').system('true')", "tissue.str.len() > 3", "n_genes + 1 > 2",
     "n_genes[0] > 1", "lambda: tissue",
     "tissue == f'{n_genes}'", "tissue is None", "n_genes in 5", "x" * 20_000, "(" * 5000,
     "tissue == None", "-tissue == 3", "n_genes == -True", 'tissue == -"a"', "n_genes in [-True]"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        Condition.parse(text)


@pytest.mark.parametrize(
    "text",
    ["tissue > 5", 'n_genes == "600"', 'n_genes > "x"', "tissue", "n_genes < tissue", 'n_genes in ["1"]',
     "leiden in [1]", "leiden == n_genes", "n_genes == leiden", "n_genes == True", 'nullable == "True"',
     "nullable in [1]", "few"],
)  # fmt: skip
def test_values_of_another_kind_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--where"):
        holds(text)


@pytest.mark.parametrize("text", ["not " * 2_400 + "n == 1", "(" * 150 + "n == 1" + " and n == 1)" * 150])
def test_what_is_nested_too_deep_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"nested more than 100 deep|is no condition"):
        Condition.parse(text)
