"""Rows of tensors at addresses that TensorRT takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cellscribe.engine.backends.tensorrt.device import Device, Tensor

ALIGNED = 256  # bytes: every address that TensorRT gets is to be a multiple of this


def starts_aligned(tensor: Tensor) -> bool:
    """Whether every row of an aligned tensor lies at an aligned address."""
    row: int = tensor[:1].numel() * tensor.element_size()
    return row % ALIGNED == 0


class Rows:
    """Neighbouring rows of tensors, at most `batch`; those that may lie anywhere pass through memory of their own."""

    def __init__(self, device: Device, tensors: Mapping[str, Tensor], batch: int) -> None:
        self._tensors = dict(tensors)
        self._staged = {
            name: device.zeros((batch, *tensor.shape[1:]), tensor.dtype)
            for name, tensor in tensors.items()
            if not starts_aligned(tensor)
        }

    def part(self, rows: slice) -> dict[str, Tensor]:
        """Return the rows of every tensor, to be bound."""
        count = rows.stop - rows.start
        part = {name: tensor[rows] for name, tensor in self._tensors.items()}
        return part | {name: staged[:count] for name, staged in self._staged.items()}

    def bring(self, names: Iterable[str], rows: slice) -> None:
        """Copy rows in before a run."""
        for name in self._staged.keys() & names:
            self._staged[name][: rows.stop - rows.start].copy_(self._tensors[name][rows])

    def take_back(self, rows: slice) -> None:
        """Copy all rows back after a run."""
        for name, staged in self._staged.items():
            self._tensors[name][rows].copy_(staged[: rows.stop - rows.start])
