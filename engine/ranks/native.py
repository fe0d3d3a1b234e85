"""Ranking genes by expression over median in compiled code (kernels/cpu/ranks.cpp), where the package has it."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.parts import Part

if TYPE_CHECKING:
    from cellscribe.engine.ranks.tokens import RankScale

Int64 = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_RELEASE = 1
_ENTRY_BYTES = 32


class _RankTokens(ctypes.Structure):
    _fields_ = (
        ("num_rows", c_int64), ("indptr", c_void_p), ("indices", c_void_p), ("data", c_void_p), ("linear", c_void_p),
        ("totals", c_void_p), ("is_single", c_int64), ("target_sum", c_double), ("tokens", c_void_p),
        ("medians", c_void_p), ("most", c_int64), ("scratch", c_void_p), ("indptr_out", c_void_p), ("out", c_void_p),
    )  # fmt: skip


class NativeRanks:
    """The function of one library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._call = library.cellscribe_cpu_rank_tokens
        self._call.restype = None

    def rank_tokens(
        self, part: Part, scale: RankScale, linear: Doubles | None, totals: Doubles
    ) -> tuple[Int64, Int64] | None:
        """Return what :func:`cellscribe.engine.ranks.tokens.rank_tokens` does, or None for arrays of other types.

        Parameters
        ----------
        linear
            Values that no total divides, float64 [N], in place of the part's; None takes the part's.
        totals
            Of the rows, float64 [B].
        """
        arrays: tuple[npt.NDArray[Any], ...] = (
            part.indptr,
            part.indices,
            part.data,
            scale.tokens,
            scale.medians,
            totals,
        )
        wanted = (np.int64, np.int32, np.float32, np.int32, np.float64, np.float64)
        if any(one.dtype != kind or not one.flags.c_contiguous for one, kind in zip(arrays, wanted, strict=True)):
            return None
        lengths = np.diff(part.indptr)
        scratch = np.empty(_ENTRY_BYTES * int(lengths.max(initial=0)), np.uint8)
        indptr, tokens = (
            np.empty(part.n_rows + 1, np.int64),
            np.empty(int(np.minimum(lengths, scale.most).sum()), np.int64),
        )
        request = _RankTokens(
            part.n_rows, part.indptr.ctypes.data, part.indices.ctypes.data, part.data.ctypes.data,
            None if linear is None else linear.ctypes.data, totals.ctypes.data, scale.is_single, scale.target_sum,
            scale.tokens.ctypes.data, scale.medians.ctypes.data, scale.most, scratch.ctypes.data, indptr.ctypes.data,
            tokens.ctypes.data,
        )  # fmt: skip
        self._call(ctypes.byref(request))
        return indptr, tokens[: indptr[-1]]


def opened(library: ctypes.CDLL) -> NativeRanks | None:
    """Return the function of a library, or None where it is of another release."""
    found = getattr(library, "cellscribe_cpu_ranks_fingerprint", None)
    if found is None:
        return None
    found.restype = c_int64
    is_same = int(found()) == _RELEASE * 1009 + ctypes.sizeof(_RankTokens)
    return NativeRanks(library) if is_same else None


@cache
def find_native() -> NativeRanks | None:
    """Return the compiled function, or None where the package has none."""
    try:
        from cellscribe.kernels.cpu_library import load_cpu_library
    except ImportError:
        return None
    library = load_cpu_library()
    return None if library is None else opened(library)
