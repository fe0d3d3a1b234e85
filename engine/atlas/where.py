"""Conditions on columns of obs, as in ``tissue == "blood" and n_genes > 500``: a small part of Python's syntax.

Nothing is evaluated as Python: names are columns, and only comparisons, ``in``, ``and``, ``or``, ``not`` and brackets
are understood. A column whose name is no identifier stands between backticks, as pandas' `query` has it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.errors import InputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]
Column = Callable[[str], "pd.Series[Any]"]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_MIRRORED = {operator.lt: operator.gt, operator.le: operator.ge, operator.gt: operator.lt, operator.ge: operator.le}
_LONGEST = 10_000
_HELP = 'write it as tissue == "blood" and n_genes > 500, with and, or, not, in and brackets'


@dataclass(frozen=True)
class Condition:
    """A condition that was understood; ask it with :meth:`holds`."""

    text: str
    columns: tuple[str, ...]
    _tree: ast.expr
    _names: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Understand a condition.

        Raises
        ------
        UsageError
            For anything but comparisons of columns with constants.
        """
        if len(text) > _LONGEST:
            raise UsageError(f"--where has {len(text):,} characters; {_LONGEST:,} are the most.")
        plain, names = _without_backticks(text)
        try:
            tree = ast.parse(plain.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UsageError(f"--where is {text!r}, which is no condition; {_HELP}.") from error
        found: dict[str, None] = {}
        _check(tree, text, names, found)
        if not found:
            raise UsageError(f"--where is {text!r}, which names no column of obs; {_HELP}.")
        return cls(text, tuple(found), tree, names)

    def holds(self, column: Column, num_cells: int) -> Bools:
        """Say of which cells it is true, bool [N]; a missing value is equal to nothing.

        Parameters
        ----------
        column
            Gives a column of obs by its name.
        num_cells
            Cells N.

        Raises
        ------
        InputError
            For a column that is not there, or cannot be compared with what it is compared with.
        """
        asked = {name: column(name) for name in self.columns}
        return np.asarray(self._of(self._tree, asked, num_cells), dtype=bool)

    def _of(self, node: ast.expr, asked: dict[str, pd.Series[Any]], num_cells: int) -> Bools:
        if isinstance(node, ast.BoolOp):
            parts = [self._of(one, asked, num_cells) for one in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return np.asarray(join.reduce(parts), dtype=bool)
        if isinstance(node, ast.UnaryOp):
            return ~self._of(node.operand, asked, num_cells)
        if isinstance(node, ast.Name):
            return _truth(asked[self._column(node)], self._column(node))
        assert isinstance(node, ast.Compare)
        found = np.ones(num_cells, dtype=bool)
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            found &= self._compared(left, op, right, asked)
        return found

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr, asked: dict[str, pd.Series[Any]]) -> Bools:
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(left, ast.Name)
            values = _plain(asked[self._column(left)])
            is_in = values.isin(list(ast.literal_eval(right))).to_numpy(dtype=bool)
            return is_in if isinstance(op, ast.In) else ~is_in
        compare = _COMPARISONS[type(op)]
        if not isinstance(left, ast.Name):
            left, right, compare = right, left, _MIRRORED.get(compare, compare)
        assert isinstance(left, ast.Name)
        name = self._column(left)
        other = _plain(asked[self._column(right)]) if isinstance(right, ast.Name) else ast.literal_eval(right)
        mine = _plain(asked[name])
        is_text = mine.dtype.kind not in "iufb"
        if not isinstance(right, ast.Name) and is_text != isinstance(other, str):
            raise _incomparable(name, mine, other)
        try:
            told = compare(mine.to_numpy(), other.to_numpy() if isinstance(right, ast.Name) else other)
            found = np.broadcast_to(np.asarray(told, dtype=bool), mine.shape)
        except (TypeError, ValueError) as error:
            raise _incomparable(name, mine, "another column" if isinstance(right, ast.Name) else other) from error
        return found & mine.notna().to_numpy() if compare is not operator.ne else found

    def _column(self, node: ast.Name) -> str:
        return self._names.get(node.id, node.id)


def _without_backticks(text: str) -> tuple[str, dict[str, str]]:
    """Give names to what stands between backticks."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        name = f"_column_{len(names)}_"
        names[name] = found[1]
        return name

    return re.sub(r"`([^`]+)`", named, text), names


def _check(node: ast.expr, text: str, names: dict[str, str], found: dict[str, None]) -> None:
    """Raise UsageError for what is not understood, and note the columns that are named."""

    def note(one: ast.expr) -> bool:
        if isinstance(one, ast.Name):
            found[names.get(one.id, one.id)] = None
            return True
        return False

    match node:
        case ast.BoolOp():
            for one in node.values:
                _check(one, text, names, found)
        case ast.UnaryOp(op=ast.Not()):
            _check(node.operand, text, names, found)
        case ast.Name():
            note(node)
        case ast.Compare():
            for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                is_in = isinstance(op, ast.In | ast.NotIn)
                sides = (left,) if is_in else (left, right)
                named = [note(one) for one in sides]
                fits = any(named) and all(
                    is_name or _is_constant(one) for one, is_name in zip(sides, named, strict=True)
                )
                known = (is_in and _is_list(right)) or type(op) in _COMPARISONS
                if not fits or not known:
                    raise UsageError(f"--where is {text!r}, where {ast.unparse(node)!r} is not understood; {_HELP}.")
        case _:
            raise UsageError(f"--where is {text!r}, where {ast.unparse(node)!r} is not understood; {_HELP}.")


def _is_constant(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
    return isinstance(inner, ast.Constant) and isinstance(inner.value, str | int | float)


def _is_list(node: ast.expr) -> bool:
    return isinstance(node, ast.List | ast.Tuple | ast.Set) and all(_is_constant(one) for one in node.elts)


def _incomparable(name: str, column: pd.Series[Any], other: object) -> InputError:
    return InputError(
        f"--where compares the obs column {name!r}, which holds {_kind(column)}, with {other!r}; compare it with "
        "values of its own kind."
    )


def _plain(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column whose categories stand for themselves."""
    if not hasattr(column, "cat"):
        return column
    numbers = column.cat.categories.dtype.kind in "iuf"
    return column.astype("float64" if numbers else object)


def _truth(column: pd.Series[Any], name: str) -> Bools:
    if column.dtype != bool and str(column.dtype) != "boolean":
        raise InputError(f"--where takes the obs column {name!r} as true or false, but it holds {_kind(column)}.")
    return column.fillna(False).to_numpy(dtype=bool)


def _kind(column: pd.Series[Any]) -> str:
    return "numbers" if column.dtype.kind in "iuf" else "true or false" if column.dtype.kind == "b" else "text"
