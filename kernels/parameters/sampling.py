"""``CellscribeSample`` of include/cellscribe/sampling.h."""

from __future__ import annotations

import ctypes as c


class Sample(c.Structure):
    """One step of choosing tokens; the header says what the fields mean."""

    _fields_ = (
        ("num_slots", c.c_int32),
        ("vocabulary", c.c_int32),
        ("logits_type", c.c_int32),
        ("prompt_len", c.c_int32),
        ("max_new_tokens", c.c_int32),
        ("num_eos", c.c_int32),
        ("temperature", c.c_float),
        ("top_p", c.c_double),
        ("logits", c.c_void_p),
        ("logits_slot", c.c_int64),
        ("keys", c.c_void_p),
        ("eos_ids", c.c_void_p),
        ("finished", c.c_void_p),
        ("lengths", c.c_void_p),
        ("tokens", c.c_void_p),
        ("positions", c.c_void_p),
        ("chosen", c.c_void_p),
        ("logprobs", c.c_void_p),
        ("temperatures", c.c_void_p),
        ("top_ps", c.c_void_p),
    )
