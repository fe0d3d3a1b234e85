"""Does TensorRT for RTX run on this GPU at all? It is made for GeForce RTX; nobody says what it does elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from gpu.context import Context
from gpu.results import SKIPPED

_ROWS, _COLUMNS = 4, 8


def run(context: Context) -> None:
    """Import it, build a plan of one operation for this GPU, open it and run it; say how far that goes."""
    section = context.section("tensorrt-rtx")
    if importlib.util.find_spec("tensorrt_rtx") is None:
        why = "tensorrt_rtx is not installed here, so the question stays open (carry its wheels with --wheels)"
        section.say(why)
        section.save(SKIPPED, why)
        return
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.WARNING)
    section.fact(version=trt.__version__)
    made: dict[str, Any] = {}
    for stage, work in _stages(context, trt, logger, made):
        try:
            answer = work()
        except Exception as error:  # whatever it says is the answer
            section.row(stage=stage, works=False, says=f"{type(error).__name__}: {error}"[:300])
            section.save("ok", "it does not run here")
            return
        section.row(stage=stage, works=True, says=str(answer))
    section.save("ok", "it runs here")


def _stages(context: Context, trt: Any, logger: Any, made: dict[str, Any]) -> list[tuple[str, Callable[[], str]]]:
    def build() -> str:
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        x = network.add_input("x", trt.float16, (_ROWS, _COLUMNS))
        y = network.add_activation(x, trt.ActivationType.RELU).get_output(0)
        y.name = "y"
        network.mark_output(y)
        made["plan"] = builder.build_serialized_network(network, builder.create_builder_config())
        if made["plan"] is None:
            raise RuntimeError("the builder gives no plan; its messages are on standard error")
        return f"{made['plan'].nbytes} bytes"

    def load() -> str:
        made["runtime"] = trt.Runtime(logger)
        made["engine"] = made["runtime"].deserialize_cuda_engine(made["plan"])
        if made["engine"] is None:
            raise RuntimeError("the runtime does not open the plan; its messages are on standard error")
        return "opened"

    def execute() -> str:
        torch = context.torch
        x = torch.randn(_ROWS, _COLUMNS, device=context.device).half()
        y = torch.empty_like(x)
        running = made["engine"].create_execution_context()
        running.set_tensor_address("x", x.data_ptr())
        running.set_tensor_address("y", y.data_ptr())
        stream = torch.cuda.Stream()
        if not running.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("execution was refused")
        stream.synchronize()
        if not torch.equal(y, x.relu()):
            raise RuntimeError("the result is wrong")
        return "executed, result right"

    return [("build", build), ("load", load), ("execute", execute)]
