"""Where an ONNX file says its weights are, read without the onnx package.

ONNX files are protocol buffers; only the fields on the way to external data are followed, everything else is skipped
by its length. Field numbers: onnx.proto3 of ONNX 1.23.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cellscribe.engine.errors import BundleError

# message -> field number -> message found there
_PATHS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_MAX_DEPTH = 64


@dataclass(frozen=True)
class ExternalData:
    """One tensor's place in another file; `length` None means to the end of the file."""

    location: str
    offset: int = 0
    length: int | None = None


def external_data(path: Path) -> list[ExternalData]:
    """Return every external-data reference of an ONNX file.

    Raises
    ------
    BundleError
        When the file is not a readable ONNX protocol buffer.
    """
    try:
        return list(_walk(memoryview(path.read_bytes()), "Model", 0))
    except (IndexError, ValueError) as error:
        raise BundleError(
            f"{path} is not a readable ONNX file ({error}); copy the bundle again or export it anew."
        ) from error


def _walk(data: memoryview, message: str, depth: int) -> Iterator[ExternalData]:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    entries: dict[str, str] = {}
    for number, value in _fields(data):
        inner = _PATHS[message].get(number)
        if inner == "Entry":
            pair = {n: bytes(v).decode() for n, v in _fields(value)}
            entries[pair.get(1, "")] = pair.get(2, "")
        elif inner:
            yield from _walk(value, inner, depth + 1)
    if entries:
        length = entries.get("length")
        yield ExternalData(
            entries.get("location", ""), int(entries.get("offset") or 0), None if length is None else int(length)
        )


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the length-delimited fields of a message; numbers are skipped."""
    at, end = 0, len(data)
    while at < end:
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = read_varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = read_varint(data, at)
            if at + size > end:
                raise ValueError("a field runs past the end of the file")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number that starts at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
