"""``CellscribeRotaryCache`` of include/cellscribe/rotary_cache.h."""

from __future__ import annotations

import ctypes as c


class RotaryCache(c.Structure):
    """Rotary embeddings, and keys and values into the cache; the header says what the fields mean."""

    _fields_ = (
        ("num_slots", c.c_int32),
        ("num_tokens", c.c_int32),
        ("num_heads", c.c_int32),
        ("num_kv_heads", c.c_int32),
        ("width", c.c_int32),
        ("capacity", c.c_int32),
        ("table_rows", c.c_int32),
        ("qkv", c.c_void_p),
        ("qkv_slot", c.c_int64),
        ("qkv_token", c.c_int64),
        ("positions", c.c_void_p),
        ("cos", c.c_void_p),
        ("sin", c.c_void_p),
        ("out", c.c_void_p),
        ("out_slot", c.c_int64),
        ("out_head", c.c_int64),
        ("out_token", c.c_int64),
        ("keys", c.c_void_p),
        ("values", c.c_void_p),
        ("cache_slot", c.c_int64),
        ("cache_head", c.c_int64),
        ("cache_position", c.c_int64),
    )
