"""Conditions on columns of obs, as in ``tissue == "blood" and n_genes > 500``: a small part of Python's syntax.

Nothing is evaluated as Python: names are columns, and only comparisons, ``in``, ``and``, ``or``, ``not`` and brackets
are understood. A column whose name is no identifier stands between backticks, as pandas' `query` has it.

Values are compared with values of their own kind: text, numbers, or true and false. A missing value is equal to
nothing, neither less nor greater, in no list, and not true; so ``!=``, ``not in`` and ``not`` choose its cell.
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
Compare = Callable[[Any, Any], Any]

_COMPARISONS: dict[type[ast.cmpop], Compare] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_MIRRORED = {operator.lt: operator.gt, operator.le: operator.ge, operator.gt: operator.lt, operator.ge: operator.le}
_NUMBERS, _BOOLS, _TEXT, _NOTHING = "numbers", "true or false", "text", "nothing"
_INFERRED = {
    "boolean": _BOOLS, "integer": _NUMBERS, "floating": _NUMBERS, "mixed-integer-float": _NUMBERS, "empty": _NOTHING,
}  # fmt: skip
_LONGEST, _DEEPEST = 10_000, 100
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
        if _depth(tree) > _DEEPEST:
            raise UsageError(f"--where is nested more than {_DEEPEST} deep; write it with fewer brackets and nots.")
        found: dict[str, None] = {}
        _check(tree, text, names, found)
        if not found:
            raise UsageError(f"--where is {text!r}, which names no column of obs; {_HELP}.")
        return cls(text, tuple(found), tree, names)

    def holds(self, column: Column, num_cells: int) -> Bools:
        """Say of which cells it is true, bool [N]; a missing value is equal to nothing, and not true.

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
            is_in = _is_in(self._column(left), asked[self._column(left)], list(ast.literal_eval(right)))
            return is_in if isinstance(op, ast.In) else ~is_in
        compare = _COMPARISONS[type(op)]
        if not isinstance(left, ast.Name):
            left, right, compare = right, left, _MIRRORED.get(compare, compare)
        assert isinstance(left, ast.Name)
        name = self._column(left)
        if isinstance(right, ast.Name):
            other = self._column(right)
            return _with_column(name, asked[name], compare, other, asked[other])
        return _with_constant(name, asked[name], compare, ast.literal_eval(right))

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


def _depth(tree: ast.expr) -> int:
    depth, row = 0, [tree]
    while row:
        depth, row = depth + 1, [one for node in row for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
    return depth


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
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant) and isinstance(node.value, str | int | float)


def _is_list(node: ast.expr) -> bool:
    return isinstance(node, ast.List | ast.Tuple | ast.Set) and all(_is_constant(one) for one in node.elts)


def _with_constant(name: str, column: pd.Series[Any], compare: Compare, value: object) -> Bools:
    if _kind(column) not in (_kind_of(value), _NOTHING):
        raise _incomparable(name, column, repr(value))
    known = column.notna().to_numpy(dtype=bool)
    return _compared_where(known, compare, (name, column), value, repr(value))


def _with_column(name: str, column: pd.Series[Any], compare: Compare, other: str, its: pd.Series[Any]) -> Bools:
    said = f"the column {other!r}, which holds {_kind(its)}"
    if _kind(column) != _kind(its) and _NOTHING not in (_kind(column), _kind(its)):
        raise _incomparable(name, column, said)
    known = (column.notna() & its.notna().to_numpy(dtype=bool)).to_numpy(dtype=bool)
    return _compared_where(known, compare, (name, column), np.asarray(its[known]), said)


def _compared_where(
    known: Bools, compare: Compare, named: tuple[str, pd.Series[Any]], value: object, said: str
) -> Bools:
    """Compare what is known; the rest is equal to nothing."""
    found = np.full(len(known), compare is operator.ne)
    try:
        found[known] = np.asarray(compare(np.asarray(named[1][known]), value), dtype=bool)
    except (TypeError, ValueError, OverflowError) as error:
        raise _incomparable(*named, said) from error
    return found


def _is_in(name: str, column: pd.Series[Any], values: list[object]) -> Bools:
    kind = _kind(column)
    for value in values:
        if kind not in (_kind_of(value), _NOTHING):
            raise _incomparable(name, column, repr(value))
    known = column.notna().to_numpy(dtype=bool)
    found = np.zeros(len(known), dtype=bool)
    found[known] = column[known].isin(values).to_numpy(dtype=bool)
    return found


def _incomparable(name: str, column: pd.Series[Any], other: str) -> InputError:
    return InputError(
        f"--where compares the obs column {name!r}, which holds {_kind(column)}, with {other}; compare it with "
        "values of its own kind."
    )


def _truth(column: pd.Series[Any], name: str) -> Bools:
    if _kind(column) not in (_BOOLS, _NOTHING):
        raise InputError(f"--where takes the obs column {name!r} as true or false, but it holds {_kind(column)}.")
    known = column.notna().to_numpy(dtype=bool)
    found = np.zeros(len(known), dtype=bool)
    found[known] = np.asarray(column[known]).astype(bool)
    return found


def _kind(column: pd.Series[Any]) -> str:
    values = column.cat.categories if hasattr(column, "cat") else column
    if values.dtype.kind in "iufb":
        return _BOOLS if values.dtype.kind == "b" else _NUMBERS
    from pandas.api.types import infer_dtype

    return _INFERRED.get(infer_dtype(values, skipna=True), _TEXT)


def _kind_of(value: object) -> str:
    return _TEXT if isinstance(value, str) else _BOOLS if isinstance(value, bool) else _NUMBERS
