"""One deserialised plan, and execution contexts with tensors bound to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from cellscribe.engine.backends.tensorrt import rtx
from cellscribe.engine.backends.tensorrt.device import Device, Tensor
from cellscribe.engine.backends.tensorrt.homes import jit_file
from cellscribe.engine.backends.tensorrt.log import listening, logger_of
from cellscribe.engine.backends.tensorrt.products import Installed
from cellscribe.engine.bundle.manifest import FileRecord
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
    """A deserialised plan file, on one device.

    Its contexts allocate no scratch memory of their own: everything runs on one stream, one thing after another, so
    all contexts of all engines share one arena (:meth:`scratch_bytes`).

    Raises
    ------
    PlanError
        When the file is not the one of its recipe (`expected`), or TensorRT refuses it, with what it said.
    """

    def __init__(self, installed: Installed, path: Path, expected: FileRecord, device: Device) -> None:
        self._installed, self._trt, self.path, self._device = installed, installed.trt, path, device
        trt, blob = installed.trt, _checked(path, expected)
        with device.working(), listening(trt) as heard:
            runtime = trt.Runtime(logger_of(trt))
            engine = runtime.deserialize_cuda_engine(blob)
            if engine is None:
                raise PlanError(
                    f"{installed} cannot load {path} ({heard.reason()}); free GPU memory (the plan has "
                    f"{len(blob) / 1e9:.2f} GB), or build the plan anew."
                )
            self._runtime, self._engine = runtime, engine
            self.jit = rtx.JitCache(engine, jit_file(expected.sha256)) if installed.product.key == "rtx" else None
            self.bindings = _bindings(trt, engine)

    def scratch_bytes(self) -> int:
        """Scratch memory of the most demanding profile."""
        engine: ICudaEngine = self._engine
        count: int = engine.num_optimization_profiles
        return max(int(engine.get_device_memory_size_for_profile_v2(index)) for index in range(count))

    def open_run(self, profile: int, scratch: Tensor) -> Run:
        """Make a context of its own for one profile; `scratch` is the arena uint8 [N]."""
        trt, engine = self._trt, self._engine
        with self._device.working(), listening(trt) as heard:
            if self.jit is not None:
                context = self.jit.open_context(trt, engine)
            else:
                context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            if context is None:
                raise PlanError(
                    f"{self._installed} makes no context for {self.path} ({heard.reason()}); free GPU memory, and try "
                    "again."
                )
            if not context.set_optimization_profile_async(profile, self._device.stream):
                raise PlanError(f"{self.path} has no profile {profile}; build the plan anew.")
            heard.errors.clear()
            context.set_device_memory(int(scratch.data_ptr()), int(scratch.numel()))  # says nothing but to the log
            if heard.errors:
                raise PlanError(f"{self._installed} refuses scratch memory for {self.path} ({heard.reason()}).")
        return Run(self, self._installed, context, self._device, scratch)

    def save_kernels(self) -> None:
        """Keep what was compiled for this card, where a product compiles."""
        if self.jit is not None:
            self.jit.save()

    def updated_in_place(self) -> dict[str, str]:
        """Return which output the engine writes into which input: new_key.0 into key.0."""
        engine: ICudaEngine = self._engine
        outputs = [name for name, binding in self.bindings.items() if not binding.is_input]
        found = {name: engine.get_aliased_input_tensor(name) for name in outputs}
        return {name: source for name, source in found.items() if source}


class Run:
    """An execution context: bind tensors, then call it as often as wanted while they stay where they are.

    An empty tensor has no address and TensorRT wants one all the same: it gets that of the scratch memory. The engine
    stays alive as long as its contexts do.
    """

    def __init__(
        self, engine: Engine, installed: Installed, context: IExecutionContext, device: Device, scratch: Tensor
    ) -> None:
        self._owner, self._installed, self._context, self._device = engine, installed, context, device
        self._path, self._bindings, self._scratch = engine.path, engine.bindings, scratch
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
            if not context.set_tensor_address(name, int(tensor.data_ptr() or self._scratch.data_ptr())):
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
        with self._device.working():
            return rtx.is_capturable(self._context, self._device.stream)


def _checked(path: Path, expected: FileRecord) -> bytes:
    """Read a file and compare the very bytes that will be used with their record."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise PlanError(f"{path} cannot be read ({error.strerror}); build the plan anew.") from error
    if hashlib.sha256(blob).hexdigest() != expected.sha256:
        raise PlanError(f"{path} is not what its recipe says; build the plan anew.")
    return blob


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
