"""``CellscribeAddRmsNorm`` and ``CellscribeAddLayerNorm`` of include/cellscribe/norms.h."""

from __future__ import annotations

import ctypes as c


class AddRmsNorm(c.Structure):
    """A sum and its RMS norm; the header says what the fields mean."""

    _fields_ = (
        ("num_rows", c.c_int32),
        ("width", c.c_int32),
        ("eps", c.c_float),
        ("x", c.c_void_p),
        ("x_row", c.c_int64),
        ("update", c.c_void_p),
        ("update_row", c.c_int64),
        ("update_bias", c.c_void_p),
        ("weight", c.c_void_p),
        ("out", c.c_void_p),
        ("out_row", c.c_int64),
    )


class AddLayerNorm(c.Structure):
    """A sum and its LayerNorm; the header says what the fields mean."""

    _fields_ = (
        ("num_rows", c.c_int32),
        ("width", c.c_int32),
        ("eps", c.c_float),
        ("x", c.c_void_p),
        ("x_row", c.c_int64),
        ("update", c.c_void_p),
        ("update_row", c.c_int64),
        ("update_bias", c.c_void_p),
        ("weight", c.c_void_p),
        ("bias", c.c_void_p),
        ("table", c.c_void_p),
        ("table_row", c.c_int64),
        ("ids", c.c_void_p),
        ("table_rows", c.c_int32),
        ("out", c.c_void_p),
        ("out_row", c.c_int64),
    )
