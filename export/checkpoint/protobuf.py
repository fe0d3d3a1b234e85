"""Protocol buffers, as far as reading a few known fields takes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _EIGHT, _COUNTED, _FOUR = 0, 1, 2, 5  # how a value is written
_LONGEST_VARINT = 10


@dataclass(frozen=True)
class Message:
    """The fields of a message by their numbers: an int for a varint, bytes for everything else.

    Everything here raises ValueError where the bytes are no message, or a field is of another kind than is asked for.
    """

    values: dict[int, list[int | bytes]]

    @classmethod
    def of(cls, data: bytes) -> Message:
        """Read a message."""
        values: dict[int, list[int | bytes]] = {}
        for number, value in _fields(data):
            values.setdefault(number, []).append(value)
        return cls(values)

    def each(self, field: int) -> list[bytes]:
        """Return the bytes of a field that may be repeated: strings and messages."""
        found = self.values.get(field, [])
        some = [one for one in found if isinstance(one, bytes)]
        if len(some) < len(found):
            raise ValueError(f"field {field} holds a number")
        return some

    def data(self, field: int) -> bytes:
        """Return the bytes of a field, empty where it is left out."""
        return (self.each(field) or [b""])[-1]

    def number(self, field: int, otherwise: int = 0) -> int:
        """Return a number, `otherwise` where it is left out."""
        found = self.values.get(field, [otherwise])[-1]
        if isinstance(found, bytes):
            raise ValueError(f"field {field} holds no whole number")
        return found

    def single(self, field: int) -> float:
        """Return a number of single precision, 0 where it is left out."""
        found = self.data(field) or bytes(4)
        if len(found) != 4:
            raise ValueError(f"field {field} holds {len(found)} bytes where a number takes 4")
        value: float = struct.unpack("<f", found)[0]
        return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _COUNTED:
            length, at = _varint(data, at)
        elif kind in (_EIGHT, _FOUR):
            length = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"field {number} is of kind {kind}, which there is not")
        if at + length > len(data):
            raise ValueError(f"field {number} is cut off")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise ValueError(f"a number at byte {at} has no end")
