"""Cells in the layout of AnnData, in an HDF5 file or a .zarr store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cellscribe.engine.cells.kinds import Kind
from cellscribe.engine.cells.log10 import AGAIN, MARK, marked
from cellscribe.engine.cells.log_base import plain_base
from cellscribe.engine.cells.matrix_readers import CscReader, CsrReader, DenseReader, MatrixReader
from cellscribe.engine.cells.members import Members, attribute, is_array
from cellscribe.engine.cells.table import Column, Table
from cellscribe.engine.cells.values import layer_origin, obsm_origin
from cellscribe.engine.errors import InputError


class AnndataFile:
    """What :class:`Contents` asks, answered by the members of one container."""

    notes: tuple[str, ...] = ()

    def __init__(self, guard: Members, kind: Kind, tick: Callable[[], None]) -> None:
        self.kind = kind
        self._guard, self._root, self._tick = guard, guard.file, tick
        self._obs = Table(guard, guard.file, "obs")

    @property
    def layers(self) -> list[str]:
        """Names of the layers."""
        has_layers = self._guard.has(self._root, "layers")
        return [str(key) for key in self._guard.group(self._root, "layers").keys()] if has_layers else []  # noqa: SIM118

    @property
    def has_x(self) -> bool:
        """Whether there is an X."""
        return self._is_there("X")

    @property
    def has_raw(self) -> bool:
        """Whether there is a raw.X."""
        return self._raw() is not None

    @property
    def log10(self) -> list[float] | None:
        """What the file says of X as log10(1 + x); what cannot be read there says nothing."""
        guard = self._guard
        try:
            uns = guard.member(self._root, "uns")
            group = guard.member(uns, MARK)
            found = marked(lambda key: guard.scalar(guard.member(group, key)), guard.has(uns, AGAIN))
        except (InputError, AttributeError, ValueError):
            return None
        return None if found is None else found.plain

    @property
    def log_base(self) -> float | None:
        """The base of X's logarithm as scanpy wrote it; what cannot be read there says nothing."""
        guard = self._guard
        try:
            return plain_base(guard.scalar(guard.member(guard.member(guard.member(self._root, "uns"), AGAIN), "base")))
        except (InputError, AttributeError, ValueError):
            return None

    @property
    def obs_columns(self) -> list[str]:
        """Names of the columns of obs."""
        return self._obs.columns()

    @property
    def obsm_names(self) -> list[str]:
        """Names of the arrays that lie beside obs; tables are none."""
        if not self._guard.has(self._root, "obsm"):
            return []
        try:
            group = self._guard.group(self._root, "obsm")
            names = [str(key) for key in group.keys()]  # noqa: SIM118
            return [name for name in names if is_array(self._guard.member(group, name))]
        except InputError:  # old files have one table there
            return []

    def obs_names(self) -> list[str]:
        """Names of the cells."""
        return self._obs.names()

    def obs_column(self, name: str) -> Column:
        """Return one column of obs."""
        return self._obs.column(name)

    def var_columns(self, is_raw: bool) -> list[str]:
        """Names of the columns of var."""
        return self._var(is_raw).columns()

    def var_names(self, is_raw: bool) -> list[str]:
        """Names of the genes."""
        return self._var(is_raw).names()

    def var_column(self, is_raw: bool, name: str) -> Column:
        """Return one column of var."""
        return self._var(is_raw).column(name)

    def open_matrix(self, origin: str) -> MatrixReader:
        """Return the reader of a matrix."""
        parent, key = self._place(origin)
        return open_matrix(self._guard, parent, key, self._tick)

    def _place(self, origin: str) -> tuple[Any, str]:
        if origin == "X":
            return self._root, "X"
        if origin.startswith("obsm["):
            group = self._guard.group(self._root, "obsm")
            return group, next(name for name in self.obsm_names if obsm_origin(name) == origin)
        raw = self._raw()
        if origin == "raw.X" and raw is not None:
            return raw
        layers = self._guard.group(self._root, "layers")
        return layers, next(key for key in self.layers if layer_origin(key) == origin)

    def _raw(self) -> tuple[Any, str] | None:
        if self._guard.has(self._root, "raw.X"):
            return self._root, "raw.X"
        if self._is_there("raw"):
            raw = self._guard.group(self._root, "raw")
            return (raw, "X") if self._guard.has(raw, "X") else None
        return None

    def _is_there(self, key: str) -> bool:
        """Whether the root has a member; AnnData writes some of those it lacks as null."""
        if not self._guard.has(self._root, key):
            return False
        try:
            return attribute(self._guard.member(self._root, key), "encoding-type") != "null"
        except InputError:  # said again when it is read
            return True

    def _var(self, is_raw: bool) -> Table:
        raw = self._raw()
        if not is_raw or raw is None:
            return Table(self._guard, self._root, "var")
        return Table(self._guard, raw[0], "raw.var" if raw[1] == "raw.X" else "var")


def open_matrix(guard: Members, parent: Any, key: str, tick: Callable[[], None]) -> MatrixReader:
    """Return the reader of a matrix; `tick` is called while long work goes on."""
    node = guard.member(parent, key)
    where = f"{node.name.lstrip('/')} of {guard.name}"
    if is_array(node):
        return DenseReader(node, where)
    kind = attribute(node, "encoding-type") or f"{attribute(node, 'h5sparse_format')}_matrix"
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    if kind not in ("csr_matrix", "csc_matrix") or shape is None or len(shape) != 2:
        raise InputError(f"{where} is stored as {kind}, which cannot be read; store it as a CSR or dense matrix.")
    indptr, indices, data = guard.dataset(node, "indptr"), guard.dataset(node, "indices"), guard.whole(node, "data")
    size = (int(shape[0]), int(shape[1]))
    if kind == "csr_matrix":
        return CsrReader(indptr, indices, data, size, where)
    return CscReader(indptr, indices, data, size, where, tick)
