"""Cells as Cell Ranger writes them: barcodes, features of several types, one matrix of counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cellscribe.engine.cells.matrix_readers import MatrixReader, SelectedColumns
from cellscribe.engine.cells.table import Column, text_column
from cellscribe.engine.errors import InputError

GENES = "Gene Expression"


@dataclass(frozen=True)
class Features:
    """Rows of a 10x matrix: names, and columns such as ``gene_ids`` and ``feature_types``, each [n_features]."""

    names: Sequence[str]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of_genes(self, where: str) -> tuple[Features, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Return the genes among them, and which they are [n_features].

        Raises
        ------
        InputError
            When the columns differ in length, or none is a gene.
        """
        if any(len(column) != len(self.names) for column in self.columns.values()):
            raise InputError(f"The features of {where} differ in number from column to column; fetch it again.")
        types = self.columns.get("feature_types", [GENES] * len(self.names))
        is_gene = np.array([one == GENES for one in types], dtype=bool)
        if len(types) and not is_gene.any():
            raise InputError(f"{where} holds {_listed(types)} and no {GENES}; give a matrix of genes.")
        kept = np.flatnonzero(is_gene).tolist()
        columns = {name: [column[one] for one in kept] for name, column in self.columns.items()}
        return Features([self.names[one] for one in kept], columns), is_gene

    def left_out(self) -> tuple[str, ...]:
        """Say which features are no genes, where there are any."""
        others = [one for one in self.columns.get("feature_types", ()) if one != GENES]
        if not others:
            return ()
        return (f"{len(others):,} of {len(self.names):,} features are {_listed(others)} and left out.",)


class TenxFile:
    """What :class:`Contents` asks, of a 10x matrix; its kinds say where barcodes, features and counts come from."""

    layers: list[str] = []  # noqa: RUF012
    obs_columns: list[str] = []  # noqa: RUF012
    obsm_names: list[str] = []  # noqa: RUF012
    has_x, has_raw, log10, log_base = True, False, None, None

    def __init__(self, name: str, barcodes: Sequence[str], features: Features) -> None:
        self.name, self.notes = name, features.left_out()
        self._barcodes = barcodes
        self._genes, self._is_gene = features.of_genes(name)

    def obs_names(self) -> list[str]:
        """Names of the cells."""
        return list(self._barcodes)

    def obs_column(self, name: str) -> Column:
        """Refuse, as there are none."""
        raise InputError(f"{self.name} has no obs column {name!r}.")

    def var_columns(self, is_raw: bool) -> list[str]:
        """Names of the columns of var."""
        return list(self._genes.columns)

    def var_names(self, is_raw: bool) -> list[str]:
        """Names of the genes: their symbols, as they are."""
        return list(self._genes.names)

    def var_column(self, is_raw: bool, name: str) -> Column:
        """Return one column of var."""
        return text_column(self._genes.columns[name])

    def open_matrix(self, origin: str) -> MatrixReader:
        """Return the reader of the counts of genes."""
        reader = self.counts()
        self._check_size(reader.shape)
        return reader if self._is_gene.all() else SelectedColumns(reader, self._is_gene)

    def _check_size(self, shape: tuple[int, int]) -> None:
        size = (len(self._barcodes), len(self._is_gene))
        if shape != size:
            raise InputError(
                f"{self.name} has counts of {shape[1]:,} features in {shape[0]:,} cells, and names {size[1]:,} "
                f"features and {size[0]:,} cells; fetch it again."
            )

    def counts(self) -> MatrixReader:
        """Return the reader of all counts, cells in rows."""
        raise NotImplementedError


def _listed(types: Sequence[str]) -> str:
    return ", ".join(str(one) for one, _ in Counter(types).most_common(4))
