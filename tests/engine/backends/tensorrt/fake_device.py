"""The host's memory as a device, with graphs that are captured by recording what torch does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

STREAM, ALIGNED = 77, 256
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")  # operations that wait for the host


class RuleBrokenError(AssertionError):
    """Something that TensorRT forbids."""


class Recording(TorchDispatchMode):
    """Records torch operations, and replays them on the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in WAITS):
            raise RuleBrokenError(f"{func} waits for the host inside a captured graph")
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        kept = [t for t in torch.utils._pytree.tree_leaves(made) if isinstance(t, torch.Tensor)]
        given = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        storages = {t.untyped_storage().data_ptr() for t in given}
        fresh = [t.untyped_storage().data_ptr() not in storages for t in kept]

        def replay() -> None:
            again = [t for t in torch.utils._pytree.tree_leaves(func(*args, **kwargs)) if isinstance(t, torch.Tensor)]
            for old, new, is_fresh in zip(kept, again, fresh, strict=True):
                if is_fresh:
                    old.copy_(new)

        self.steps.append(replay)
        return made


def aligned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Allocate zeros at an address that CUDA could have given: a multiple of 256."""
    size = prod(shape) * dtype.itemsize
    block = torch.zeros(size + ALIGNED, dtype=torch.uint8)
    start = -block.data_ptr() % ALIGNED
    return block[start : start + size].view(dtype).view(shape)


class FakeDevice:
    """The host's memory as a device: it knows what it gave out, and captures graphs by recording."""

    name, stream = "a device that is not there", STREAM

    def __init__(self, free_bytes: int = 1 << 40) -> None:
        self._free, self.given = free_bytes, []  # type: tuple[int, list[torch.Tensor]]
        self.recording: Recording | None = None
        self.captures, self.entered = 0, 0
        self.can_capture, self.fails_in_capture = True, False

    def free_bytes(self) -> int:
        return self._free

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self._keep(aligned(tuple(shape), dtype))

    def upload(self, array: Any) -> Any:
        given = torch.from_numpy(np.array(array, order="C"))
        return self._keep(aligned(tuple(given.shape), given.dtype).copy_(given))

    def _keep(self, tensor: Any) -> Any:
        assert self.recording is None, "memory was allocated inside a captured graph"
        self.given.append(tensor)
        return tensor

    @contextmanager
    def working(self) -> Iterator[None]:
        self.entered += 1
        try:
            yield
        finally:
            self.entered -= 1

    def capture(self, program: Callable[[], None]) -> Callable[[], None]:
        """Record without effect, as CUDA does: memory is put back to what it was."""
        before = [tensor.clone() for tensor in self.given]
        self.recording, self.captures = Recording(), self.captures + 1
        try:
            with self.recording as recording:
                program()
        finally:
            self.recording = None
            for tensor, old in zip(self.given, before, strict=True):
                tensor.copy_(old)

        def replay() -> None:
            for step in recording.steps:
                step()

        return replay

    def fetch(self, tensors: Any) -> Any:
        copies = [tensor.clone().numpy() for tensor in tensors]
        return lambda: copies

    def owns(self, address: int, size: int) -> bool:
        for tensor in self.given:
            storage = tensor.untyped_storage()
            if storage.data_ptr() <= address and address + size <= storage.data_ptr() + storage.nbytes():
                return True
        return False
