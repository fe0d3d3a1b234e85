"""Tracing the graphs of bundles that read ranks and match texts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import Dim

from cellscribe.export.models.langcell import CellGraph, KeysGraph, MatchGraph, TextGraph
from cellscribe.export.trace import trace_module

# Sizes of the example inputs: all different and above 1, so that no dimension is taken for another or for a constant.
_B, _S, _C, _R, _T = 2, 7, 3, 4, 5


def trace_cell(graph: CellGraph, path: Path) -> None:
    """Write encoder.onnx: tokens, mask -> states, vector."""
    tokens, axes = torch.zeros(_B, _S, dtype=torch.int64), {0: Dim("batch"), 1: Dim("genes")}
    trace_module(graph, (tokens, tokens == 0), path, ["tokens", "mask"], ["states", "vector"], (axes, axes), {})


def trace_text(graph: TextGraph, path: Path) -> None:
    """Write text.onnx: tokens, mask -> vector, start."""
    tokens, axes = torch.zeros(_R, _T, dtype=torch.int64), {0: Dim("texts"), 1: Dim("tokens")}
    trace_module(graph, (tokens, tokens == 0), path, ["tokens", "mask"], ["vector", "start"], (axes, axes), {})


def keys_names(n_layers: int) -> list[str]:
    """Names of keys and values in the order of the graphs."""
    return [f"{part}.{i}" for i in range(n_layers) for part in ("key", "value")]


def trace_keys(graph: KeysGraph, path: Path, d_memory: int, n_layers: int, dtype: torch.dtype) -> None:
    """Write keys.onnx: states -> keys and values of every layer."""
    states, axes = torch.zeros(_C, _S, d_memory, dtype=dtype), {0: Dim("cells"), 1: Dim("genes")}
    trace_module(graph, (states,), path, ["states"], keys_names(n_layers), (axes,), {})


def trace_match(graph: MatchGraph, path: Path, dtype: torch.dtype) -> None:
    """Write match.onnx; see :meth:`MatchGraph.forward` for its inputs and outputs."""
    config = graph.text.config
    cells, texts, tokens, genes = Dim("cells"), Dim("texts"), Dim("tokens"), Dim("genes")
    shape = (_C, config.n_heads, _S, config.d_head)
    keys_values = [torch.zeros(shape, dtype=dtype) for _ in range(2 * config.n_layers)]
    args = (
        torch.zeros(_C, _R, _T, config.d_model, dtype=dtype),
        torch.ones(_C, _R, _T, dtype=torch.bool),
        torch.ones(_C, _S, dtype=torch.bool),
        keys_values,
    )
    shapes = (
        {0: cells, 1: texts, 2: tokens},
        {0: cells, 1: texts, 2: tokens},
        {0: cells, 1: genes},
        [{0: cells, 2: genes} for _ in keys_values],
    )
    inputs = ["start", "text_mask", "memory_mask", *keys_names(config.n_layers)]
    trace_module(graph, args, path, inputs, ["logits"], shapes, {})
