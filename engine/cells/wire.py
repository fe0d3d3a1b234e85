"""Messages between the program and its reading process: a JSON header, then the bytes of plain arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Message = tuple[dict[str, Any], list[Array]]
MAX_HEADER_BYTES = 64 << 20
_DTYPES = ("|b1", "|u1", "|i1", "<i2", "<i4", "<i8", "<u2", "<u4", "<u8", "<f4", "<f8")


def encode(header: dict[str, Any], arrays: Sequence[Array] = ()) -> list[bytes | memoryview]:
    """Return the pieces to write, in order."""
    flat = [np.ascontiguousarray(array) for array in arrays]
    full = header | {"arrays": [[array.dtype.str, list(array.shape)] for array in flat]}
    text = json.dumps(full).encode()
    return [struct.pack("<Q", len(text)), text, *(a.data.cast("B") for a in flat if a.size)]


def decode(read: Callable[[int], bytearray], max_bytes: int) -> tuple[dict[str, Any], list[Array]]:
    """Read one message with `read(n_bytes)`.

    Raises
    ------
    ValueError
        For a message that is not well formed, holds anything but plain numbers, or exceeds `max_bytes`.
    """
    (length,) = struct.unpack("<Q", read(8))
    if length > MAX_HEADER_BYTES:
        raise ValueError("header too long")
    header = json.loads(bytes(read(length)))
    arrays = []
    for dtype, shape in header.pop("arrays"):
        if dtype not in _DTYPES or min(shape, default=0) < 0:
            raise ValueError("unknown array")
        count = int(np.prod(shape, dtype=object)) if shape else 1
        n_bytes = count * np.dtype(dtype).itemsize
        if n_bytes > max_bytes:
            raise ValueError("array too large")
        arrays.append(np.frombuffer(read(n_bytes), dtype=dtype).reshape(shape))
    return header, arrays


def pack_text(texts: Sequence[str]) -> list[Array]:
    """Return strings as two arrays: byte lengths int64 [N] and the UTF-8 bytes."""
    encoded = [text.encode() for text in texts]
    lengths = np.fromiter((len(item) for item in encoded), dtype=np.int64, count=len(encoded))
    return [lengths, np.frombuffer(b"".join(encoded), dtype=np.uint8)]


def unpack_text(lengths: Array, blob: Array) -> list[str]:
    """Return the strings of :func:`pack_text`."""
    if len(lengths) and (lengths.min() < 0 or int(lengths.sum()) != len(blob)):
        raise ValueError("text of the wrong length")
    raw = blob.tobytes()
    bounds = [0, *np.cumsum(lengths).tolist()]
    return [raw[start:stop].decode() for start, stop in pairwise(bounds)]
