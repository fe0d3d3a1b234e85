"""Tracing the graphs of bundles that follow instructions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import Dim

from cellscribe.export.models.instructcell import ProfileDecoder, TowerGraph
from cellscribe.export.models.t5 import T5CrossGraph, T5DecoderGraph, T5EncoderGraph
from cellscribe.export.trace import attended_names, cache_names, trace_module

# Sizes of the example inputs: all different and above 1, so that no dimension is taken for another or for a constant.
_B, _N, _S, _T, _C = 2, 5, 19, 3, 16


def trace_tower(graph: TowerGraph, path: Path) -> None:
    """Write tower.onnx: genes, values -> features."""
    axes = {0: Dim("batch"), 1: Dim("expressed")}
    genes = torch.zeros(_B, _N, dtype=torch.int64)
    trace_module(graph, (genes, genes.float()), path, ["genes", "values"], ["features"], (axes, axes), {})


def trace_t5_encoder(graph: T5EncoderGraph, path: Path, n_queries: int, dtype: torch.dtype) -> None:
    """Write encoder.onnx: tokens, mask, features, starts -> states."""
    batch = Dim("batch")
    axes, tokens = {0: batch, 1: Dim("tokens")}, torch.zeros(_B, _S, dtype=torch.int64)
    features = torch.zeros(_B, n_queries, graph.t5.config.d_model, dtype=dtype)
    args = (tokens, tokens == 0, features, torch.full((_B,), 4))
    names = ["tokens", "mask", "features", "starts"]
    trace_module(graph, args, path, names, ["states"], (axes, axes, {0: batch}, {0: batch}), {})


def trace_t5_cross(graph: T5CrossGraph, path: Path, d_model: int, dtype: torch.dtype) -> None:
    """Write cross.onnx: states -> keys and values of every decoder layer."""
    states, axes = torch.zeros(_B, _S, d_model, dtype=dtype), {0: Dim("batch"), 1: Dim("tokens")}
    names = attended_names("materialised", len(graph.layers))
    trace_module(graph, (states,), path, ["states"], names, (axes,), {})


def trace_t5_decoder(graph: T5DecoderGraph, path: Path, dtype: torch.dtype) -> None:
    """Write decoder.onnx; see :meth:`T5DecoderGraph.forward` for its inputs and outputs."""
    config = graph.t5.config
    batch, tokens, capacity, states = Dim("batch"), Dim("tokens"), Dim("capacity"), Dim("states")
    positions = torch.arange(_T).expand(_B, -1).contiguous()
    n = config.n_decoder_layers
    keys = [torch.zeros(_B, config.n_heads, _S, config.d_head, dtype=dtype) for _ in range(2 * n)]
    caches = [torch.zeros(_B, config.n_heads, _C, config.d_head, dtype=dtype) for _ in range(2 * n)]
    args = (
        torch.zeros(_B, _T, dtype=torch.int64),
        positions,
        torch.arange(_C)[None, None] <= positions[:, :, None],
        torch.ones(_B, _S, dtype=torch.bool),
        keys,
        caches,
    )
    shapes = (
        {0: batch, 1: tokens},
        {0: batch, 1: tokens},
        {0: batch, 1: tokens, 2: capacity},
        {0: batch, 1: states},
        [{0: batch, 2: states} for _ in keys],
        [{0: batch, 2: capacity} for _ in caches],
    )
    names = cache_names(n)
    inputs = ["tokens", "positions", "mask", "memory_mask", *attended_names("materialised", n), *names]
    outputs = ["logits", "states", "evidence", *(f"new_{name}" for name in names)]
    trace_module(graph, args, path, inputs, outputs, shapes, {})


def trace_profile(decoder: ProfileDecoder, path: Path, d_model: int, n_latent: int, dtype: torch.dtype) -> None:
    """Write profile.onnx: condition, latent, library -> rates, dropout, size."""
    axes = {0: Dim("batch")}
    args = tuple(torch.zeros(_B, width, dtype=dtype) for width in (d_model, n_latent, 1))
    names = ["condition", "latent", "library"]
    trace_module(decoder, args, path, names, ["rates", "dropout", "size"], (axes, axes, axes), {})
