"""Checks source code against the signatures that real bindings carry in their docstrings.

What a name stands for is followed from annotations (an alias of ``Any`` with the class's name), from calls whose
signature says what they return, and from attributes of ``self`` that were assigned such values.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Signature:
    """Parameter names, how many must be given, and the class that is returned."""

    names: tuple[str, ...]
    required: int
    returns: str

    def takes(self, call: ast.Call) -> bool:
        """Whether a call has the right number of arguments and no unknown name."""
        named = {keyword.arg for keyword in call.keywords}
        given = len(call.args) + len(named)
        return named <= set(self.names) and self.required <= given <= len(self.names)


def signatures(documented: str, name: str) -> list[Signature]:
    """Read the overloads of a function from a docstring of pybind11."""
    found = []
    for line in documented.splitlines():
        if match := re.match(rf"^(?:\d+\. )?{name}\((.*)\) -> (.+?)$", line.strip()):
            parts = [p.strip() for p in _split(match[1])]
            parts = [p for p in parts if p and not p.startswith("self")]
            names = tuple(p.partition(":")[0].strip() for p in parts)
            required = sum("=" not in p for p in parts)
            found.append(Signature(names, required, re.findall(r"\w+", match[2])[-1]))
    return found


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[(<") - (char in "])>")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return parts


@dataclass
class Checker:
    """Walks source files and collects what the bindings do not have; `checked` counts what was looked at."""

    trt: Any
    problems: list[str] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)

    def check(self, path: Path) -> None:
        """Check one file."""
        tree = ast.parse(path.read_text())
        for scope in ast.walk(tree):
            if isinstance(scope, ast.ClassDef):
                attributes = self._attributes(scope)
                for function in (n for n in scope.body if isinstance(n, ast.FunctionDef)):
                    self._function(path, function, attributes)
            elif isinstance(scope, ast.Module):
                for function in (n for n in scope.body if isinstance(n, ast.FunctionDef)):
                    self._function(path, function, {})

    def _attributes(self, scope: ast.ClassDef) -> dict[str, str]:
        """Follow ``self.x = value`` in every method."""
        found: dict[str, str] = {}
        for function in (n for n in scope.body if isinstance(n, ast.FunctionDef)):
            names = self._names(function, {})
            for node in ast.walk(function):
                for target, value in _assignments(node):
                    kind = self._kind(value, names)
                    if ast.unparse(target).startswith("self.") and kind:
                        found[ast.unparse(target)] = kind
        return found

    def _names(self, function: ast.FunctionDef, known: dict[str, str]) -> dict[str, str]:
        names = {"trt": "", "installed.trt": "", "self._trt": "", "self._installed.trt": "", **known}
        for argument in (*function.args.args, *function.args.kwonlyargs):
            if argument.annotation is not None and hasattr(self.trt, ast.unparse(argument.annotation)):
                names[argument.arg] = ast.unparse(argument.annotation)
        for node in ast.walk(function):
            if isinstance(node, ast.AnnAssign) and hasattr(self.trt, ast.unparse(node.annotation)):
                names[ast.unparse(node.target)] = ast.unparse(node.annotation)
            for target, value in _assignments(node):
                kind = self._kind(value, names)
                if kind is not None:
                    names[ast.unparse(target)] = kind
        return names

    def _kind(self, value: ast.expr, names: dict[str, str]) -> str | None:
        """Return the class of an expression, "" for the module, None where it is not TensorRT's."""
        text = ast.unparse(value)
        if text in names:
            return names[text]
        if isinstance(value, (ast.ListComp, ast.IfExp)):
            return self._kind(value.elt if isinstance(value, ast.ListComp) else value.body, names)
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            owner = self._kind(value.func.value, names)
            if owner is None:
                return None
            if not owner and isinstance(getattr(self.trt, value.func.attr, None), type):
                return value.func.attr
            kinds = [s.returns for s in self._overloads(owner, value.func.attr) if hasattr(self.trt, s.returns)]
            return kinds[0] if kinds else None
        return None

    def _overloads(self, owner: str, name: str) -> list[Signature]:
        thing = getattr(getattr(self.trt, owner) if owner else self.trt, name, None)
        if isinstance(thing, type):
            return signatures(thing.__init__.__doc__ or "", "__init__")
        return signatures(getattr(thing, "__doc__", None) or "", name)

    def _function(self, path: Path, function: ast.FunctionDef, attributes: dict[str, str]) -> None:
        names = self._names(function, attributes)
        for node in ast.walk(function):
            if isinstance(node, ast.For) and (kind := self._kind(node.iter, names)):
                names[ast.unparse(node.target)] = kind
            if isinstance(node, ast.Attribute):
                self._attribute(path, node, names)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                self._call(path, node, node.func, names)

    def _attribute(self, path: Path, node: ast.Attribute, names: dict[str, str]) -> None:
        text = ast.unparse(node.value)
        owner = self._kind(node.value, names)
        place: Any = None
        if owner is not None:
            place, where = (getattr(self.trt, owner) if owner else self.trt), owner or "trt"
        elif isinstance(node.value, ast.Attribute) and names.get(ast.unparse(node.value.value)) == "":
            place, where = getattr(self.trt, node.value.attr, None), f"trt.{node.value.attr}"
        if place is None:
            return
        self.checked.add(f"{where}.{node.attr}")
        if not hasattr(place, node.attr):
            self.problems.append(f"{path.name}:{node.lineno}: {text}.{node.attr}: {where} has no {node.attr}")

    def _call(self, path: Path, call: ast.Call, function: ast.Attribute, names: dict[str, str]) -> None:
        owner = self._kind(function.value, names)
        if owner is None:
            return
        overloads = self._overloads(owner, function.attr)
        if (
            overloads
            and not any(one.takes(call) for one in overloads)
            and not any(isinstance(argument, ast.Starred) for argument in call.args)
        ):
            self.problems.append(f"{path.name}:{call.lineno}: {ast.unparse(call)} does not fit {overloads}")


def _assignments(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Return targets and values of an assignment, pairs of tuples apart."""
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return [(node.target, node.value)]
    if not isinstance(node, ast.Assign):
        return []
    found: list[tuple[ast.expr, ast.expr]] = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            found += zip(target.elts, node.value.elts, strict=False)
        else:
            found.append((target, node.value))
    return found
