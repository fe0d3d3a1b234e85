"""Arrays where a kernel can reach them: host memory for the emulator, device memory for a GPU."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Placing(Protocol):
    def place(self, array: np.ndarray) -> Any:
        """Copy an array to where the kernel runs."""

    def pointer(self, placed: Any) -> int:
        """Its address there."""

    def fetch(self, placed: Any) -> np.ndarray:
        """Copy it back, once the work given so far is done."""


class OnHost:
    def place(self, array: np.ndarray) -> np.ndarray:
        # 16-byte aligned, as a GPU's allocator would give it
        room = np.empty(array.nbytes + 64, np.uint8)
        start = -room.ctypes.data % 64
        placed = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed

    def pointer(self, placed: np.ndarray) -> int:
        return int(placed.ctypes.data)

    def fetch(self, placed: np.ndarray) -> np.ndarray:
        return placed.copy()


class OnDevice:
    def __init__(self) -> None:
        import torch

        self._torch = torch

    def place(self, array: np.ndarray) -> Any:
        raw = np.ascontiguousarray(array)
        return self._torch.from_numpy(raw.view(np.uint8).reshape(-1).copy()).cuda(), raw.dtype, raw.shape

    def pointer(self, placed: Any) -> int:
        return int(placed[0].data_ptr())

    def fetch(self, placed: Any) -> np.ndarray:
        self._torch.cuda.synchronize()
        tensor, dtype, shape = placed
        return tensor.cpu().numpy().view(dtype).reshape(shape)
