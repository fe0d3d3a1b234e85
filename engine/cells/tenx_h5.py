"""The .h5 files of Cell Ranger: CSC of features by cells, which is CSR of cells."""

from __future__ import annotations

from typing import Any

from cellscribe.engine.cells.hdf5_guard import Guard
from cellscribe.engine.cells.kinds import Kind
from cellscribe.engine.cells.matrix_readers import CsrReader, MatrixReader
from cellscribe.engine.cells.members import is_array
from cellscribe.engine.cells.tenx import Features, TenxFile
from cellscribe.engine.errors import InputError

_V3_COLUMNS = {"gene_ids": "id", "feature_types": "feature_type", "genome": "genome"}


class TenxH5(TenxFile):
    """One open file, of version 3 (group ``matrix``) or 2 (one group for each genome)."""

    kind: Kind = "10x-h5"

    def __init__(self, guard: Guard, key: str) -> None:
        self._guard, self._group = guard, guard.group(guard.file, key)
        super().__init__(guard.name, self._texts(self._group, "barcodes"), self._features())

    def counts(self) -> MatrixReader:
        """Return the reader of all counts, cells in rows."""
        where = f"{self._group.name.lstrip('/')} of {self.name}"
        shape = self._guard.dataset(self._group, "shape")[()]
        if shape.shape != (2,) or shape.dtype.kind not in "iu":
            raise InputError(f"The shape of {where} is not two whole numbers; fetch the file again.")
        indptr, indices, data = (self._guard.dataset(self._group, name) for name in ("indptr", "indices", "data"))
        return CsrReader(indptr, indices, data, (int(shape[1]), int(shape[0])), where)

    def _features(self) -> Features:
        if not self._guard.has(self._group, "features"):
            genes = {"gene_ids": self._texts(self._group, "genes")}
            return Features(self._texts(self._group, "gene_names"), genes)
        group = self._guard.group(self._group, "features")
        there = {name: key for name, key in _V3_COLUMNS.items() if self._guard.has(group, key)}
        return Features(self._texts(group, "name"), {name: self._texts(group, key) for name, key in there.items()})

    def _texts(self, group: Any, key: str) -> list[str]:
        return self._guard.texts(self._guard.dataset(group, key))


def matrix_group(guard: Guard) -> str | None:
    """Return the name of the group that holds the counts, None in a file that is none of Cell Ranger's.

    Raises
    ------
    InputError
        When there are several, each of a genome.
    """
    found = [key for key in guard.file.keys() if _is_matrix(guard, key)]  # noqa: SIM118
    if len(found) > 1:
        raise InputError(
            f"{guard.name} holds cells of several genomes ({', '.join(found[:8])}); write the one you want into a file "
            "of its own."
        )
    return found[0] if found else None


def _is_matrix(guard: Guard, key: str) -> bool:
    node = guard.member(guard.file, key)
    return not is_array(node) and guard.has(node, "barcodes") and guard.has(node, "indptr")
