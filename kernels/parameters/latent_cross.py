"""``CellscribeLatentCross`` of include/cellscribe/latent_cross.h."""

from __future__ import annotations

import ctypes as c


class LatentCross(c.Structure):
    """Cross-attention of absorbed queries to a shared memory; the header says what the fields mean."""

    _fields_ = (
        ("num_slots", c.c_int32),
        ("num_heads", c.c_int32),
        ("num_tokens", c.c_int32),
        ("num_genes", c.c_int32),
        ("width", c.c_int32),
        ("scale", c.c_float),
        ("query", c.c_void_p),
        ("query_slot", c.c_int64),
        ("query_head", c.c_int64),
        ("query_token", c.c_int64),
        ("memory", c.c_void_p),
        ("memory_slot", c.c_int64),
        ("mask", c.c_void_p),
        ("mask_slot", c.c_int64),
        ("lengths", c.c_void_p),
        ("out", c.c_void_p),
        ("out_slot", c.c_int64),
        ("out_head", c.c_int64),
        ("out_token", c.c_int64),
        ("mass", c.c_void_p),
        ("mass_slot", c.c_int64),
        ("mass_token", c.c_int64),
        ("mass_scale", c.c_float),
        ("mass_add", c.c_int32),
        ("weights", c.c_void_p),
        ("weights_slot", c.c_int64),
        ("weights_head", c.c_int64),
        ("weights_token", c.c_int64),
        ("first_token", c.c_int32),
        ("num_blocks", c.c_int32),
        ("workspace", c.c_void_p),
        ("workspace_bytes", c.c_int64),
    )
