"""The bundle's graphs through the real parser and builder of TensorRT for RTX, for the RTX 4090, without a GPU.

Execution is not tested here: that needs the card.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (the tensorrt extra)")

PROMPT_LEN, CAPACITY = 90, 186
Shape = tuple[int, ...]


class Complaints(trt.ILogger):  # type: ignore[misc]
    """Keeps warnings and errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: object, message: str) -> None:
        if severity in (trt.ILogger.WARNING, trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.lines.append(message)


def with_fixed_capacity(path: Path, target: Path) -> Path:
    """Give the caches a fixed length, as TensorRT asks of them; every other size stays dynamic."""
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "capacity":
                dim.dim_value = CAPACITY
    onnx.save(model, str(target))
    return target


def build(path: Path, profiles: list[Callable[[str, Shape, int], Shape]]) -> tuple[int, Complaints]:
    complaints = Complaints()
    builder = trt.Builder(complaints)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, complaints)
    assert parser.parse_from_file(str(path)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    for shape_of in profiles:
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            stored = tuple(tensor.shape)
            profile.set_shape(tensor.name, *(shape_of(tensor.name, stored, batch) for batch in (1, 8, 96)))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, complaints.lines
    return plan.nbytes, complaints


def decoder_shapes(known: int) -> Callable[[str, Shape, int], Shape]:
    def shape_of(name: str, stored: Shape, batch: int) -> Shape:
        sizes = {
            "tokens": (batch, 1),
            "hidden": (batch, known, stored[-1]),
            "positions": (batch, known + 1),
            "mask": (batch, known + 1, CAPACITY),
            "memory_mask": (batch, 61),
            "memory": (batch, 61, stored[-1]),
        }
        if name.startswith("cross_"):
            return (batch, stored[1], 61, stored[3])
        return sizes.get(name, (batch, *stored[1:]))

    return shape_of


def test_one_decoder_graph_builds_for_prompts_and_steps(tiny_bundle_fp16: Path, tmp_path: Path) -> None:
    path = with_fixed_capacity(tiny_bundle_fp16 / "decoder.onnx", tmp_path / "decoder.onnx")
    size, complaints = build(path, [decoder_shapes(0), decoder_shapes(PROMPT_LEN - 1)])
    assert size > 10_000
    assert not [line for line in complaints.lines if "unused" in line]


def test_the_encoder_builds(tiny_bundle_fp16: Path) -> None:
    size, complaints = build(tiny_bundle_fp16 / "encoder.onnx", [lambda _, __, batch: (batch, 61)])
    assert size > 10_000
    assert not [line for line in complaints.lines if "unused" in line]
