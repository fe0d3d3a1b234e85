"""A float32 graph in half precision, as the exporter would have traced it.

Weights and activations become float16. What the exporter keeps in float32 stays so: softmax and the bias before it,
means over layers and heads, the logits, and everything that flows from those to an output. Norms compute in float32
inside (their ``stash_type``). Works node by node on the few operators that the exporter's graphs are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from cellscribe.engine.errors import PlanError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_WIDE = {"ReduceMean", "Softmax", "Tanh", "Where"}  # computed in float32
_NARROW = {  # computed in float16
    "Attention", "Gather", "GatherElements", "Gelu", "LayerNormalization", "MatMul", "RMSNormalization", "Relu",
    "RotaryEmbedding", "Sigmoid", "TensorScatter",
}  # fmt: skip
_EITHER = {  # computed as their input is: in float32 where anything that is not a weight is
    "Add", "Cast", "Clip", "Concat", "Div", "Expand", "Identity", "Min", "Mul", "Pow", "Reciprocal", "Reshape",
    "Shape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
_WIDE_SUFFIX = ".wide"
KEPT_WIDE = ("values", "logits", "evidence", "attention", "cell", "states")  # inputs and outputs that stay float32


@dataclass
class _Rewriter:
    """The types of the tensors seen so far, and the nodes written."""

    floats: frozenset[str]  # names of the float32 weights
    types: dict[str, int]
    nodes: list[NodeProto] = field(default_factory=list)
    casts: dict[tuple[str, int], str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)  # weights by their new names

    def as_type(self, name: str, wanted: int) -> str:
        """Return the name of a tensor in a precision, cast where it is not there already."""
        if name in self.floats:
            self.read.add(name if wanted == HALF else name + _WIDE_SUFFIX)
            return name if wanted == HALF else name + _WIDE_SUFFIX
        if self.types.get(name) not in (FLOAT, HALF) or self.types[name] == wanted:
            return name
        key = (name, wanted)
        if key not in self.casts:
            self.casts[key] = name + (_WIDE_SUFFIX if wanted == FLOAT else ".half")
            self.nodes.append(helper.make_node("Cast", [name], [self.casts[key]], to=wanted))
        return self.casts[key]


def halve(model: ModelProto) -> ModelProto:
    """Rewrite a model, weights loaded, in half precision.

    Raises
    ------
    PlanError
        For an operator that the exporter does not write.
    """
    graph = model.graph
    _check(graph)
    inferred = {v.name: v.type.tensor_type.elem_type for v in _inferred(model)}
    types = {one.name: one.data_type for one in graph.initializer}
    for value in graph.input:
        kind = value.type.tensor_type
        if kind.elem_type == FLOAT and value.name not in KEPT_WIDE:
            kind.elem_type = HALF
        types[value.name] = kind.elem_type
    floats = frozenset(one.name for one in graph.initializer if one.data_type == FLOAT)
    rewriter = _Rewriter(floats, types)
    for node in graph.node:
        _rewrite(node, rewriter, inferred)
    _outputs(graph, rewriter)
    _weights(graph, rewriter)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(rewriter.nodes)
    return model


def _check(graph: GraphProto) -> None:
    for node in graph.node:
        if node.op_type not in _WIDE | _NARROW | _EITHER or node.domain:
            raise PlanError(
                f"the graph has an operator {node.op_type} that cannot be turned to half precision here; export the "
                "bundle with --precision fp16."
            )


def _inferred(model: ModelProto) -> Iterator[ValueInfoProto]:
    """Infer the types of all tensors."""
    found = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    yield from (*found.value_info, *found.output)


def _without_weights(model: ModelProto) -> ModelProto:
    """Return the graph with its weights as inputs: they may be gigabytes."""
    bare = ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.output.extend(model.graph.output)
    bare.graph.input.extend(model.graph.input)
    for one in model.graph.initializer:
        if one.data_type == FLOAT:
            bare.graph.input.append(helper.make_tensor_value_info(one.name, FLOAT, list(one.dims)))
        else:
            bare.graph.initializer.append(one)
    return bare


def _rewrite(node: NodeProto, rewriter: _Rewriter, inferred: dict[str, int]) -> None:
    wide = any(rewriter.types.get(name) == FLOAT for name in node.input if name not in rewriter.floats)
    wanted = FLOAT if node.op_type in _WIDE or (node.op_type in _EITHER and wide) else HALF
    written = NodeProto()
    written.CopyFrom(node)
    for i, name in enumerate(node.input):
        written.input[i] = rewriter.as_type(name, wanted)
    for name in node.output:
        found = inferred.get(name, FLOAT)
        rewriter.types[name] = wanted if found == FLOAT else found
    for attribute in written.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = wanted
    rewriter.nodes.append(written)


def _outputs(graph: GraphProto, rewriter: _Rewriter) -> None:
    """Give every output the exporter's precision; a cast takes over the output's name."""
    for value in graph.output:
        if value.type.tensor_type.elem_type != FLOAT:
            continue
        wanted = FLOAT if value.name in KEPT_WIDE else HALF
        value.type.tensor_type.elem_type = wanted
        if rewriter.types[value.name] == wanted:
            continue
        inner = f"{value.name}.inner"
        for node in rewriter.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == value.name:
                        names[i] = inner
        rewriter.nodes.append(helper.make_node("Cast", [inner], [value.name], to=wanted))


def _weights(graph: GraphProto, rewriter: _Rewriter) -> None:
    """Round the weights; one read in float32 keeps its digits under a second name, as the bias of -1e30 must."""
    largest = np.finfo(np.float16).max
    for one in list(graph.initializer):
        if one.name not in rewriter.floats:
            continue
        array = numpy_helper.to_array(one)
        if (wide := one.name + _WIDE_SUFFIX) in rewriter.read:
            graph.initializer.append(numpy_helper.from_array(array, wide))
        if one.name in rewriter.read:
            half = np.clip(array, -largest, largest).astype(np.float16)
            one.CopyFrom(numpy_helper.from_array(half, one.name))
        else:
            graph.initializer.remove(one)
