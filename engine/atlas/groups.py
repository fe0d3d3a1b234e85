"""What a column of obs calls the groups of cells, alike in all files of an atlas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


def group_names(column: pd.Series[Any]) -> npt.NDArray[np.object_]:
    """Return the names of the groups of cells [N], None for a cell without one.

    One file keeps the clusters 1 and 2 as whole numbers, another as texts, and a third, where a cell is of none, as 1.0
    and 2.0: all of them are "1" and "2".
    """
    codes, values = pd.factorize(column.astype(object), use_na_sentinel=True)
    names = np.array([*map(_name, values), None], dtype=object)  # the code of a missing value is -1
    found: npt.NDArray[np.object_] = names[codes]
    return found


def _name(value: object) -> str:
    is_whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)  # type: ignore[call-overload]
