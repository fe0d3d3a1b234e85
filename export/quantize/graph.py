"""One ONNX file of an fp32 bundle, rewritten with quantised and half-stored weights.

A weight W [K, N] of a product becomes the tensors ``W.packed`` and ``W.scales`` (:class:`~blocks.Quantized`) of a
MatMulNBits node. Other large tables keep their name as float16 tensors with a Cast behind them, so that arithmetic
stays in float32. Norms, biases, rotary tables and small tensors are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from cellscribe.engine.bundle.onnx_weights import BLOCK, PACKED, SCALES, onnx_weights
from cellscribe.engine.errors import BundleError
from cellscribe.export.quantize.blocks import block_of, quantize_weight
from cellscribe.export.quantize.data_file import DataFile

DOMAIN = "com.microsoft"
# Rounding activations to 8 bits is the only level at which ONNX Runtime's CPU products of 8-bit weights are fast: 0.6
# against 37 ms for [1, 2048] x [2048, 5632] with two cores of an EPYC.
_ACCURACY_LEVEL = 4
_SMALL = 4096  # numbers; below that half the bytes are not worth a node
_HALVED_BY = ("MatMul", "Gather", "Transpose")

BitsOf = Callable[[str], int | None]
Progress = Callable[[float], None]


@dataclass
class _Plan:
    """What becomes of each weight: bits where it is quantised, whether that replaces it, and whether it is halved."""

    bits: dict[str, int] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    halved: set[str] = field(default_factory=set)
    turned: dict[str, str] = field(default_factory=dict)  # output of a Transpose -> the weight [N, K] that it turns


def rewrite(source: Path, target: Path, bits_of: BitsOf, report: Progress = lambda _: None) -> None:
    """Write a graph anew with fewer bytes per weight; its data file lies beside it.

    Parameters
    ----------
    source, target
        An ONNX file in float32, and the one to write.
    bits_of
        For the name of a product's weight: 4, 8, or None to store it in half.
    report
        Called with the share of the weights done.

    Raises
    ------
    BundleError
        When a weight cannot be quantised.
    """
    model = onnx.load(str(source), load_external_data=False)
    plan = _plan(model.graph, bits_of)
    arrays = dict(onnx_weights(source).tensors)
    total = sum(array.size for array in arrays.values()) or 1
    done, kept = 0, list[TensorProto]()
    with DataFile(target.with_name(f"{target.name}.data")) as data:
        for tensor in model.graph.initializer:
            array = arrays.pop(tensor.name, None)  # mapped pages are let go of with it
            kept += _stored(tensor, array, plan, data, source)
            done += 0 if array is None else array.size
            report(done / total)
    nodes = list(_nodes(model.graph, plan))
    _replace(model, nodes, kept)
    onnx.save(model, str(target))


def _plan(graph: GraphProto, bits_of: BitsOf) -> _Plan:
    plan, readers = _Plan(), dict[str, list[tuple[NodeProto, int]]]()
    for node in graph.node:
        for at, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, at))
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, users = tensor.name, readers.get(tensor.name, [])
        factors = [user for user in users if _is_factor(*user)]
        turns = [node for node, _ in users if _is_turned_factor(node, readers)]
        width = tensor.dims[0] if factors else tensor.dims[-1]
        wanted = bits_of(name) if (factors or turns) and len(tensor.dims) == 2 and width >= BLOCK else None
        if wanted is not None and not (factors and turns):
            plan.bits[name] = wanted
            plan.turned |= {node.output[0]: name for node in turns}
        if name in plan.bits and len(factors) + len(turns) == len(users):
            plan.replaced.add(name)
        elif np.prod(tensor.dims) >= _SMALL and all(node.op_type in _HALVED_BY for node, _ in users):
            plan.halved.add(name)
    return plan


def _is_factor(node: NodeProto, at: int) -> bool:
    return node.op_type == "MatMul" and at == 1


def _is_turned_factor(node: NodeProto, readers: dict[str, list[tuple[NodeProto, int]]]) -> bool:
    """Whether a node turns a weight [N, K] for products alone, as tied embeddings are."""
    if node.op_type != "Transpose" or any(list(one.ints) not in ([], [1, 0]) for one in node.attribute):
        return False
    users = readers.get(node.output[0], [])
    return bool(users) and all(_is_factor(*user) for user in users)


def _stored(
    tensor: TensorProto, array: npt.NDArray[np.generic] | None, plan: _Plan, data: DataFile, source: Path
) -> Iterator[TensorProto]:
    """Write what a weight becomes; yield the tensors that say where."""
    name = tensor.name
    try:
        if name in plan.bits and array is not None:
            weight, bits = array.astype(np.float32, copy=False), plan.bits[name]
            weight = weight.T if name in plan.turned.values() else weight
            result = quantize_weight(weight, bits, block_of(bits, len(weight)))
            yield data.append(f"{name}{PACKED}", result.packed)
            yield data.append(f"{name}{SCALES}", result.scales)
        if name in plan.halved and array is not None:
            yield data.append(name, array, np.float16)
        elif name not in plan.replaced:
            external = tensor.data_location == TensorProto.EXTERNAL and array is not None
            yield data.append(name, array) if external and array is not None else tensor
    except ValueError as error:
        raise BundleError(
            f"the weight {name} of {source} cannot be quantised ({error}); mend the checkpoint and export it anew."
        ) from error


def _nodes(graph: GraphProto, plan: _Plan) -> Iterator[NodeProto]:
    """Yield the nodes with quantised products in place of others, and casts where a half-stored table is read."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    cast: set[str] = set()
    for node in graph.node:
        weight = plan.turned.get(node.input[1], node.input[1]) if _is_factor(node, 1) else ""
        if weight in plan.bits:
            yield _product(node, weight, shapes[weight], plan)
            continue
        if node.output[0] in plan.turned:
            continue
        if node.op_type == "Gather" and node.input[0] in plan.halved:
            yield from _gathered(node)
            continue
        for at, name in enumerate(node.input):
            if name not in plan.halved:
                continue
            if name not in cast:
                yield _cast(name, _wide(name))
                cast.add(name)
            node.input[at] = _wide(name)
        yield node


def _product(node: NodeProto, weight: str, shape: tuple[int, ...], plan: _Plan) -> NodeProto:
    k, n = reversed(shape) if weight in plan.turned.values() else shape
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{weight}{PACKED}", f"{weight}{SCALES}"],
        list(node.output),
        name=node.name,
        domain=DOMAIN,
        K=k,
        N=n,
        bits=plan.bits[weight],
        block_size=block_of(plan.bits[weight], k),
        accuracy_level=_ACCURACY_LEVEL,
    )


def _gathered(node: NodeProto) -> Iterator[NodeProto]:
    """Read rows of a half-stored table and cast only those."""
    (wide,), narrow = node.output, f"{node.output[0]}.float16"
    node.output[0] = narrow
    yield node
    yield _cast(narrow, wide)


def _cast(name: str, wide: str) -> NodeProto:
    return helper.make_node("Cast", [name], [wide], name=f"{wide}.cast", to=TensorProto.FLOAT)


def _wide(name: str) -> str:
    return f"{name}.float32"


def _replace(model: ModelProto, nodes: list[NodeProto], tensors: list[TensorProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    made = {name for node in copies for name in node.output}
    del model.graph.node[:]
    model.graph.node.extend(copies)
    kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for at in reversed(range(len(model.graph.value_info))):
        if model.graph.value_info[at].name not in made:
            del model.graph.value_info[at]
    if any(node.domain == DOMAIN for node in copies):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
