"""Twins in Python of the structs in cpu/include/cellscribe/cpu.h."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p

SILU, GELU, GELU_TANH, RELU = 0, 1, 2, 3  # activations


class CpuCross(ctypes.Structure):
    """Weights of one layer's cross-attention."""

    _fields_ = (
        ("norm", c_void_p),
        ("q", c_void_p),
        ("out", c_void_p),
        ("key", c_void_p),
        ("value", c_void_p),
        ("to_keys", c_void_p),
        ("to_values", c_void_p),
        ("memory_norm", c_void_p),
        ("shift", c_void_p),
        ("out_scale", c_float),
        ("eps", c_float),
    )


class CpuLayer(ctypes.Structure):
    """Weights of one decoder layer."""

    _fields_ = (
        ("norm1", c_void_p),
        ("qkv", c_void_p),
        ("out", c_void_p),
        ("norm2", c_void_p),
        ("gate_up", c_void_p),
        ("down", c_void_p),
        ("eps1", c_float),
        ("eps2", c_float),
        ("shift1", c_void_p),
        ("shift2", c_void_p),
        ("post1", c_void_p),
        ("post2", c_void_p),
        ("cross", CpuCross),
    )


class CpuDecoder(ctypes.Structure):
    """Sizes and weights of a decoder."""

    _fields_ = (
        ("d_model", c_int64),
        ("n_layers", c_int64),
        ("n_lower", c_int64),
        ("n_heads", c_int64),
        ("n_kv_heads", c_int64),
        ("d_head", c_int64),
        ("d_ffn", c_int64),
        ("vocab_size", c_int64),
        ("cross_heads", c_int64),
        ("cross_kv_heads", c_int64),
        ("cross_width", c_int64),
        ("d_memory", c_int64),
        ("is_latent", c_int64),
        ("memory_kind", c_int64),
        ("normalises_memory", c_int64),
        ("cache_kind", c_int64),
        ("layers", ctypes.POINTER(CpuLayer)),
        ("norm", c_void_p),
        ("head", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("eps", c_float),
        ("shift", c_void_p),
        ("is_layer_norm", c_int64),
        ("activation", c_int64),
        ("is_gated", c_int64),
        ("is_parallel", c_int64),
        ("rotary_width", c_int64),
        ("window", c_int64),
        ("window_every", c_int64),
        ("score_scale", c_float),
        ("attention_cap", c_float),
        ("logits_cap", c_float),
        ("cross_scale", c_float),
        ("head_scale", c_float),
        ("sees_all", c_int64),
        ("bias", c_void_p),
        ("bias_reach", c_int64),
    )


class CpuCall(ctypes.Structure):
    """One pass of new tokens."""

    _fields_ = (
        ("rows", c_int64),
        ("outputs", c_int64),
        ("slots", c_void_p),
        ("positions", c_void_p),
        ("chosen", c_void_p),
        ("x", c_void_p),
        ("first_layer", c_int64),
        ("last_layer", c_int64),
        ("logits", c_void_p),
        ("evidence", c_void_p),
        ("attention", c_void_p),
        ("genes", c_int64),
        ("states", c_void_p),
    )


# Rises when a function of the library takes other arguments.
_SIGNATURES = 2


def fingerprint() -> int:
    """Return the number that a library with these structs gives; see cpu/library.cpp."""
    cross, layer, decoder, call = (ctypes.sizeof(one) for one in (CpuCross, CpuLayer, CpuDecoder, CpuCall))
    return cross * 1009 * 1009 + layer * 1009 * 31 + decoder * 1009 + call + _SIGNATURES
