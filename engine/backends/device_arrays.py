"""Arrays in the memory of a device, by ONNX Runtime alone: rows of them are bound, written and read by address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.backends.base import Array
from cellscribe.engine.backends.sessions import Device

NO_CAPTURE = "-1"  # the graph id of runs that are not to become a CUDA graph


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array on a device, or a block of rows of one.

    It looks enough like NumPy for whoever passes it on: `shape`, `dtype`, ``array[i]`` and ``len(array)``, and like
    torch for whoever wants it on the host: ``array.cpu().numpy()``.
    """

    owner: Any  # the OrtValue that holds the memory
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: Device
    session: ort.InferenceSession  # any one: views are made with a binding of it

    @classmethod
    def empty(
        cls, session: ort.InferenceSession, shape: tuple[int, ...], dtype: npt.DTypeLike, device: Device
    ) -> DeviceArray:
        """Allocate an array; what it holds is undefined.

        The memory comes from an arena that all sessions share, and which the options of none of them reach: it grows
        by powers of two, so that arrays may take up to twice their bytes. How much they do was not measured.
        """
        kind = np.dtype(dtype)
        size = [max(prod(shape), 1)]  # an array without elements has an address all the same
        owner = ort.OrtValue.ortvalue_from_shape_and_type(size, kind.type, device.kind, device.number)
        return cls(owner, owner.data_ptr(), tuple(shape), kind, device, session)

    @classmethod
    def zeros(
        cls, session: ort.InferenceSession, shape: tuple[int, ...], dtype: npt.DTypeLike, device: Device
    ) -> DeviceArray:
        """Allocate an array of zeros, row by row, so that the host holds one row of them at most."""
        made = cls.empty(session, shape, dtype, device)
        row = np.zeros((1, *shape[1:]), dtype)
        for i in range(shape[0]):
            made.rows(i, i + 1).write(row)
        return made

    @classmethod
    def of(cls, session: ort.InferenceSession, array: Array, device: Device) -> DeviceArray:
        """Copy a host array to the device."""
        made = cls.empty(session, array.shape, array.dtype, device)
        made.write(array)
        return made

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> DeviceArray:
        """Return one row, without its axis."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self.rows(index, index + 1)
        return row.shaped(self.shape[1:])

    def rows(self, start: int, stop: int) -> DeviceArray:
        """Return rows start..stop-1, in place."""
        step = prod(self.shape[1:]) * self.dtype.itemsize
        shape = (stop - start, *self.shape[1:])
        return DeviceArray(self.owner, self.address + start * step, shape, self.dtype, self.device, self.session)

    def shaped(self, shape: tuple[int, ...]) -> DeviceArray:
        """Return the same elements under another shape."""
        return DeviceArray(self.owner, self.address, shape, self.dtype, self.device, self.session)

    def write(self, source: Array | DeviceArray) -> None:
        """Copy a host array, or one of the device, into this one; shapes and types are equal.

        Between arrays of the device this may return before the copy is done; a later write from the host waits for it.
        """
        if source.shape != self.shape or source.dtype != self.dtype:
            raise ValueError(f"{source.shape} {source.dtype} does not fit {self.shape} {self.dtype}")
        if prod(self.shape):
            value = source.value() if isinstance(source, DeviceArray) else np.ascontiguousarray(source)
            self.value().update_inplace(value)

    def read(self) -> Array:
        """Copy it to the host."""
        if not prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        found: Array = np.array(self.value().numpy(), copy=True)
        return found

    def cpu(self) -> DeviceArray:
        """Return itself; its ``numpy()`` is a copy on the host."""
        return self

    def numpy(self) -> Array:
        """Copy it to the host."""
        return self.read()

    def value(self) -> Any:
        """Return an OrtValue on this memory; `owner` must outlive it."""
        binding = self.session.io_binding()
        name = self.session.get_outputs()[0].name
        binding.bind_output(name, self.device.kind, self.device.number, self.dtype.type, list(self.shape), self.address)
        return binding.get_outputs()[0]


class DeviceRun:
    """One set of device arrays bound to a session: run as often as wanted.

    An array bound as input and as output is updated in place. `graph_id` numbers the CUDA graph that the runs become
    where the session captures; without it they never do.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
        graph_id: str = NO_CAPTURE,
    ) -> None:
        self._session, self._arrays = session, (dict(inputs), dict(outputs))  # kept alive
        self._binding = session.io_binding()
        for name, array in inputs.items():
            self._binding.bind_input(name, *_place(array))
        for name, array in outputs.items():
            self._binding.bind_output(name, *_place(array))
        self._options = ort.RunOptions()
        self._options.only_execute_path_to_fetches = True  # evidence nobody asked for costs nothing
        self._options.add_run_config_entry("gpu_graph_id", graph_id)

    def __call__(self) -> None:
        """Run the graph on the bound arrays, and wait for it."""
        self._session.run_with_iobinding(self._binding, self._options)


def _place(array: DeviceArray) -> tuple[str, int, Any, list[int], int]:
    return array.device.kind, array.device.number, array.dtype.type, list(array.shape), array.address


def stretches(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int, bool]]:
    """Yield the runs of equal values of a mask [S] as (start, stop, value)."""
    cuts = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
    yield from ((a, b, bool(mask[a])) for a, b in pairwise(cuts) if b > a)
