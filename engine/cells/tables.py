"""Names of genes and columns of obs, as pandas and NumPy hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellscribe.engine.cells import wire

ENSEMBL = re.compile(r"ENS[A-Z]{0,6}G\d{9,}(\.\d+)?(_PAR_Y)?")
_ENSEMBL_COLUMNS = (
    "ensembl_id", "gene_ids", "gene_id", "ensembl", "ensembl_ids", "ensembl_gene_id", "ensemblid", "feature_id",
)  # fmt: skip
_SYMBOL_COLUMNS = (
    "feature_name", "gene_symbols", "gene_symbol", "symbol", "gene_name", "gene_names", "gene_short_name",
    "hgnc_symbol",
)  # fmt: skip


@dataclass(frozen=True)
class VarTable:
    """Names of the columns of a matrix [n_genes]: the index, and Ensembl ids and symbols where var has such columns."""

    names: tuple[str, ...]
    ensembl: tuple[str | None, ...] | None = None
    symbols: tuple[str | None, ...] | None = None


def var_table(names: Sequence[str], columns: Iterable[str], column: Callable[[str], pd.Series[Any]]) -> VarTable:
    """Return the names with the columns that hold Ensembl ids and symbols, wherever they are called what they are."""
    by_name = {name.casefold(): name for name in columns}
    ensembl = _first(_ENSEMBL_COLUMNS, by_name, column, _is_ensembl)
    symbols = _first(_SYMBOL_COLUMNS, by_name, column, lambda texts: not _is_ensembl(texts))
    return VarTable(tuple(names), ensembl, symbols)


def series_of(header: dict[str, Any], arrays: Sequence[wire.Array], name: str) -> pd.Series[Any]:
    """Return the column that the reading process sent.

    Raises
    ------
    ValueError
        When its parts contradict each other.
    """
    parts = list(arrays)
    texts = wire.unpack_text(parts.pop(-2), parts.pop(-1)) if header["has_texts"] else None
    if header["kind"] == "categorical":
        categories = pd.Index(texts) if texts is not None else pd.Index(parts[1])
        codes = np.where((parts[0] < 0) | (parts[0] >= len(categories)), -1, parts[0])
        labels: Any = categories
        return pd.Series(pd.Categorical.from_codes(codes, categories=labels), name=name)
    values: pd.Series[Any] = pd.Series(texts if texts is not None else parts[0], name=name)
    if header.get("masked"):
        values = values.astype(object).mask(parts[-1]).infer_objects()
    return values


def _first(
    wanted: Sequence[str],
    by_name: dict[str, str],
    column: Callable[[str], pd.Series[Any]],
    fits: Callable[[list[str | None]], bool],
) -> tuple[str | None, ...] | None:
    for key in wanted:
        if key in by_name:
            values = column(by_name[key])
            texts = [value if isinstance(value, str) and value else None for value in values.tolist()]
            if any(texts) and fits(texts):
                return tuple(texts)
    return None


def _is_ensembl(texts: list[str | None]) -> bool:
    named = [text for text in texts if text]
    return 2 * sum(ENSEMBL.fullmatch(text) is not None for text in named) > len(named)
