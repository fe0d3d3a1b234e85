"""The file of external weights of an ONNX graph, written tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from onnx import StringStringEntryProto, TensorProto, helper

_ALIGNMENT = 64  # so that a mapped tensor starts where vector loads and cache lines do
_PIECE = 1 << 22  # numbers converted at a time


class DataFile:
    """A data file to append to; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> DataFile:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, name: str, array: npt.NDArray[np.generic], dtype: npt.DTypeLike | None = None) -> TensorProto:
        """Write an array, converted a few MiB at a time where `dtype` says so; return the tensor that points to it.

        Raises
        ------
        ValueError
            When a finite number becomes infinite in `dtype`.
        """
        kind = np.dtype(array.dtype if dtype is None else dtype)
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        offset, flat = self._file.tell(), array.reshape(-1)
        for at in range(0, flat.size, _PIECE):
            piece = flat[at : at + _PIECE]
            with np.errstate(over="ignore"):
                written = piece.astype(kind, copy=False)
            if kind != array.dtype and not np.isfinite(written).all():
                raise ValueError(f"it holds numbers that {kind} does not")
            written.tofile(self._file)
        return _external(name, array.shape, kind, self.path.name, offset, self._file.tell() - offset)


def _external(
    name: str, shape: tuple[int, ...], kind: np.dtype[np.generic], location: str, offset: int, length: int
) -> TensorProto:
    place = {"location": location, "offset": str(offset), "length": str(length)}
    return TensorProto(
        name=name,
        dims=shape,
        data_type=helper.np_dtype_to_tensor_dtype(kind),
        data_location=TensorProto.EXTERNAL,
        external_data=[StringStringEntryProto(key=key, value=value) for key, value in place.items()],
    )
