"""Ranking genes and joining their names in compiled code (kernels/cpu/sentences.cpp), where the package has it.

Both give what the NumPy code that they stand for gives, or None where only that code will do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.parts import Part
from cellscribe.engine.keyed import UInt64

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

_DONE = 0
_RELEASE = 2
_ENTRY_BYTES = 40
NAME_SLACK = 16  # bytes that are moved of a name at once, and so have to follow the last


class _Rank(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("indptr", c_void_p), ("indices", c_void_p), ("data", c_void_p),
        ("gene_keys", c_void_p), ("row_keys", c_void_p), ("scratch", c_void_p), ("kept", c_void_p),
        ("genes", c_void_p), ("values", c_void_p),
    )  # fmt: skip


class _Tally(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("indptr", c_void_p), ("indices", c_void_p), ("data", c_void_p), ("totals", c_void_p),
        ("num_cells", c_void_p),
    )  # fmt: skip


class _Join(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("indptr", c_void_p), ("genes", c_void_p), ("names", ctypes.c_char_p),
        ("starts", c_void_p), ("text", c_void_p), ("ends", c_void_p),
    )  # fmt: skip


class _Clean(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("text", ctypes.c_char_p), ("starts", c_void_p), ("names", ctypes.c_char_p),
        ("name_starts", c_void_p), ("table", c_void_p), ("table_size", c_int64), ("genes", c_void_p),
        ("indptr", c_void_p), ("num_replaced", c_void_p), ("counts", c_void_p), ("first", c_void_p),
    )  # fmt: skip


class NativeSentences:
    """The functions of one library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def rank(
        self, part: Part, gene_keys: UInt64, row_keys: UInt64, kept: Int64
    ) -> tuple[Int32, npt.NDArray[np.float32]] | None:
        """Return genes int32 [kept[-1]] by falling value and their values float32, row after row.

        Parameters
        ----------
        part
            Rows whose column indices are in range.
        gene_keys, row_keys
            Keys of the genes [n_genes], and stream keys of the rows [B], that equal values are ordered by.
        kept
            Where the genes of each row go, int64 [B + 1]: as many as are wanted, and no more than the row has.
        """
        if not _is_flat(part.indices, np.int32) or not _is_flat(part.data, np.float32):
            return None
        genes, values = np.empty(int(kept[-1]), np.int32), np.empty(int(kept[-1]), np.float32)
        scratch = np.empty(_ENTRY_BYTES * int(np.diff(part.indptr).max(initial=0)), np.uint8)
        gene_keys, row_keys = np.ascontiguousarray(gene_keys), np.ascontiguousarray(row_keys)
        request = _Rank(
            part.n_rows, part.indptr.ctypes.data, part.indices.ctypes.data, part.data.ctypes.data,
            gene_keys.ctypes.data, row_keys.ctypes.data, scratch.ctypes.data, kept.ctypes.data, genes.ctypes.data,
            values.ctypes.data,
        )  # fmt: skip
        code = int(self._library.cellscribe_cpu_rank(ctypes.byref(request)))
        return (genes, values) if code == _DONE else None

    def tally(self, part: Part, num_cells: Int64) -> npt.NDArray[np.float64] | None:
        """Return totals of rows, float64 [B], and count up in `num_cells` int64 [n_genes] the rows that have a gene."""
        if not _is_flat(part.indices, np.int32) or not _is_flat(part.data, np.float32):
            return None
        totals = np.empty(part.n_rows, np.float64)
        request = _Tally(
            part.n_rows, part.indptr.ctypes.data, part.indices.ctypes.data, part.data.ctypes.data, totals.ctypes.data,
            num_cells.ctypes.data,
        )  # fmt: skip
        self._library.cellscribe_cpu_tally(ctypes.byref(request))
        return totals

    def join(self, indptr: Int64, genes: Int32, names: bytes, starts: Int64) -> tuple[npt.NDArray[np.uint8], Int64]:
        """Return names joined by spaces, row after row, as UTF-8 bytes, and where each row ends, int64 [B + 1]."""
        ends = np.empty(len(indptr), np.int64)
        request = _Join(
            len(indptr) - 1, indptr.ctypes.data, genes.ctypes.data, names, starts.ctypes.data, None, ends.ctypes.data
        )
        self._library.cellscribe_cpu_join(ctypes.byref(request))
        text = np.empty(int(ends[-1]) + NAME_SLACK, np.uint8)
        request.text = text.ctypes.data
        self._library.cellscribe_cpu_join(ctypes.byref(request))
        return text[: ends[-1]], ends

    def words(self, names: bytes, starts: Int64) -> Int32:
        """Return a table that finds the place of a name."""
        table = np.empty(1 << (2 * len(starts)).bit_length(), np.int32)
        self._library.cellscribe_cpu_words(
            names, c_void_p(starts.ctypes.data), c_int64(len(starts) - 1), c_void_p(table.ctypes.data),
            c_int64(len(table)),
        )  # fmt: skip
        return table

    def clean(
        self, sentences: Sequence[str], names: bytes, name_starts: Int64, table: Int32
    ) -> tuple[Int64, Int32, Int64]:
        """Clean sentences; see :func:`cellscribe.engine.sentences.clean.clean_sentences`."""
        encoded = [one.upper().encode() for one in sentences]
        text = b"".join(encoded)
        starts = np.concatenate(([0], np.cumsum([len(one) for one in encoded]))).astype(np.int64)
        most = text.count(b" ") + len(encoded)
        genes, first = np.empty(most, np.int32), np.empty(most, np.int32)
        indptr, replaced = np.empty(len(encoded) + 1, np.int64), np.empty(len(encoded), np.int64)
        counts = np.zeros(len(name_starts), np.int32)
        request = _Clean(
            len(encoded), text, starts.ctypes.data, names, name_starts.ctypes.data, table.ctypes.data, len(table),
            genes.ctypes.data, indptr.ctypes.data, replaced.ctypes.data, counts.ctypes.data, first.ctypes.data,
        )  # fmt: skip
        self._library.cellscribe_cpu_clean(ctypes.byref(request))
        return indptr, genes[: indptr[-1]], replaced


def opened(library: ctypes.CDLL) -> NativeSentences | None:
    """Return the functions of a library, or None where it is of another release."""
    found = getattr(library, "cellscribe_cpu_sentences_fingerprint", None)
    if found is None:
        return None
    found.restype = c_int64
    expected = _RELEASE
    for struct in (_Rank, _Tally, _Join, _Clean):
        expected = expected * 1009 + ctypes.sizeof(struct)
    return NativeSentences(library) if int(found()) == expected else None


@cache
def find_native() -> NativeSentences | None:
    """Return the compiled functions, or None where the package has none."""
    try:
        from cellscribe.kernels.cpu_library import load_cpu_library
    except ImportError:
        return None
    library = load_cpu_library()
    return None if library is None else opened(library)


def _is_flat(array: npt.NDArray[Any], dtype: type[np.generic]) -> bool:
    return bool(array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned)
