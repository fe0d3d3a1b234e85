"""The full cross-attention of each text as an .npz archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.output.run import Run


def write_attention(run: Run, out: Path, dtype: Literal["float16", "float32"] = "float16") -> None:
    """Write an archive that ``numpy.load`` opens without pickle.

    It holds ``cell_ids`` [N]; for the i-th of them ``attention_<i>`` [layers, heads, tokens, S] and ``token_ids_<i>``
    [tokens]; and the genes of the last axis (``<cls>`` first) as ``genes`` [S] where all cells share them, or as
    ``genes_<i>``. Each row over genes sums to 1.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    with replacing(out) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **_arrays(run, np.dtype(dtype)))


def _arrays(run: Run, dtype: np.dtype[np.floating]) -> dict[str, npt.NDArray[np.generic]]:
    records = run.attention
    tokens = {one.cell_id: one.token_ids for one in run.descriptions}
    arrays: dict[str, npt.NDArray[np.generic]] = {"cell_ids": _strings([one.cell_id for one in records])}
    shared = len({one.genes for one in records}) == 1
    if shared:
        arrays["genes"] = _strings(list(records[0].genes))
    for place, one in enumerate(records):
        arrays[f"attention_{place}"] = one.weights.astype(dtype, copy=False)
        arrays[f"token_ids_{place}"] = np.array(tokens.get(one.cell_id, ()), np.int64)
        if not shared:
            arrays[f"genes_{place}"] = _strings(list(one.genes))
    return arrays


def _strings(values: list[str]) -> npt.NDArray[np.str_]:
    return np.array(values, dtype=np.str_) if values else np.empty(0, "<U1")
