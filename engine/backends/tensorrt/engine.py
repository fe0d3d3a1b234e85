"""One deserialised plan, and execution contexts with tensors bound to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from cellscribe.engine.backends.tensorrt import rtx
from cellscribe.engine.backends.tensorrt.device import Device, Tensor
from cellscribe.engine.backends.tensorrt.log import listening, logger_of
from cellscribe.engine.backends.tensorrt.products import Installed
from cellscribe.engine.errors import PlanError

# Names of TensorRT's classes, so that every call on them can be checked against the real bindings.
ICudaEngine: TypeAlias = Any
IExecutionContext: TypeAlias = Any

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32", "BOOL": "bool"}


@dataclass(frozen=True)
class Binding:
    """A tensor of an engine: whether it is an input, its torch dtype's name, its shape (-1 where it varies)."""

    is_input: bool
    dtype: str
    shape: tuple[int, ...]


class Engine:
    """A deserialised plan file.

    Its contexts allocate no scratch memory of their own: everything runs on one stream, one thing after another, so
    all contexts of all engines share one arena (:meth:`scratch_bytes`).

    Raises
    ------
    PlanError
        When TensorRT refuses the plan, with what it said.
    """

    def __init__(self, installed: Installed, path: Path) -> None:
        self._installed, self._trt, self.path = installed, installed.trt, path
        trt = installed.trt
        runtime = trt.Runtime(logger_of(trt))
        with listening(trt) as heard:
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise PlanError(
                f"{installed} cannot load {path} ({heard.reason()}); free GPU memory (the plan has "
                f"{path.stat().st_size / 1e9:.2f} GB), or build the plan anew."
            )
        self._runtime, self._engine = runtime, engine
        self.jit = rtx.JitCache(engine, path.with_suffix(".jit")) if installed.product.key == "rtx" else None
        self.bindings = _bindings(trt, engine)

    def scratch_bytes(self) -> int:
        """Scratch memory of the most demanding profile."""
        engine: ICudaEngine = self._engine
        count: int = engine.num_optimization_profiles
        return max(int(engine.get_device_memory_size_for_profile_v2(index)) for index in range(count))

    def weight_bytes(self) -> int:
        """Bytes that the plan takes on the device, about those of its file."""
        return self.path.stat().st_size

    def open_run(self, device: Device, profile: int, scratch: Tensor) -> Run:
        """Make a context of its own for one profile; `scratch` is the arena uint8 [N]."""
        trt, engine = self._trt, self._engine
        if self.jit is not None:
            context = self.jit.open_context(trt, engine)
        else:
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise PlanError(f"{self._installed} makes no context for {self.path}; free GPU memory, and try again.")
        if not context.set_optimization_profile_async(profile, device.stream):
            raise PlanError(f"{self.path} has no profile {profile}; build the plan anew.")
        context.set_device_memory(int(scratch.data_ptr()), int(scratch.numel()))
        return Run(self._installed, self.path, context, device, self.bindings, int(scratch.data_ptr()))

    def profile_shapes(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        """Return the least, best and greatest shape of an input in a profile."""
        engine: ICudaEngine = self._engine
        return tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, profile))

    def updated_in_place(self) -> dict[str, str]:
        """Return which output the engine writes into which input: new_key.0 into key.0."""
        engine: ICudaEngine = self._engine
        outputs = [name for name, binding in self.bindings.items() if not binding.is_input]
        found = {name: engine.get_aliased_input_tensor(name) for name in outputs}
        return {name: source for name, source in found.items() if source}


class Run:
    """An execution context: bind tensors, then call it as often as wanted while they stay where they are.

    An empty tensor has no address and TensorRT wants one all the same: it gets `nowhere`.
    """

    def __init__(
        self,
        installed: Installed,
        path: Path,
        context: IExecutionContext,
        device: Device,
        bindings: Mapping[str, Binding],
        nowhere: int,
    ) -> None:
        self._installed, self._path, self._context = installed, path, context
        self._device, self._bindings, self._nowhere = device, bindings, nowhere
        self._kept: dict[str, Tensor] = {}

    def bind(self, tensors: Mapping[str, Tensor]) -> None:
        """Bind every input and output of the engine.

        Raises
        ------
        PlanError
            When one is missing, has another type, or a shape that the plan does not hold.
        """
        context: IExecutionContext = self._context
        if missing := sorted(set(self._bindings) - set(tensors)):
            raise PlanError(f"{self._path} wants {missing[0]}, which this release does not give; build the plan anew.")
        for name, binding in self._bindings.items():
            tensor = tensors[name]
            _check(self._path, name, binding, tensor)
            shape = tuple(map(int, tensor.shape))
            if binding.is_input and not context.set_input_shape(name, shape):
                raise PlanError(f"{self._path} does not hold {name} of shape {shape}; build a plan for this size.")
            if not context.set_tensor_address(name, int(tensor.data_ptr()) or self._nowhere):
                raise PlanError(f"{self._installed} refuses the memory of {name} in {self._path}; report this.")
        if vague := list(context.infer_shapes()):
            raise PlanError(f"{self._installed} does not know the shape of {vague[0]} in {self._path}; report this.")
        self._kept = dict(tensors)

    def __call__(self) -> None:
        """Give the run to the device's stream."""
        context: IExecutionContext = self._context
        with listening(self._installed.trt) as heard:
            done = context.execute_async_v3(self._device.stream)
        if not done:
            raise PlanError(f"{self._installed} could not run {self._path} ({heard.reason()}); free GPU memory.")

    def can_be_captured(self) -> bool:
        """Whether the run may be recorded in a graph."""
        if self._installed.product.key != "rtx":
            return True
        return rtx.is_capturable(self._context, self._device.stream)


def _bindings(trt: Any, engine: ICudaEngine) -> dict[str, Binding]:
    found = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        dtype = _DTYPES.get(engine.get_tensor_dtype(name).name, "")
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        found[name] = Binding(is_input, dtype, tuple(engine.get_tensor_shape(name)))
    return found


def _check(path: Path, name: str, binding: Binding, tensor: Tensor) -> None:
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    fits = len(shape) == len(binding.shape) and all(
        want in (-1, have) for want, have in zip(binding.shape, shape, strict=True)
    )
    if dtype != binding.dtype or not fits or not tensor.is_contiguous():
        raise PlanError(
            f"{path} takes {name} as {binding.dtype} {list(binding.shape)} and not as {dtype} {list(shape)}; "
            "build the plan anew."
        )
