"""``CellscribeGroupedAttention`` of include/cellscribe/grouped_attention.h."""

from __future__ import annotations

import ctypes as c


class GroupedAttention(c.Structure):
    """Attention of grouped query heads to keys and values; the header says what the fields mean."""

    _fields_ = (
        ("num_slots", c.c_int32),
        ("num_heads", c.c_int32),
        ("num_kv_heads", c.c_int32),
        ("num_tokens", c.c_int32),
        ("num_keys", c.c_int32),
        ("head_width", c.c_int32),
        ("scale", c.c_float),
        ("query", c.c_void_p),
        ("query_slot", c.c_int64),
        ("query_head", c.c_int64),
        ("query_token", c.c_int64),
        ("key", c.c_void_p),
        ("key_slot", c.c_int64),
        ("key_head", c.c_int64),
        ("key_row", c.c_int64),
        ("value", c.c_void_p),
        ("value_slot", c.c_int64),
        ("value_head", c.c_int64),
        ("value_row", c.c_int64),
        ("mask", c.c_void_p),
        ("mask_slot", c.c_int64),
        ("lengths", c.c_void_p),
        ("positions", c.c_void_p),
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
