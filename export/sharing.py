"""Weights that two graphs have in common, stored once."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import TensorProto

_ALIGNMENT = 64


class _Place(NamedTuple):
    file: str
    offset: int
    length: int


def share_weights(folder: Path, first: str, second: str) -> int:
    """Let a graph read from another one's data file what both hold under one name and bit for bit.

    Parameters
    ----------
    folder
        Where both lie, each with a data file of its own.
    first, second
        Names of the graphs; the second one changes, and its data file shrinks.

    Returns
    -------
    The bytes that are saved.
    """
    known = {t.name: t for t in onnx.load(str(folder / first), load_external_data=False).graph.initializer}
    model = onnx.load(str(folder / second), load_external_data=False)
    old = folder / f"{second}.data"
    new, saved = folder / f"{second}.data.new", 0
    with _Mapped(folder) as mapped, new.open("wb") as out:
        for tensor in model.graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                continue
            place = _place(tensor)
            other = known.get(tensor.name)
            if other is not None and other.data_location == TensorProto.EXTERNAL and _is_like(tensor, other):
                theirs = _place(other)
                if mapped.read(theirs) == mapped.read(place):
                    _point(tensor, theirs)
                    saved += place.length
                    continue
            out.write(bytes(-out.tell() % _ALIGNMENT))
            _point(tensor, _Place(old.name, out.tell(), place.length))
            out.write(mapped.read(place))
    new.replace(old)
    onnx.save(model, str(folder / second))
    return saved


class _Mapped:
    """Data files of a folder, mapped into memory as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, mmap.mmap] = {}

    def __enter__(self) -> _Mapped:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._maps.values():
            one.close()

    def read(self, place: _Place) -> bytes:
        """Return the bytes of a place."""
        if place.file not in self._maps:
            with (self._folder / place.file).open("rb") as file:
                self._maps[place.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[place.file][place.offset : place.offset + place.length]


def _is_like(one: TensorProto, other: TensorProto) -> bool:
    return one.data_type == other.data_type and list(one.dims) == list(other.dims)


def _place(tensor: TensorProto) -> _Place:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return _Place(entries["location"], int(entries.get("offset", "0")), int(entries["length"]))


def _point(tensor: TensorProto, place: _Place) -> None:
    del tensor.external_data[:]
    for key, value in (("location", place.file), ("offset", str(place.offset)), ("length", str(place.length))):
        tensor.external_data.add(key=key, value=value)
