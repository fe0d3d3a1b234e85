"""``CellscribeSkinnyLinear`` of include/cellscribe/skinny_linear.h."""

from __future__ import annotations

import ctypes as c


class SkinnyLinear(c.Structure):
    """A product of a few rows with a matrix; the header says what the fields mean."""

    _fields_ = (
        ("num_rows", c.c_int32),
        ("inner", c.c_int32),
        ("width", c.c_int32),
        ("weight_type", c.c_int32),
        ("input", c.c_int32),
        ("output", c.c_int32),
        ("eps", c.c_float),
        ("x", c.c_void_p),
        ("x_row", c.c_int64),
        ("norm_weight", c.c_void_p),
        ("weight", c.c_void_p),
        ("weight_row", c.c_int64),
        ("scales", c.c_void_p),
        ("bias", c.c_void_p),
        ("out", c.c_void_p),
        ("out_row", c.c_int64),
        ("num_splits", c.c_int32),
        ("num_counters", c.c_int32),
        ("counters", c.c_void_p),
        ("workspace", c.c_void_p),
        ("workspace_bytes", c.c_int64),
    )
