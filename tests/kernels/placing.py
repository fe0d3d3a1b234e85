"""Arrays where a kernel can reach them: host memory for the emulator, device memory for a GPU.

Every array lies between guards of 0xFF bytes, which are NaN to whoever reads them as floats: a kernel that reads
beside an array spoils its result, and one that writes there is found when the array is fetched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

GUARD = 256  # bytes on either side; a multiple of every alignment that kernels ask for


class Placing(Protocol):
    def place(self, array: np.ndarray) -> Any:
        """Copy an array to where the kernel runs."""

    def pointer(self, placed: Any) -> int:
        """Its address there."""

    def fetch(self, placed: Any) -> np.ndarray:
        """Copy it back, once the work given so far is done."""


def guarded(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array between guards."""
    room = np.full(array.nbytes + 2 * GUARD, 0xFF, np.uint8)
    room[GUARD : GUARD + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return room


def unguarded(room: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the array between the guards, which must be as they were."""
    end = GUARD + like.nbytes
    assert (room[:GUARD] == 0xFF).all(), "the kernel wrote before an array"
    assert (room[end : end + GUARD] == 0xFF).all(), "the kernel wrote behind an array"
    return room[GUARD:end].copy().view(like.dtype).reshape(like.shape)


class OnHost:
    def place(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = guarded(array)
        room = np.empty(whole.nbytes + GUARD, np.uint8)  # aligned as a GPU's allocator would align it
        start = -room.ctypes.data % GUARD
        placed = room[start : start + whole.nbytes]
        placed[:] = whole
        return placed, array

    def pointer(self, placed: tuple[np.ndarray, np.ndarray]) -> int:
        return int(placed[0].ctypes.data) + GUARD

    def fetch(self, placed: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return unguarded(*placed)


class OnDevice:
    def __init__(self) -> None:
        import torch

        self._torch = torch

    def place(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(guarded(array)).cuda(), array

    def pointer(self, placed: Any) -> int:
        return int(placed[0].data_ptr()) + GUARD

    def fetch(self, placed: Any) -> np.ndarray:
        self._torch.cuda.synchronize()
        return unguarded(placed[0].cpu().numpy(), placed[1])


@dataclass(frozen=True)
class Runner:
    """Calls a function of the library on arrays, wherever it runs."""

    placing: Placing
    library: ctypes.CDLL

    def code(self, function: str, parameters: ctypes.Structure) -> int:
        """Call it with the parameters as they are."""
        return int(getattr(self.library, function)(ctypes.byref(parameters), None))

    def __call__(
        self, function: str, parameters: ctypes.Structure, arrays: Mapping[str, np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """Place the arrays, point the parameters of the same names to them, call, and fetch them all again."""
        placed = {name: self.placing.place(array) for name, array in arrays.items() if array is not None}
        for name, one in placed.items():
            setattr(parameters, name, self.placing.pointer(one))
        assert self.code(function, parameters) == 0
        return {name: self.placing.fetch(one) for name, one in placed.items()}


@dataclass(frozen=True)
class Tolerance:
    """How far floats may lie from a reference: each by `absolute` + `relative` of it, all together by a cosine."""

    absolute: float
    relative: float
    cosine: float

    def check(self, found: np.ndarray, wanted: np.ndarray) -> None:
        """Not-a-numbers must stand where the reference has them."""
        lost = np.isnan(wanted)
        assert (np.isnan(found) == lost).all()
        a, b = found[~lost].astype(np.float64), wanted[~lost].astype(np.float64)
        np.testing.assert_allclose(a, b, rtol=self.relative, atol=self.absolute)
        length = np.linalg.norm(a) * np.linalg.norm(b)
        assert length == 0.0 or (a @ b) / length > self.cosine


HALF = Tolerance(1e-4, 1e-3, 0.999999)  # results rounded to fp16
SINGLE = Tolerance(1e-6, 1e-6, 0.99999999)


def padded(array: np.ndarray, columns: int) -> np.ndarray:
    """Return rows [..., width] with `columns` of poison behind each: a row stride that is not the width."""
    poison = np.full((*array.shape[:-1], columns), np.nan, array.dtype)
    return np.concatenate((array, poison), -1)


def same_bits(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """Whether two runs left the same bytes."""
    return all(a[name].tobytes() == b[name].tobytes() for name in a)
