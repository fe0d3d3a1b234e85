"""``CellscribeEmbed`` of include/cellscribe/embeddings.h."""

from __future__ import annotations

import ctypes as c


class Embed(c.Structure):
    """Rows of a table; the header says what the fields mean."""

    _fields_ = (
        ("num_rows", c.c_int32),
        ("width", c.c_int32),
        ("table_rows", c.c_int32),
        ("out_fp32", c.c_int32),
        ("table", c.c_void_p),
        ("table_row", c.c_int64),
        ("ids", c.c_void_p),
        ("out", c.c_void_p),
        ("out_row", c.c_int64),
    )
