"""Names and columns of obs and var, in the layouts that anndata has written since 0.6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells.members import Members, attribute, is_array
from cellscribe.engine.cells.wire import pack_text
from cellscribe.engine.errors import InputError

Array = npt.NDArray[Any]
Column = tuple[dict[str, Any], list[Array]]


class Table:
    """One data frame of a container: a group of columns, or the compound dataset of old files."""

    def __init__(self, guard: Members, parent: Any, key: str) -> None:
        self.guard = guard
        self.where = f"{parent.name.rstrip('/')}/{key}".lstrip("/")
        self.node = guard.member(parent, key)
        self.compound = self.node[()] if is_array(self.node) else None
        if self.compound is not None and not self.compound.dtype.names:
            raise InputError(f"{guard.name}: {self.where} is not a table; write the file with anndata.")

    @property
    def index_key(self) -> str:
        """Name of the column that holds the names."""
        if self.compound is not None:
            names = self.compound.dtype.names
            return "index" if "index" in names else str(names[0])
        key = attribute(self.node, "_index", "_index")
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
        if not is_array(node):
            return self._group_column(node)
        header, arrays = self._plain(self._values(node))
        if header["kind"] == "number" and self.guard.has(self.node, "__categories"):
            return self._with_categories(arrays[0], self.guard.group(self.node, "__categories"), name)
        return header, arrays

    def _values(self, dataset: Any) -> Array | list[str]:
        return dataset[()] if dataset.dtype.kind in "biuf" else self.guard.texts(dataset)

    def _group_column(self, node: Any) -> Column:
        if self.guard.has(node, "codes"):
            return self._with_categories(self.guard.dataset(node, "codes")[()], node, "categories")
        values = self.guard.dataset(node, "values")
        header, arrays = self._plain(self._values(values))
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

    def _with_categories(self, codes: Array, group: Any, key: str) -> Column:
        if not self.guard.has(group, key):
            return self._plain(codes)
        node = self.guard.member(group, key)
        if not is_array(node):
            node = self.guard.dataset(node, "values")
        header, arrays = self._plain(self._values(node))
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


def text_column(texts: Sequence[str]) -> Column:
    """Return texts as a column."""
    return {"kind": "text", "texts": list(texts)}, []
