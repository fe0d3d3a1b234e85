"""Groups and arrays of a .zarr store, with the few words of h5py's that reading cells needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.zarr_metadata import ArrayFacts

_MOST_KEPT = 256 << 20


class ZarrGroup:
    """A folder of members."""

    def __init__(self, path: Path, name: str, attrs: dict[str, Any]) -> None:
        self.path, self.name, self.attrs = path, name, attrs

    def keys(self) -> list[str]:
        """Names of the members, sorted."""
        with os.scandir(self.path) as entries:
            return sorted(one.name for one in entries if one.is_symlink() or one.is_dir())


class ZarrArray:
    """An array whose last rows stay unpacked: reading on from where the last read ended unpacks no chunk twice."""

    def __init__(self, array: Any, facts: ArrayFacts, name: str, attrs: dict[str, Any], num_missing: int) -> None:
        self.num_missing = num_missing
        self._array, self.name, self.attrs, self.is_text = array, name, attrs, facts.is_text
        self.shape, self.ndim, self.dtype = facts.shape, len(facts.shape), np.dtype(array.dtype)
        row_bytes = int(np.prod(facts.shape[1:], dtype=object)) * facts.element_bytes
        self._step = facts.chunks[0] if facts.shape and facts.chunks[0] * row_bytes <= _MOST_KEPT else 1
        self._low = self._high = 0
        self._kept: npt.NDArray[Any] = np.empty(0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice):
            return np.asarray(self._array[key])
        start, stop, _ = key.indices(len(self))
        if start < self._low or stop > self._high:
            self._read(start, stop)
        return self._kept[start - self._low : stop - self._low]

    def _read(self, start: int, stop: int) -> None:
        low = start - start % self._step
        high = min(len(self), -(-stop // self._step) * self._step)
        if self._low <= low < self._high < high:
            rest = np.asarray(self._array[self._high : high])
            self._kept = np.concatenate((self._kept[low - self._low :], rest))
        else:
            self._kept = np.asarray(self._array[low:high])
        self._low, self._high = low, high
