"""Tracing the modules of :mod:`cellscribe.export.graphs` into ONNX files with external weights."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from cellscribe.engine.bundle.onnx_weights import ALIAS
from cellscribe.export.graphs import CrossGraph, DecoderGraph, EncoderGraph
from cellscribe.export.models.causal import CausalConfig, CausalGraph
from cellscribe.export.models.lingocell import DecoderConfig

OPSET = 24
# Sizes of the example inputs: all different and above 1, so that no dimension is taken for another or for a constant.
_B, _T, _KNOWN, _C, _S, _O = 2, 3, 5, 16, 7, 4


def cache_names(n_layers: int) -> list[str]:
    """Names of the decoder's cache inputs in graph order; the outputs are called new_<name>."""
    return [f"{part}.{i}" for i in range(n_layers) for part in ("key", "value")]


def attended_names(form: str, n_cross: int) -> list[str]:
    """Names of what the decoder attends to: the memory, or keys and values of each cross layer in turn."""
    if form == "latent":
        return ["memory"]
    return [f"cross_{part}.{i}" for i in range(n_cross) for part in ("key", "value")]


def trace_encoder(graph: EncoderGraph, path: Path) -> None:
    """Write encoder.onnx: genes, values, mask -> memory, cell."""
    genes = torch.zeros(_B, _S, dtype=torch.int64)
    axes = {0: Dim("batch"), 1: Dim("genes")}
    args = (genes, genes.float(), genes == 0)
    trace_module(graph, args, path, ["genes", "values", "mask"], ["memory", "cell"], (axes, axes, axes), {})


def trace_cross(graph: CrossGraph, path: Path, d_memory: int, dtype: torch.dtype) -> None:
    """Write cross.onnx: raw memory -> what the decoder attends to."""
    names = attended_names(graph.form, len(graph.blocks))
    axes = ({0: Dim("batch"), 1: Dim("genes")},)
    trace_module(graph, (torch.zeros(_B, _S, d_memory, dtype=dtype),), path, ["raw_memory"], names, axes, {})


def trace_decoder(graph: DecoderGraph, path: Path, dtype: torch.dtype) -> None:
    """Write decoder.onnx; see :meth:`DecoderGraph.forward` for its inputs and outputs."""
    config, cross = graph.decoder.config, graph.decoder.cross_config
    batch, tokens, capacity, genes = Dim("batch"), Dim("tokens"), Dim("capacity"), Dim("genes")
    positions = torch.arange(_KNOWN + _T).expand(_B, -1).contiguous()
    attended = _example_attended(graph, dtype)
    caches = _example_caches(config, dtype)
    args = (
        torch.zeros(_B, _T, dtype=torch.int64),
        torch.zeros(_B, _KNOWN, config.d_model, dtype=dtype),
        positions,
        torch.arange(_C)[None, None] <= positions[:, :, None],
        torch.ones(_B, _S, dtype=torch.bool) if cross else None,
        attended,
        caches,
    )
    genes_axis = 1 if graph.form == "latent" else 2
    shapes = (
        {0: batch, 1: tokens},
        {0: batch, 1: Dim("known")},
        {0: batch, 1: Dim.AUTO},
        {0: batch, 1: Dim.AUTO, 2: capacity},
        {0: batch, 1: genes} if cross else None,
        [{0: batch, genes_axis: genes} for _ in attended],
        [{0: batch, 2: capacity} for _ in caches],
    )
    names = cache_names(config.n_layers)
    inputs = ["tokens", "hidden", "positions", "mask"]
    outputs = ["logits"]
    if cross:
        inputs += ["memory_mask", *attended_names(graph.form, cross.n_layers)]
        outputs += ["evidence", "attention"]
    total = {"positions": {1: "known + tokens"}, "mask": {1: "known + tokens"}}
    trace_module(graph, args, path, inputs + names, outputs + [f"new_{n}" for n in names], shapes, total)


def trace_causal(graph: CausalGraph, path: Path, dtype: torch.dtype) -> None:
    """Write decoder.onnx of a family without an encoder; see :meth:`CausalGraph.forward` for inputs and outputs."""
    config = graph.decoder.config
    batch, tokens, capacity = Dim("batch"), Dim("tokens"), Dim("capacity")
    positions = torch.arange(_T).expand(_B, -1).contiguous()
    mask = torch.arange(_C)[None, None] <= positions[:, :, None]
    caches = _example_caches(config, dtype)
    seen = {0: batch, 1: tokens, 2: capacity}
    args = (
        torch.zeros(_B, _T, dtype=torch.int64),
        positions,
        mask,
        mask.clone() if config.window else None,
        torch.zeros(_B, _O, dtype=torch.int64),
        caches,
    )
    shapes = (
        {0: batch, 1: tokens},
        {0: batch, 1: tokens},
        seen,
        seen if config.window else None,
        {0: batch, 1: Dim("outputs")},
        [{0: batch, 2: capacity} for _ in caches],
    )
    names = cache_names(config.n_layers)
    inputs = ["tokens", "positions", "mask", *(["near"] if config.window else []), "chosen"]
    trace_module(graph, args, path, inputs + names, ["logits", "states", *(f"new_{n}" for n in names)], shapes, {})


def _example_attended(graph: DecoderGraph, dtype: torch.dtype) -> list[Tensor]:
    cross = graph.decoder.cross_config
    if cross is None:
        return []
    if graph.form == "latent":
        return [torch.zeros(_B, _S, cross.d_memory, dtype=dtype)]
    block = next(layer.cross for layer in graph.decoder.blocks if layer.cross is not None)
    shape = (_B, block.n_kv_heads, _S, block.d_head)
    return [torch.zeros(shape, dtype=dtype) for _ in range(2 * cross.n_layers)]


def _example_caches(config: DecoderConfig | CausalConfig, dtype: torch.dtype) -> list[Tensor]:
    shape = (_B, config.n_kv_heads, _C, config.d_head)
    return [torch.zeros(shape, dtype=dtype) for _ in range(2 * config.n_layers)]


def trace_module(
    module: nn.Module,
    args: tuple[Any, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: tuple[Any, ...],
    renamed_axes: dict[str, dict[int, str]],
) -> None:
    """Write a module as an ONNX file with external weights.

    Parameters
    ----------
    args, shapes
        Example inputs, and which of their sizes vary (:class:`torch.export.Dim`).
    inputs, outputs
        Names in the graph.
    renamed_axes
        Names of varying sizes that are sums of others, by input and axis.
    """
    module.eval().requires_grad_(False)
    with _quiet():
        program = torch.onnx.export(
            module,
            args,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"tracing {path.name} gave no program")
    for value in program.model.graph.inputs:
        for axis, name in renamed_axes.get(value.name or "", {}).items():
            if value.shape is not None:
                value.shape[axis] = name
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces of the exporting machine
    for name, kept in _aliases(module, program.model.graph.initializers).items():
        program.model.metadata_props[f"{ALIAS}{name}"] = kept
    program.save(str(path), external_data=True)


def _aliases(module: nn.Module, initializers: Mapping[str, Any]) -> dict[str, str]:
    """Return which stored tensor stands for each weight that the tracer left out because it equals another one."""
    state = module.state_dict()
    stored: dict[tuple[int, ...], list[str]] = {}
    for name in initializers:
        if name in state:
            stored.setdefault(tuple(state[name].shape), []).append(name)
    found: dict[str, str] = {}
    for name, tensor in state.items():
        if name not in initializers:
            same = (other for other in stored.get(tuple(tensor.shape), ()) if torch.equal(state[other], tensor))
            kept = next(same, None)
            if kept is not None:
                found[name] = kept
    return found


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the tracer's notes about optional packages and shared axis names off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
