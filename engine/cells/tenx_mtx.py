"""The folders of Cell Ranger: a matrix as text, features and barcodes, plain or compressed with gzip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cellscribe.engine.cells.kinds import Kind
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.matrix_readers import CsrReader, MatrixReader
from cellscribe.engine.cells.mtx_text import MtxHeader, entries, read_header
from cellscribe.engine.cells.scratch import Csr, Growing, pointers_of, to_rows
from cellscribe.engine.cells.tenx import Features, TenxFile
from cellscribe.engine.cells.text_file import TextFile, find_text
from cellscribe.engine.errors import InputError

_CHUNK = 1 << 22
_COLUMNS = ("gene_ids", "names", "feature_types")


class TenxMtx(TenxFile):
    """One folder; its matrix is parsed once, when it is first asked for, into a scratch file."""

    kind: Kind = "10x-mtx"

    def __init__(self, folder: Path, name: str, limits: ReadLimits, tick: Callable[[], None]) -> None:
        self._folder, self._limits, self._tick = folder, limits, tick
        with self._open(name, "barcodes.tsv") as text:
            barcodes = [line.partition("\t")[0] for line in text.lines()]
        with self._open(name, "features.tsv", "genes.tsv") as text:
            features = _features(text)
        super().__init__(name, barcodes, features)

    def counts(self) -> MatrixReader:
        """Return the reader of all counts, cells in rows."""
        with self._open(self.name, "matrix.mtx") as text:
            header = read_header(text)
            self._check_size((header.n_columns, header.n_rows))  # before what may take minutes
            reader = CsrReader(*self._rows(text, header), (header.n_columns, header.n_rows), text.where)
        reader.layout, reader.dtype = "mtx", np.dtype(np.int64 if header.is_whole else np.float64)
        return reader

    def _rows(self, text: TextFile, header: MtxHeader) -> Csr:
        """Parse the entries, and sort them by cell where they are not."""
        cells, genes, values = Growing(np.int32), Growing(np.int32), Growing(np.float32)
        counts, last, is_sorted = np.zeros(header.n_columns, dtype=np.int64), 0, True
        for some_genes, some_cells, some_values in entries(text, header):
            is_sorted = is_sorted and some_cells[0] >= last and bool((some_cells[1:] >= some_cells[:-1]).all())
            counts += np.bincount(some_cells, minlength=header.n_columns)
            last = int(some_cells[-1])
            for target, source in ((cells, some_cells), (genes, some_genes), (values, some_values)):
                target.add(source)
            self._tick()
        if is_sorted:
            return pointers_of(counts), genes.array(), values.array()
        rows, columns, data = cells.array(), genes.array(), values.array()
        starts = range(0, len(rows), _CHUNK)
        return to_rows(counts, ((rows[a : a + _CHUNK], columns[a : a + _CHUNK], data[a : a + _CHUNK]) for a in starts))

    def _open(self, name: str, *stems: str) -> TextFile:
        return TextFile(find_text(self._folder, stems, name), name, self._limits)


def _features(text: TextFile) -> Features:
    """Read id, name and type of every feature; an id alone is its own name, and without types all are genes."""
    rows = [line.split("\t") for line in text.lines()]
    width = len(rows[0]) if rows else 0
    odd = next((number for number, row in enumerate(rows, 1) if len(row) != width), None)
    if odd is not None:
        raise InputError(f"Line {odd} of {text.where} has {len(rows[odd - 1])} columns, not {width}; fetch it again.")
    columns = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=False))
    names = columns.pop("names", columns.get("gene_ids", ()))
    return Features(names, columns)
