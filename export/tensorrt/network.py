"""From a prepared graph to a serialised plan: one parser, one builder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cellscribe.engine.backends.tensorrt.log import Heard, listening, logger_of
from cellscribe.engine.backends.tensorrt.plan import Recipe
from cellscribe.engine.backends.tensorrt.products import RTX, Installed
from cellscribe.engine.bundle.load import MATCH
from cellscribe.engine.errors import PlanError
from cellscribe.export.tensorrt import rtx
from cellscribe.export.tensorrt.graph import OPTIONAL_OUTPUTS, Graph, Value
from cellscribe.export.tensorrt.profiles import Range, profiles, shapes
from cellscribe.export.tensorrt.progress import Watcher, monitor_of
from cellscribe.export.tensorrt.timing import TimingCache

# Names of TensorRT's classes, so that every call on them can be checked against the real bindings.
Builder: TypeAlias = Any
INetworkDefinition: TypeAlias = Any
IBuilderConfig: TypeAlias = Any
OnnxParser: TypeAlias = Any
ParserError: TypeAlias = Any
IAttention: TypeAlias = Any
IAttentionInputLayer: TypeAlias = Any


def build_plan(
    installed: Installed, graph: Graph, recipe: Recipe, watcher: Watcher, timing_cache: Path | None = None
) -> memoryview:
    """Build one graph and return the plan's bytes.

    Raises
    ------
    PlanError
        When TensorRT cannot read or build the graph, does not use one of its inputs, or reads it differently.
    """
    trt = installed.trt
    with listening(trt) as heard:
        builder = trt.Builder(logger_of(trt))
        network = builder.create_network(0)  # strongly typed, as all networks of both products are
        parser = trt.OnnxParser(network, logger_of(trt))
        _parse(installed, parser, graph)
        check_network(installed, network, graph)
        _leave_out(network, recipe.outputs)
        if graph.name == MATCH:
            _let_decompose(trt, network)
        config = builder.create_builder_config()
        if installed.product == RTX:
            rtx.build_for(trt, config, recipe.compute_capability)
        cache = TimingCache(config, timing_cache) if timing_cache else None
        monitor = monitor_of(trt, watcher)
        config.progress_monitor = monitor
        for ranges in profiles(graph.name, recipe):
            _add_profile(builder, config, graph, ranges)
        _check_heard(installed, graph, heard)
        plan = builder.build_serialized_network(network, config)
        if watcher.cancelled:
            raise KeyboardInterrupt
        if plan is None:
            raise PlanError(f"{installed} cannot build {graph.name} ({heard.reason()}).")
        _check_heard(installed, graph, heard)
        if cache is not None:
            cache.save()
    return memoryview(plan)


def _parse(installed: Installed, parser: OnnxParser, graph: Graph) -> None:
    """Read the graph, or say everything that the parser minds in one sentence."""
    if parser.parse(graph.serialised, str(graph.path)):
        return
    found = []
    for i in range(parser.num_errors):
        error: ParserError = parser.get_error(i)
        where = f"{error.node_operator()} {error.node_name()}".strip()
        found.append(f"{where}: {error.desc()}" if where else str(error.desc()))
    reasons = "; ".join(re.sub(r"\s+", " ", one).rstrip(". ") for one in found[:5]) or "it gave no reason"
    raise PlanError(f"{installed} cannot read {graph.name} ({reasons}); export the bundle anew with this release.")


def check_network(installed: Installed, network: INetworkDefinition, graph: Graph) -> None:
    """Compare the inputs and outputs that the parser found with the graph's own; PlanError on the first difference."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for found, wanted in ((inputs, graph.inputs), (outputs, graph.outputs)):
        names = [tensor.name for tensor in found]
        if sorted(names) != sorted(wanted):
            odd = sorted(set(names) ^ set(wanted))
            raise PlanError(
                f"{installed} reads {graph.name} with other tensors ({', '.join(odd[:3])}); export it anew."
            )
        for tensor in found:
            value, seen = wanted[tensor.name], Value(tensor.dtype.name, tuple(tensor.shape))
            if seen != _as_parsed(value):
                raise PlanError(
                    f"{installed} reads {tensor.name} of {graph.name} as {seen.dtype} {list(seen.shape)} and not as "
                    f"{value.dtype} {list(value.shape)}; export it anew."
                )


def _as_parsed(value: Value) -> Value:
    return Value(value.dtype, tuple(d if isinstance(d, int) else -1 for d in value.shape))


def _leave_out(network: INetworkDefinition, kept: Sequence[str]) -> None:
    """Take optional outputs that nobody asked for out of the network, and what computes them with them."""
    for i in reversed(range(network.num_outputs)):
        tensor = network.get_output(i)
        if tensor.name in OPTIONAL_OUTPUTS and tensor.name not in kept:
            network.unmark_output(tensor)


def _let_decompose(trt: Any, network: INetworkDefinition) -> None:
    """Let single operators compute attention where TensorRT has no kernel: many queries, keys of any number, a mask."""
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the bindings give every layer as an ILayer
            _decomposable(layer)


def _decomposable(boundary: IAttentionInputLayer) -> None:
    attention: IAttention = boundary.attention
    attention.decomposable = True


def _add_profile(builder: Builder, config: IBuilderConfig, graph: Graph, ranges: dict[str, Range]) -> None:
    profile = builder.create_optimization_profile()
    for name, value in graph.inputs.items():
        least, best, greatest = shapes(name, value, ranges)
        profile.set_shape(name, least, best, greatest)
    if config.add_optimization_profile(profile) < 0:
        raise PlanError(f"{graph.name} cannot be built for the sizes {ranges}; choose fewer slots.")


def _check_heard(installed: Installed, graph: Graph, heard: Heard) -> None:
    """An input that TensorRT does not use is an error: the padding behind a dropped mask would be attended to."""
    for line in heard.warnings:
        named = any(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.]*\w)", line) for name in graph.inputs)
        if named and re.search(r"\bunused\b|\bnot used\b", line, re.IGNORECASE):
            raise PlanError(f"{installed} leaves an input of {graph.name} unused ({line.strip()}); report this.")
