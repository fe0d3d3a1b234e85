"""A bundle's graph as TensorRT gets it: half precision, with caches of a fixed length."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.inliner import inline_local_functions

from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.errors import PlanError
from cellscribe.export.fused import fuse_latent_cross, without_attention
from cellscribe.export.tensorrt.causal import name_axes, open_attention
from cellscribe.export.tensorrt.halve import halve

OPTIONAL_OUTPUTS = ("evidence", "attention")
Dimension = int | str  # a size, or the name of one that varies
_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}


@dataclass(frozen=True)
class Value:
    """An input or output: its type in TensorRT's words, and its shape."""

    dtype: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True)
class Graph:
    """A graph ready for the parser: serialised, its weights beside `path`."""

    name: str
    serialised: bytes
    path: Path
    inputs: dict[str, Value]
    outputs: dict[str, Value]


@contextmanager
def prepared(
    bundle: Bundle, name: str, capacity: int, *, plugin: bool = False, attention: bool = True, precision: str = "fp16"
) -> Iterator[Graph]:
    """Prepare one of a bundle's graphs.

    Its weights are read from where they lie; those of a float32 bundle are rounded into a temporary folder, which is
    gone after the block. With `plugin` latent cross-attention stays one node, or becomes one; without it the node's
    function body of standard operators takes its place. Without `attention` the plugin need not give those weights.
    In `precision` fp32 nothing is rounded.

    Raises
    ------
    PlanError
        When its precision is neither float16 nor float32, or it holds operators that cannot be rounded.
    """
    path, stored = bundle.path(name), bundle.manifest.precision
    if stored == precision:
        model = onnx.load(str(path), load_external_data=False)
        yield _graph(name, _finished(bundle, model, capacity, plugin, attention), path, capacity)
        return
    if stored != "fp32":
        wanted = "fp16 or fp32 bundles" if precision == "fp16" else "an fp32 bundle"
        raise PlanError(
            f"the bundle {bundle.name} is {stored}; {precision} plans for TensorRT are built from {wanted}."
        )
    with tempfile.TemporaryDirectory(prefix="cellscribe-") as folder:
        target = Path(folder) / name
        model = halve(_inlined(onnx.load(str(path))))
        onnx.save(model, str(target), save_as_external_data=True, location=f"{name}.data")
        model = onnx.load(str(target), load_external_data=False)
        yield _graph(name, _finished(bundle, model, capacity, plugin, attention), target, capacity)


def _finished(bundle: Bundle, model: ModelProto, capacity: int, plugin: bool, attention: bool) -> ModelProto:
    shape = bundle.manifest.decoder
    if bundle.manifest.style is None or shape is None:
        return _latent_cross(model, plugin, attention)
    name_axes(model)
    open_attention(model, shape, capacity)
    return model


def _latent_cross(model: ModelProto, plugin: bool, attention: bool) -> ModelProto:
    if not plugin:
        return _inlined(model)
    if not attention:
        without_attention(model)
    fuse_latent_cross(model)
    return model


def _inlined(model: ModelProto) -> ModelProto:
    return inline_local_functions(model) if model.functions else model


def _graph(name: str, model: ModelProto, path: Path, capacity: int) -> Graph:
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "capacity":
                dim.dim_value = capacity
    stored = {one.name for one in graph.initializer}
    inputs = {v.name: _value(v) for v in graph.input if v.name not in stored}
    return Graph(name, model.SerializeToString(), path, inputs, {v.name: _value(v) for v in graph.output})


def _value(value: ValueInfoProto) -> Value:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or int(dim.dim_value) for dim in kind.shape.dim)
    return Value(_DTYPES[kind.elem_type], shape)
