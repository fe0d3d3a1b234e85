"""A TensorRT that computes with ONNX Runtime on the CPU, and minds its rules more than the real one does.

Where TensorRT would compute nonsense or end the process, this raises: a shape outside the profile, a tensor without
memory, memory that nobody allocated or at an address that is not aligned, a cache whose ends lie apart, scratch memory
that is missing or too small, a context in two captured graphs, a binding that changes after the capture, a context that
is gone when its graph is replayed. What TensorRT leaves undefined becomes NaN.
"""

from __future__ import annotations

import ctypes
import json
import weakref
from collections.abc import Callable
from math import prod
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from fake_device import ALIGNED, STREAM, FakeDevice, RuleBrokenError
from fake_rtx import Allocation, FakeConfig, Graphs, Kernels, Mode

SCRATCH = 4096
SIZES = {"FLOAT": 4, "HALF": 2, "INT64": 8, "BOOL": 1}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "BOOL": np.bool_}


class FakeContext:
    """An execution context."""

    def __init__(self, engine: FakeEngine, user_managed: bool) -> None:
        self._engine, self._user_managed = engine, user_managed
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        self._captured = False

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream == STREAM
        assert not self._captured
        self._profile, self._shapes = index, {}
        return index < self._engine.num_optimization_profiles

    def set_device_memory(self, address: int, size: int) -> None:
        if not self._user_managed:
            raise RuleBrokenError("this context has scratch memory of its own")
        if size < SCRATCH:
            self._engine.log("ERROR", "the device memory is too small.")
        self._scratch = (address, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._profile is None:
            raise RuleBrokenError("shapes come after the profile")
        if self._captured:
            raise RuleBrokenError("a captured context was given another shape")
        least, _, greatest = self._engine.get_tensor_profile_shape(name, self._profile)
        fits = len(shape) == len(least) and all(a <= s <= b for a, s, b in zip(least, shape, greatest, strict=True))
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._captured:
            raise RuleBrokenError("a captured context was given another address")
        if name not in self._engine.tensors or not address:
            return False
        if address % ALIGNED:
            raise RuleBrokenError(f"{name} lies at an address that is not a multiple of {ALIGNED}")
        self._addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, t in self._engine.tensors.items() if t.is_input and name not in self._shapes]

    def is_stream_capturable(self, stream: int) -> bool:
        return stream == STREAM and self._engine.device.can_capture

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        self._check()
        recording = self._engine.device.recording
        if recording is None:
            self._compute()
            return True
        if self._captured:
            raise RuleBrokenError("a context was captured twice")
        if self._engine.device.fails_in_capture:
            self._engine.log("ERROR", "operation not permitted when stream is capturing.")
            return False
        self._captured, alive = True, weakref.ref(self)
        recording.steps.append(lambda: _still(alive)._compute())
        return True

    def _check(self) -> None:
        engine = self._engine
        size = engine.get_device_memory_size_for_profile_v2(self._profile or 0)
        if self._user_managed and (self._scratch is None or self._scratch[1] < size):
            raise RuleBrokenError("scratch memory is missing or too small")
        if self._scratch and not engine.device.owns(*self._scratch):
            raise RuleBrokenError("the scratch memory is gone")
        if missing := set(engine.tensors) - set(self._addresses):
            raise RuleBrokenError(f"no memory for {sorted(missing)}")
        for name, source in engine.aliases.items():
            if self._addresses[name] != self._addresses[source]:
                raise RuleBrokenError(f"{name} does not lie where {source} lies")
        for name in engine.tensors:
            size = prod(self._shape(name)) * SIZES[engine.tensors[name].dtype]
            if size and not engine.device.owns(self._addresses[name], size):
                raise RuleBrokenError(f"{name} lies outside of what was allocated")

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, its varying sizes taken from the inputs by name."""
        if name in self._shapes:
            return self._shapes[name]
        sizes: dict[str, int] = {}
        for given, shape in self._shapes.items():
            sizes |= {d: s for d, s in zip(self._engine.tensors[given].dims, shape, strict=True) if isinstance(d, str)}
        return tuple(sizes[d] if isinstance(d, str) else d for d in self._engine.tensors[name].dims)

    def _compute(self) -> None:
        engine, binding = self._engine, self._engine.session.io_binding()
        for name, tensor in engine.tensors.items():
            shape, kind = self._shape(name), NUMPY[tensor.dtype]
            bind = binding.bind_input if tensor.is_input else binding.bind_output
            if not tensor.is_input and name not in engine.aliases:
                ctypes.memset(self._addresses[name], 0xFF, prod(shape) * SIZES[tensor.dtype])
            bind(name, "cpu", 0, kind, shape, self._addresses[name])
        engine.session.run_with_iobinding(binding)
        if self._scratch is not None:
            ctypes.memset(self._scratch[0], 0xFF, self._scratch[1])


def _still(alive: weakref.ref[FakeContext]) -> FakeContext:
    context = alive()
    if context is None:
        raise RuleBrokenError("a graph was replayed whose context is gone")
    return context


class FakeEngine:
    """An engine, made from a file that names an ONNX graph and its profiles."""

    def __init__(self, plan: dict[str, Any], device: FakeDevice, log: Callable[[str, str], None]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 2, 3
        self.session = ort.InferenceSession(plan["onnx"], options, providers=["CPUExecutionProvider"])
        self.device, self._profiles, self.log = device, plan["profiles"], log
        self.tensors = {
            name: SimpleNamespace(
                is_input=is_input,
                dtype=dtype,
                dims=tuple(dims),
                shape=tuple(-1 if isinstance(d, str) else d for d in dims),
            )
            for name, (is_input, dtype, dims) in plan["tensors"].items()
        }
        self.aliases = {n: n.removeprefix("new_") for n in self.tensors if n.startswith("new_")}
        self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return Mode.INPUT if self.tensors[name].is_input else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name].dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._profiles[index][name]]

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.aliases.get(name)

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return SCRATCH * (index + 1)

    def create_runtime_config(self) -> FakeConfig:
        return FakeConfig()

    def create_execution_context(self, how: Any) -> FakeContext:
        if not self.device.entered:
            raise RuleBrokenError("a context is made on whatever device is the current one")
        strategy = how.strategy if isinstance(how, FakeConfig) else how
        if isinstance(how, FakeConfig):
            assert how.cache is not None
            assert how.cuda_graph_strategy is Graphs.DISABLED, "two parties would capture"
            assert how.dynamic_shapes_kernel_specialization_strategy is Kernels.EAGER
        return FakeContext(self, strategy is Allocation.USER_MANAGED)


def fake_module(device: FakeDevice) -> Any:
    """Return a module like `tensorrt` or `tensorrt_rtx`, whose engines live on a device."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def log(self, severity: str, message: str) -> None:
            self._logger.log(SimpleNamespace(name=severity), message)

        def deserialize_cuda_engine(self, blob: bytes) -> FakeEngine | None:
            if not device.entered:
                raise RuleBrokenError("a plan is loaded onto whatever device is the current one")
            if not blob.startswith(b"{"):
                self.log("ERROR", "magic tag does not match.\nmore")
                return None
            return FakeEngine(json.loads(blob), device, self.log)

    module = ModuleType("fake_tensorrt_module")
    vars(module).update(
        __version__="0.0",
        ILogger=object,
        Runtime=Runtime,
        TensorIOMode=Mode,
        ExecutionContextAllocationStrategy=Allocation,
        CudaGraphStrategy=Graphs,
        DynamicShapesKernelSpecializationStrategy=Kernels,
    )
    return module
