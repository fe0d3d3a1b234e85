"""The way from rows to digits in compiled code (kernels/cpu/binning.cpp), where the package was built with it.

Every function gives the same bits as the NumPy code that it stands for, or None where only that code will do: odd
values, a library that is missing or of another release.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from ctypes import c_double, c_float, c_int64, c_void_p
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.parts import Part
from cellscribe.engine.keyed import UInt64, cell_keys

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

_DONE, _NEED_TOTALS = 0, 1
_MAX_VALUES = 2**31 - 1  # of a block: entries are numbered in 32 bits


class _Rows(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("num_genes", c_int64), ("indptr", c_void_p), ("indices", c_void_p), ("data", c_void_p),
    )  # fmt: skip


class _Select(ctypes.Structure):
    _fields_ = (
        ("rows", _Rows), ("is_fed", c_void_p), ("slot_of_column", c_void_p), ("target_sum", c_double),
        ("totals", c_void_p), ("scratch", c_void_p), ("indptr", c_void_p), ("slots", c_void_p), ("codes", c_void_p),
        ("distinct_indptr", c_void_p), ("distinct", c_void_p), ("counts", c_void_p),
    )  # fmt: skip


class _Bin(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("num_edges", c_int64), ("indptr", c_void_p), ("slots", c_void_p), ("codes", c_void_p),
        ("distinct_indptr", c_void_p), ("distinct", c_void_p), ("counts", c_void_p), ("shares", c_void_p),
        ("tokens", c_void_p), ("keys", c_void_p), ("scratch", c_void_p), ("digits", c_void_p),
    )  # fmt: skip


class _LayOut(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("width", c_int64), ("indptr", c_void_p), ("slots", c_void_p), ("values", c_void_p),
        ("first", c_float), ("out", c_void_p),
    )  # fmt: skip


@dataclass(frozen=True)
class Selected:
    """Entries of the genes fed, M of them, and the D distinct values of their rows, until the thread selects again.

    Parameters
    ----------
    indptr, slots, codes
        Row pointers int64 [B + 1], which stay; index into the genes fed int32 [M]; index into `distinct` int32 [M].
    distinct_indptr, distinct, counts
        Row pointers int64 [B + 1]; values float32 [D], rising in every row; how many entries have them int32 [D].
    scratch
        Room for what comes next.
    """

    indptr: Int64
    slots: npt.NDArray[np.int32]
    codes: npt.NDArray[np.int32]
    distinct_indptr: Int64
    distinct: Float32
    counts: npt.NDArray[np.int32]
    scratch: npt.NDArray[np.float64]


class _Room(threading.local):
    """Arrays that a thread uses for every block: new ones cost more than the work, as their pages are new each time."""

    def __init__(self) -> None:
        self._whole, self._scratch = np.empty((3, 0), np.int32), np.empty(0, np.float64)
        self._distinct = np.empty(0, np.float32)

    def selected(self, n_rows: int, n_values: int, longest: int) -> Selected:
        """Return a place for what may be selected."""
        if n_values > self._whole.shape[1]:
            n_room = n_values + n_values // 4
            self._whole, self._distinct = np.empty((3, n_room), np.int32), np.empty(n_room, np.float32)
        if 2 * longest >= len(self._scratch):
            self._scratch = np.empty(4 * longest + 1, np.float64)
        slots, codes, counts = self._whole
        indptr, distinct_indptr = np.empty((2, n_rows + 1), np.int64)
        return Selected(indptr, slots, codes, distinct_indptr, self._distinct, counts, self._scratch)


class NativeBinning:
    """The functions of one library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library, self._room = library, _Room()

    def rows_are_plain(self, indptr: Int64, indices: Array, data: Array, n_genes: int) -> bool:
        """Whether columns rise within every row and lie in range, and all values are positive and finite.

        Parameters
        ----------
        indptr
            Checked row pointers [B + 1]; indices and data [nnz] may be of any type, of which most are just not plain.
        """
        if not _is_flat(indices, np.int32) or not _is_flat(data, np.float32) or len(indices) != len(data):
            return False
        return bool(self._library.cellscribe_cpu_rows_are_plain(ctypes.byref(_rows(indptr, indices, data, n_genes))))

    def cell_keys(self, names: Sequence[str]) -> npt.NDArray[np.uint64] | None:
        """Return :func:`cellscribe.engine.keyed.cell_keys` of names."""
        text = "\0".join((*names, ""))
        if text.count("\0") != len(names):  # NumPy drops those at the end of a name
            return None
        keys = np.empty(len(names), dtype=np.uint64)
        self._library.cellscribe_cpu_cell_keys(c_int64(len(names)), text.encode(), c_void_p(keys.ctypes.data))
        return keys

    def select(
        self,
        rows: Part,
        is_fed: npt.NDArray[np.uint8],
        slot_of_column: npt.NDArray[np.int32],
        target_sum: float | None,
        add_up: Callable[[], npt.NDArray[np.float64]],
    ) -> Selected | None:
        """Pick the genes fed out of CSR rows and divide their distinct values by float32(total / `target_sum`).

        Parameters
        ----------
        rows
            Rows whose column indices are in range.
        is_fed, slot_of_column
            Whether a column is fed, and where it goes, [n_genes].
        target_sum
            None leaves values as they are.
        add_up
            Gives the totals of the rows [B] where values are not whole, so that the order of the sum matters.
        """
        indptr, indices, data = rows.indptr, rows.indices, rows.data
        if not _is_flat(indices, np.int32) or not _is_flat(data, np.float32) or len(data) > _MAX_VALUES:
            return None
        made = self._room.selected(rows.n_rows, len(data), int(np.diff(indptr).max(initial=0)))
        request = _Select(
            _rows(indptr, indices, data, len(is_fed)), is_fed.ctypes.data, slot_of_column.ctypes.data,
            target_sum or 0.0, None, made.scratch.ctypes.data,
            made.indptr.ctypes.data, made.slots.ctypes.data, made.codes.ctypes.data, made.distinct_indptr.ctypes.data,
            made.distinct.ctypes.data, made.counts.ctypes.data,
        )  # fmt: skip
        code = int(self._library.cellscribe_cpu_select(ctypes.byref(request)))
        if code == _NEED_TOTALS:
            totals = add_up()
            request.totals = totals.ctypes.data
            code = int(self._library.cellscribe_cpu_select(ctypes.byref(request)))
        if code != _DONE:
            return None
        n_fed, n_distinct = int(made.indptr[-1]), int(made.distinct_indptr[-1])
        return replace(
            made, slots=made.slots[:n_fed], codes=made.codes[:n_fed],
            distinct=made.distinct[:n_distinct], counts=made.counts[:n_distinct],
        )  # fmt: skip

    def bin(
        self,
        selected: Selected,
        shares: npt.NDArray[np.float64],
        tokens: Int64,
        keys: npt.NDArray[np.uint64],
    ) -> Float32 | None:
        """Return the digit of every entry, float32 [M].

        Parameters
        ----------
        shares
            Which quantiles the edges are, float64 [n_bins - 1].
        tokens
            Token of every gene fed: the counter of its draw, int64 [G].
        keys
            Stream keys of the draws [B].
        """
        digits = np.empty(len(selected.slots), dtype=np.float32)
        keys = np.ascontiguousarray(keys)
        request = _Bin(
            len(selected.indptr) - 1, len(shares), selected.indptr.ctypes.data, selected.slots.ctypes.data,
            selected.codes.ctypes.data, selected.distinct_indptr.ctypes.data, selected.distinct.ctypes.data,
            selected.counts.ctypes.data, shares.ctypes.data, tokens.ctypes.data, keys.ctypes.data,
            selected.scratch.ctypes.data, digits.ctypes.data,
        )  # fmt: skip
        return digits if int(self._library.cellscribe_cpu_bin(ctypes.byref(request))) == _DONE else None

    def lay_out(self, indptr: Int64, slots: Int64, values: Float32, width: int, first: float) -> Float32:
        """Return values as dense rows float32 [B, width]: `first`, then the genes fed, zero where there is none."""
        out = np.empty((len(indptr) - 1, width), dtype=np.float32)
        request = _LayOut(
            len(out), width, indptr.ctypes.data, slots.ctypes.data, values.ctypes.data, first, out.ctypes.data
        )
        self._library.cellscribe_cpu_lay_out(ctypes.byref(request))
        return out


def opened(library: ctypes.CDLL) -> NativeBinning | None:
    """Return the functions of a library, or None where it is of another release."""
    found = getattr(library, "cellscribe_cpu_binning_fingerprint", None)
    if found is None:
        return None
    found.restype = c_int64
    expected = 0
    for struct in (_Rows, _Select, _Bin, _LayOut):
        expected = expected * 1009 + ctypes.sizeof(struct)
    return NativeBinning(library) if int(found()) == expected else None


@cache
def find_native() -> NativeBinning | None:
    """Return the compiled functions, or None where the package has none."""
    try:
        from cellscribe.kernels.cpu_library import load_cpu_library
    except ImportError:
        return None
    library = load_cpu_library()
    return None if library is None else opened(library)


def name_keys(names: Sequence[str]) -> UInt64:
    """Return :func:`cellscribe.engine.keyed.cell_keys` of names, by compiled code where the package has it."""
    native = find_native()
    keys = None if native is None else native.cell_keys(names)
    return cell_keys(np.array(names, dtype=object)) if keys is None else keys


def _rows(indptr: Int64, indices: Array, data: Array, n_genes: int) -> _Rows:
    return _Rows(len(indptr) - 1, n_genes, indptr.ctypes.data, indices.ctypes.data, data.ctypes.data)


def _is_flat(array: Array, dtype: type[np.generic]) -> bool:
    return bool(array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned)
