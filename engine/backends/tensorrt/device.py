"""The device behind the runtime: memory, one stream, captured graphs, and copies back."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import PlanError

Array = npt.NDArray[np.generic]
Tensor = Any  # a torch tensor; torch is imported only when a device is opened
Fetch = Callable[[], list[Array]]


class Device(Protocol):
    """Where tensors live.

    All work is given to one stream, in the order it is written down; cells may be encoded by another thread than the
    one that writes texts.
    """

    @property
    def name(self) -> str:
        """The device in words."""

    @property
    def stream(self) -> int:
        """Handle of the stream, for TensorRT."""

    def free_bytes(self) -> int:
        """Memory that can still be allocated."""

    def zeros(self, shape: Sequence[int], dtype: Any) -> Tensor:
        """Allocate zeros of a torch dtype."""

    def upload(self, array: Array) -> Tensor:
        """Copy an array to the device."""

    def working(self) -> AbstractContextManager[Any]:
        """Work with the device and its stream, while no other thread does; blocks may be nested."""

    def capture(self, program: Callable[[], None]) -> Callable[[], None]:
        """Record a program that has run once before, and return what replays it on the same memory.

        What runs holds addresses of what the program uses, and keeps none of it alive.
        """

    def fetch(self, tensors: Sequence[Tensor]) -> Fetch:
        """Start to copy tensors to the host as they are at this point of the stream; the result waits for them."""


class CudaDevice:
    """An NVIDIA GPU, by way of torch's allocator, streams and graphs.

    Raises
    ------
    PlanError
        When torch is missing, or is a build without CUDA.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            torch: Any = importlib.import_module("torch")
        except ModuleNotFoundError as error:
            raise PlanError(
                "TensorRT plans run with torch, which is not installed; install it with: pip install torch."
            ) from error
        if not torch.cuda.is_available():
            raise PlanError(
                f"torch {torch.__version__} finds no GPU; install a build of torch for CUDA, or choose --backend "
                "onnxruntime."
            )
        self._torch, self._device = torch, torch.device("cuda", index)
        self._stream, self._lock = torch.cuda.Stream(self._device), threading.RLock()

    @property
    def name(self) -> str:
        """Name of the GPU."""
        return str(self._torch.cuda.get_device_name(self._device))

    @property
    def stream(self) -> int:
        """Handle of the CUDA stream."""
        return int(self._stream.cuda_stream)

    def free_bytes(self) -> int:
        """Free memory of the GPU, and what torch holds without using it."""
        cuda = self._torch.cuda
        idle = cuda.memory_reserved(self._device) - cuda.memory_allocated(self._device)
        return int(cuda.mem_get_info(self._device)[0]) + int(idle)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Tensor:
        """Allocate zeros."""
        with self.working():
            return self._torch.zeros(tuple(shape), dtype=dtype, device=self._device)

    def upload(self, array: Array) -> Tensor:
        """Copy an array to the GPU by way of pinned memory, without waiting for the work before it."""
        with self.working():
            pinned = self._torch.from_numpy(np.array(array, order="C")).pin_memory()
            return pinned.to(self._device, non_blocking=True)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Make the stream this thread's current one."""
        with self._lock, self._torch.cuda.stream(self._stream):
            yield

    def capture(self, program: Callable[[], None]) -> Callable[[], None]:
        """Capture a CUDA graph; what other threads do with CUDA meanwhile does not spoil it."""
        cuda = self._torch.cuda
        with self.working():
            graph = cuda.CUDAGraph()
            self._stream.synchronize()
            with cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                program()

        def replay() -> None:
            with self.working():
                graph.replay()

        return replay

    def fetch(self, tensors: Sequence[Tensor]) -> Fetch:
        """Copy to pinned memory and record an event."""
        with self.working():
            copies = [self._torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
            for copy, tensor in zip(copies, tensors, strict=True):
                copy.copy_(tensor, non_blocking=True)
            event = self._torch.cuda.Event()
            event.record(self._stream)

        def wait() -> list[Array]:
            event.synchronize()
            return [copy.numpy().copy() for copy in copies]

        return wait
