from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.atlas.groups import group_names


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (["1", None, "b"], ["1", None, "b"]),
        ([1, 2, 1], ["1", "2", "1"]),
        ([1.0, np.nan, 2.5], ["1", None, "2.5"]),
        (pd.Categorical([3.0, None, 4.0]), ["3", None, "4"]),
        (pd.Categorical(["x", None, "x"]), ["x", None, "x"]),
        (pd.array([7, None, 7], dtype="Int64"), ["7", None, "7"]),
        ([True, False, True], ["True", "False", "True"]),
        ([np.inf, -2.0, 1e20], ["inf", "-2", "100000000000000000000"]),
    ],
)
def test_groups_are_named_alike_however_a_file_keeps_them(column: Any, names: list[str | None]) -> None:
    assert group_names(pd.Series(column)).tolist() == names
