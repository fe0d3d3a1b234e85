"""Which nodes of an ONNX file compute whole numbers: shapes, positions, indices. The onnx package is not needed.

Field numbers: onnx.proto3 of ONNX 1.23.
"""

from __future__ import annotations

from pathlib import Path

from cellscribe.engine.bundle.onnx_weights import fields
from cellscribe.engine.errors import BundleError

_INT64 = 7
_ALWAYS = ("Shape", "Size")


def integer_nodes(path: Path) -> frozenset[str]:
    """Return the names of the nodes whose outputs are all int64; those of unknown type are not among them.

    Raises
    ------
    BundleError
        When the file cannot be read.
    """
    try:
        return _read(memoryview(path.read_bytes()))
    except (IndexError, ValueError, OSError) as error:
        raise BundleError(f"{path} cannot be read ({error}); copy the bundle again or export it anew.") from error


def _read(model: memoryview) -> frozenset[str]:
    integers: set[str] = set()
    nodes: dict[str, tuple[str, list[str]]] = {}
    for graph in _parts(model, 7):
        for number in (11, 12, 13):  # inputs, outputs, and what lies between
            integers.update(name for value in _parts(graph, number) for name in _integer(value))
        for node in _parts(graph, 1):
            operator = "".join(_text(one) for one in _parts(node, 4))
            nodes["".join(_text(one) for one in _parts(node, 3))] = operator, [_text(one) for one in _parts(node, 2)]
    return frozenset(
        name
        for name, (operator, outputs) in nodes.items()
        if name and (operator in _ALWAYS or all(one in integers for one in outputs if one))
    )


def _integer(value: memoryview) -> list[str]:
    """Return the name of a value if it is an int64 tensor."""
    kinds = [
        kind
        for type_ in _parts(value, 2)
        for tensor in _parts(type_, 1)
        for number, kind in fields(tensor)
        if number == 1
    ]
    return [_text(one) for one in _parts(value, 1)] if kinds == [_INT64] else []


def _parts(data: memoryview, wanted: int) -> list[memoryview]:
    return [value for number, value in fields(data) if number == wanted and isinstance(value, memoryview)]


def _text(data: memoryview) -> str:
    return bytes(data).decode()
