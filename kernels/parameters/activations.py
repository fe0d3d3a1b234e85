"""``CellscribeGatedSilu``, ``CellscribeBiasRelu`` and ``CellscribeValueExpand`` of include/cellscribe/activations.h."""

from __future__ import annotations

import ctypes as c


class GatedSilu(c.Structure):
    """silu(gate) * up; the header says what the fields mean."""

    _fields_ = (
        ("num_rows", c.c_int32),
        ("width", c.c_int32),
        ("x", c.c_void_p),
        ("x_row", c.c_int64),
        ("out", c.c_void_p),
        ("out_row", c.c_int64),
    )


class BiasRelu(c.Structure):
    """A bias and a ReLU; the header says what the fields mean."""

    _fields_ = (
        ("num_rows", c.c_int32),
        ("width", c.c_int32),
        ("relu", c.c_int32),
        ("x", c.c_void_p),
        ("x_row", c.c_int64),
        ("bias", c.c_void_p),
        ("out", c.c_void_p),
        ("out_row", c.c_int64),
    )


class ValueExpand(c.Structure):
    """The first layer of the value encoder; the header says what the fields mean."""

    _fields_ = (
        ("num_rows", c.c_int32),
        ("width", c.c_int32),
        ("max_value", c.c_float),
        ("values", c.c_void_p),
        ("weight", c.c_void_p),
        ("bias", c.c_void_p),
        ("out", c.c_void_p),
        ("out_row", c.c_int64),
    )
