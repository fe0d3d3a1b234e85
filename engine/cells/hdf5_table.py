"""Names and columns of obs and var, in the layouts that anndata has written since 0.6."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.hdf5_guard import Guard
from cellscribe.engine.cells.wire import pack_text
from cellscribe.engine.errors import InputError

Array = npt.NDArray[Any]
Column = tuple[dict[str, Any], list[Array]]


class Table:
    """One data frame of the file: a group of columns, or the compound dataset of old files."""

    def __init__(self, guard: Guard, parent: Any, key: str) -> None:
        self.guard = guard
        self.where = f"{parent.name.rstrip('/')}/{key}".lstrip("/")
        self.node = guard.member(parent, key)
        self.compound = None if isinstance(self.node, h5py.Group) else self.node[()]
        if self.compound is not None and not self.compound.dtype.names:
            raise InputError(f"{guard.name}: {self.where} is not a table; write the file with anndata.")

    @property
    def index_key(self) -> str:
        """Name of the column that holds the names."""
        if self.compound is not None:
            names = self.compound.dtype.names
            return "index" if "index" in names else str(names[0])
        key = self.node.attrs.get("_index", "_index")
        key = key.decode() if isinstance(key, bytes) else str(key)
        return key if self.guard.has(self.node, key) else "index"

    def columns(self) -> list[str]:
        """Names of the columns, the index not among them."""
        names = self.compound.dtype.names if self.compound is not None else self.node.keys()
        return [str(name) for name in names if name not in (self.index_key, "__categories")]

    def names(self) -> list[str]:
        """Return the index.

        Raises
        ------
        InputError
            When it holds numbers and not names.
        """
        header, arrays = self.column(self.index_key)
        if header["kind"] == "text":
            texts: list[str] = header["texts"]
            return texts
        if header["kind"] == "categorical" and header["texts"] is not None:
            codes = arrays[0]
            if not len(codes) or (codes.min() >= 0 and codes.max() < len(header["texts"])):
                return [header["texts"][code] for code in codes]
        frame = "var_names" if "var" in self.where else "obs_names"
        raise InputError(
            f"{self.guard.name}: the index of {self.where} holds no names; "
            f"run adata.{frame} = adata.{frame}.astype(str) and write the file again."
        )

    def column(self, name: str) -> Column:
        """Return a column as a header and arrays; texts stay in the header's ``texts`` until they are packed."""
        if self.compound is not None:
            return self._old_column(name)
        node = self.guard.member(self.node, name)
        if isinstance(node, h5py.Group):
            return self._group_column(node)
        header, arrays = self._plain(node[()] if _is_number(node) else _texts(node, self.guard.name))
        if header["kind"] == "number" and self.guard.has(self.node, "__categories"):
            return self._with_categories(arrays[0], self.guard.group(self.node, "__categories"), name)
        return header, arrays

    def _group_column(self, node: h5py.Group) -> Column:
        if self.guard.has(node, "codes"):
            return self._with_categories(self.guard.dataset(node, "codes")[()], node, "categories")
        values = self.guard.dataset(node, "values")
        header, arrays = self._plain(values[()] if _is_number(values) else _texts(values, self.guard.name))
        if not self.guard.has(node, "mask"):
            return header, arrays
        mask = self.guard.dataset(node, "mask")[()].astype(bool)
        return header | {"masked": True}, [*arrays, mask]

    def _old_column(self, name: str) -> Column:
        assert self.compound is not None
        header, arrays = self._plain(self.compound[name])
        root = self.guard.file
        key = f"{name}_categories"
        if header["kind"] == "number" and self.guard.has(root, "uns"):
            return self._with_categories(arrays[0], self.guard.group(root, "uns"), key)
        return header, arrays

    def _with_categories(self, codes: Array, group: h5py.Group, key: str) -> Column:
        if not self.guard.has(group, key):
            return self._plain(codes)
        node = self.guard.member(group, key)
        if isinstance(node, h5py.Group):
            node = self.guard.dataset(node, "values")
        header, arrays = self._plain(node[()] if _is_number(node) else _texts(node, self.guard.name))
        texts = header["texts"]
        if codes.dtype.kind not in "iu" or codes.ndim != 1:
            raise InputError(f"{self.guard.name}: {node.name} has codes that are not whole numbers; write it again.")
        return {"kind": "categorical", "texts": texts}, [codes.astype("<i4"), *([] if texts is not None else arrays)]

    def _plain(self, values: Array | list[str]) -> Column:
        if isinstance(values, np.ndarray) and values.dtype.kind in "SO":
            values = [item.decode() if isinstance(item, bytes) else str(item) for item in values.ravel()]
        if isinstance(values, list):
            return {"kind": "text", "texts": values}, []
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise InputError(f"{self.guard.name}: a column of {self.where} holds {values.dtype} and cannot be read.")
        wide = values.astype("<f4") if values.dtype == np.float16 else values
        return {"kind": "number", "texts": None}, [wide.astype(wide.dtype.newbyteorder("<"), copy=False)]


def packed(column: Column) -> Column:
    """Return a column with its texts turned into arrays, ready to be sent."""
    header, arrays = column
    texts = header.pop("texts")
    return header | {"has_texts": texts is not None}, [*arrays, *(pack_text(texts) if texts is not None else [])]


def _is_number(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.kind in "biuf"


def _texts(dataset: h5py.Dataset, name: str) -> list[str]:
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.ndim != 1:
        raise InputError(f"{name}: {dataset.name} holds {dataset.dtype}, where names belong; write it with anndata.")
    texts: list[str] = dataset.asstr()[()].tolist()
    return texts
