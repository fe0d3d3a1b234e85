"""Latent cross-attention as one node: TensorRT 11 gives it to a plugin, other runtimes inline its function body.

The plugin computes in half precision, so a float32 graph is fused after it was halved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cellscribe.export.latent_node import (
    DOMAIN,
    DOMAIN_VERSION,
    MAX_HEADS,
    OPERATOR,
    WIDTHS,
    latent_function,
    latent_node,
)

_MEMORY, _MASK, _TOKENS, _HIDDEN = "memory", "memory_mask", "tokens", "hidden"  # inputs of decoder.onnx
_FLAGS = "memory_mask.int32"


def fuse_file(path: Path) -> int:
    """Fuse a graph where it lies, weights untouched; return how many nodes were made."""
    model = onnx.load(str(path), load_external_data=False)
    count = fuse_latent_cross(model)
    if count:
        onnx.save(model, str(path))
    return count


def fuse_latent_cross(model: ModelProto) -> int:
    """Make every latent cross-attention of a decoder graph one node; return how many were found.

    What is not exactly as the exporter writes it, and sizes that the kernel is not built for, stay as they are.
    """
    graph = model.graph
    index = _Index(graph)
    found = [match for node in graph.node if node.op_type == "Softmax" and (match := _match(index, node))]
    if not found:
        return 0
    with_weights = any(match.weights_wanted for match in found)
    _put(graph, _rewritten(graph, found, with_weights))
    opset = next(one.version for one in model.opset_import if not one.domain)
    model.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    model.functions.append(latent_function(index.kinds[_MEMORY], opset, with_weights=with_weights))
    return len(found)


def without_attention(model: ModelProto) -> None:
    """Drop the output `attention`, and with it what only it needed: every weight of every head."""
    graph = model.graph
    for value in list(graph.output):
        if value.name == "attention":
            graph.output.remove(value)
    _put(graph, list(graph.node))
    nodes = list(_latent_nodes(graph))
    read = {name for node in graph.node for name in node.input}
    if any(read.intersection(node.output[2:]) for node in nodes):
        return
    for node in nodes:
        heads = next(one.i for one in node.attribute if one.name == "num_heads")
        node.CopyFrom(latent_node(list(node.input), list(node.output)[:2], heads, node.name))
    for function in model.functions:
        if function.domain == DOMAIN and function.name == OPERATOR:
            del function.output[2:]


def _latent_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    return (node for node in graph.node if node.domain == DOMAIN and node.op_type == OPERATOR)


@dataclass(frozen=True)
class _Match:
    """One cross-attention: its queries and heads, and the names of what it gives."""

    query: str
    heads: int
    mixed: str  # [B, R, m]
    mass: str  # [B, K, S]
    weights: str  # [B, H, K, S]
    weights_wanted: bool


class _Index:
    """Who makes and who reads each tensor of a graph."""

    def __init__(self, graph: GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants = {one.name: one for one in graph.initializer}
        self.kinds = {value.name: value.type.tensor_type.elem_type for value in graph.input}
        self.widths = {
            value.name: value.type.tensor_type.shape.dim[-1].dim_value
            for value in graph.input
            if value.type.tensor_type.shape.dim
        }

    def maker(self, name: str, kind: str) -> NodeProto | None:
        """Return the node of a kind that makes a tensor, casts passed over."""
        node = self.makers.get(name)
        while node is not None and node.op_type == "Cast":
            node = self.makers.get(node.input[0])
        return node if node is not None and node.op_type == kind else None

    def users(self, name: str, kind: str) -> list[NodeProto]:
        """Return the nodes of a kind that read a tensor, casts passed over."""
        readers = self.readers.get(name, [])
        behind = [user for node in readers if node.op_type == "Cast" for user in self.users(node.output[0], kind)]
        return [node for node in readers if node.op_type == kind] + behind

    def values(self, name: str) -> list[float] | None:
        """Return the numbers of a small constant."""
        one = self.constants.get(name)
        if one is None or one.data_location == TensorProto.EXTERNAL:
            return None
        return [float(x) for x in np.ravel(numpy_helper.to_array(one))]

    def is_memory(self, name: str) -> bool:
        return name == _MEMORY and _MEMORY in self.kinds


def _match(index: _Index, softmax: NodeProto) -> _Match | None:
    """Recognise the attention around a softmax; None where it is another one."""
    added = index.maker(softmax.input[0], "Add")
    product = _product(index, added)
    if product is None or added is None or not any(_is_bias(index, name) for name in added.input):
        return None
    probabilities = softmax.output[0]
    mixes = [node for node in index.users(probabilities, "MatMul") if index.is_memory(node.input[1])]
    splits = index.users(probabilities, "Reshape")
    if len(mixes) != 1 or len(splits) != 1:
        return None
    heads = _heads(index, splits[0])
    kept = [node for node in index.users(splits[0].output[0], "Slice") if _keeps_the_last(index, node)]
    if heads is None or len(kept) != 1 or index.widths.get(_MEMORY) not in WIDTHS:
        return None
    readers = index.readers.get(kept[0].output[0], [])
    means = [node for node in readers if _is_mean_of_heads(index, node)]
    if len(means) != 1:
        return None
    wanted = len(readers) > len(means)
    return _Match(product.input[0], heads, mixes[0].output[0], means[0].output[0], kept[0].output[0], wanted)


def _product(index: _Index, added: NodeProto | None) -> NodeProto | None:
    """The product of queries and transposed memory among the terms of a sum."""
    for name in added.input if added is not None else ():
        product = index.maker(name, "MatMul")
        transposed = index.maker(product.input[1], "Transpose") if product is not None else None
        if transposed is not None and index.is_memory(transposed.input[0]):
            return product if _attribute(transposed, "perm") == [0, 2, 1] else None
    return None


def _is_bias(index: _Index, name: str) -> bool:
    wide = index.maker(name, "Unsqueeze")
    choice = index.maker(wide.input[0], "Where") if wide is not None else None
    if wide is None or choice is None or choice.input[0] != _MASK or index.values(wide.input[1]) != [1]:
        return False
    seen, masked = (index.values(constant) for constant in choice.input[1:])
    return seen == [0] and masked is not None and masked[0] < -1e29


def _heads(index: _Index, split: NodeProto) -> int | None:
    """H of a reshape to [B, H, T, S]."""
    shape = index.maker(split.input[1], "Concat")
    if shape is None or len(shape.input) != 4:
        return None
    heads = index.values(shape.input[1])
    return int(heads[0]) if heads and 1 <= heads[0] <= MAX_HEADS else None


def _keeps_the_last(index: _Index, node: NodeProto) -> bool:
    """Whether a slice leaves out the tokens that are known already: as many of the third axis as `hidden` has."""
    known = index.maker(node.input[1], "Shape")
    if known is None or known.input[0] != _HIDDEN or len(node.input) < 4:
        return False
    limits = (_attribute(known, "start"), _attribute(known, "end"))
    steps = index.values(node.input[4]) if len(node.input) > 4 else [1]
    ends = index.values(node.input[2])
    to_the_end = ends is not None and ends[0] > 2**31
    return limits == (1, 2) and index.values(node.input[3]) == [2] and steps == [1] and to_the_end


def _is_mean_of_heads(index: _Index, node: NodeProto) -> bool:
    return node.op_type == "ReduceMean" and index.values(node.input[1]) == [1] and _attribute(node, "keepdims") == 0


def _attribute(node: NodeProto, name: str) -> object:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)


def _fused(match: _Match, number: int, with_weights: bool) -> NodeProto:
    outputs = [match.mixed, match.mass, match.weights][: 3 if with_weights else 2]
    return latent_node([match.query, _MEMORY, _FLAGS, _TOKENS], outputs, match.heads, f"latent_cross.{number}")


def _rewritten(graph: GraphProto, found: list[_Match], with_weights: bool) -> list[NodeProto]:
    """Return the nodes with every match made one: where its product was, which is before all that reads it."""
    places = {match.mixed: _fused(match, number, with_weights) for number, match in enumerate(found)}
    gone = {name for match in found for name in (match.mass, match.weights)}
    kept = [places.get(node.output[0], node) for node in graph.node if not gone.intersection(node.output)]
    return [helper.make_node("Cast", [_MASK], [_FLAGS], to=TensorProto.INT32), *kept]


def _put(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Give a graph these nodes, but for those that no output needs, and drop the weights and types left over."""
    needed = {value.name for value in graph.output}
    used = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            used.append(NodeProto.FromString(node.SerializeToString()))
            needed.update(node.input)
    made = {name for node in used for name in node.output}
    del graph.node[:]
    graph.node.extend(reversed(used))
    for at in reversed(range(len(graph.initializer))):
        if graph.initializer[at].name not in needed:
            del graph.initializer[at]
    for at in reversed(range(len(graph.value_info))):
        if graph.value_info[at].name not in made:
            del graph.value_info[at]
