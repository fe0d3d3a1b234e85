"""What of an HDF5 file may be touched: hard links to plain, honestly sized datasets of this one file."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.errors import InputError

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


class Guard:
    """Hands out members of one open file after checking them.

    Parameters
    ----------
    file
        The open file.
    name
        What to call it in messages.
    limits
        Bounds on declared sizes.
    """

    def __init__(self, file: h5py.File, name: str, limits: ReadLimits) -> None:
        self.file = file
        self.name = name
        self.limits = limits

    def has(self, group: Any, key: str) -> bool:
        """Whether `group` has a member `key`, of whatever kind."""
        return isinstance(group, h5py.Group) and key in group.keys()  # noqa: SIM118  `in group` would follow links

    def member(self, group: Any, key: str) -> Any:
        """Return a group or a checked dataset; raise InputError when it is missing, linked or dishonest."""
        path = f"{group.name.rstrip('/')}/{key}".lstrip("/")
        if not self.has(group, key):
            raise InputError(f"{self.name} has no {path}, so it is not complete; write it again, or fetch it again.")
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{self.name}: {path} is a link; store the data itself (copy it with adata.write_h5ad).")
        found = group[key]
        if isinstance(found, h5py.Dataset):
            self._check(found, path)
        elif not isinstance(found, h5py.Group):
            raise InputError(f"{self.name}: {path} is neither a group nor a dataset; write the file with anndata.")
        return found

    def dataset(self, group: Any, key: str) -> h5py.Dataset:
        """Return a checked dataset."""
        found = self.member(group, key)
        if not isinstance(found, h5py.Dataset):
            raise InputError(f"{self.name}: {found.name} is a group where data are expected; write it with anndata.")
        return found

    def whole(self, group: Any, key: str) -> h5py.Dataset:
        """Return a checked dataset."""
        return self.dataset(group, key)

    def group(self, parent: Any, key: str) -> h5py.Group:
        """Return a group."""
        found = self.member(parent, key)
        if not isinstance(found, h5py.Group):
            raise InputError(f"{self.name}: {found.name} is not a group; write the file with anndata.")
        return found

    def texts(self, dataset: h5py.Dataset) -> list[str]:
        """Return a dataset of texts [N]; raise InputError for anything else."""
        if h5py.check_string_dtype(dataset.dtype) is None or dataset.ndim != 1:
            raise InputError(
                f"{self.name}: {dataset.name} holds {dataset.dtype}, where names belong; write it with anndata."
            )
        texts: list[str] = dataset.asstr()[()].tolist()
        return texts

    def scalar(self, dataset: h5py.Dataset) -> Any:
        """Return one number or text; None for anything else."""
        if dataset.shape != ():
            return None
        return dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) is not None else dataset[()]

    def _check(self, dataset: h5py.Dataset, path: str) -> None:
        plist = dataset.id.get_create_plist()
        if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
            raise InputError(
                f"{self.name}: {path} keeps its data in other files; copy the data into the file (adata.write_h5ad)."
            )
        self._check_filters(plist, path)
        self._check_size(dataset, plist, path)

    def _check_filters(self, plist: Any, path: str) -> None:
        codes = {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}
        unknown = {code for code in codes - _FILTERS if not h5py.h5z.filter_avail(code)}
        if unknown and not _load_plugins(unknown):
            raise InputError(
                f"{self.name}: {path} is compressed with a filter that is not installed (HDF5 filter "
                f"{min(unknown)}); `pip install hdf5plugin`, or write the file with compression='gzip'."
            )

    def _check_size(self, dataset: h5py.Dataset, plist: Any, path: str) -> None:
        declared = int(np.prod(dataset.shape or (0,), dtype=object)) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        chunked = plist.get_layout() == h5py.h5d.CHUNKED
        if chunked:
            chunk = int(np.prod(plist.get_chunk(), dtype=object)) * dataset.dtype.itemsize
            declared = max(declared, chunk)
        limit = self.limits.max_expansion if chunked else 1.0
        if declared > self.limits.free_bytes and declared > limit * stored:
            raise InputError(
                f"{self.name}: {path} declares {declared:,} bytes but stores {stored:,}, so it is damaged or hostile; "
                "write it again from the original data with adata.write_h5ad."
            )


def _load_plugins(codes: set[int]) -> bool:
    """Try the compression filters of the package hdf5plugin."""
    try:
        __import__("hdf5plugin")
    except ImportError:
        return False
    return all(h5py.h5z.filter_avail(code) for code in codes)
