"""The weights inside an ONNX file by name, mapped from its data file without the onnx package.

Field numbers: onnx.proto3 of ONNX 1.23. The exporter may store equal tensors once; the names of the others are then in
the model's metadata, as ``alias:<name>`` = the one that was kept. A quantised weight W [K, N] is stored as two tensors,
``W.packed`` and ``W.scales``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from cellscribe.engine.bundle.onnx_external import read_varint
from cellscribe.engine.errors import BundleError

ALIAS = "alias:"
PACKED, SCALES, BLOCK = ".packed", ".scales", 32
# Of weights in 8 bits. With 128, what ONNX Runtime gives a row depends on how many rows there are.
WIDE_BLOCK = 64
_BITS = {BLOCK // 2: 4, BLOCK: 8, WIDE_BLOCK: 8}  # by the bytes of a block
_DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_NORMS = ("RMSNormalization", "LayerNormalization")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Quantized(NamedTuple):
    """A weight [K, N] in blocks along K, ``scale * (code - zero)`` with zero 8 (4 bits) or 128 (8 bits).

    packed
        uint8 [N, ceil(K / block), block] in 8 bits, with blocks of 32 or 64; in 4 bits [N, ceil(K / 32), 16], code 2j
        in the low half of byte j and code 2j + 1 in its high half.
    scales
        float32 [N, ceil(K / block)], numbers that float16 holds exactly, of either sign.
    bits
        4 or 8.
    """

    packed: Bytes
    scales: Floats
    bits: int

    @property
    def block(self) -> int:
        """How many numbers share a scale."""
        return int(self.packed.shape[-1]) * 8 // self.bits

    def fits(self, k: int, n: int) -> bool:
        """Whether this is a weight [k, n]."""
        return self.scales.shape == (n, -(-k // self.block))


@dataclass(frozen=True)
class OnnxWeights:
    """Tensors by name, and the epsilon of every norm by the name of its scale."""

    path: Path
    tensors: Mapping[str, npt.NDArray[np.generic]]
    epsilons: Mapping[str, float]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        """Return a tensor; BundleError when there is none of that name."""
        found = self.get(name)
        if found is None:
            raise BundleError(f"{self.path} holds no weight named {name}; export the bundle anew with this release.")
        return found

    def get(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return a tensor, or None."""
        return self.tensors.get(self.aliases.get(name, name))

    def quantized(self, name: str) -> Quantized | None:
        """Return a weight that is stored quantised; None where it is not."""
        kept = self.aliases.get(name, name)
        packed, scales = self.tensors.get(f"{kept}{PACKED}"), self.tensors.get(f"{kept}{SCALES}")
        if packed is None or scales is None:
            return None
        blocks, width = scales.shape[-1], packed.shape[-1]
        if (
            packed.dtype != np.uint8
            or scales.dtype != np.float32
            or packed.shape != (len(scales), blocks, width)
            or width not in _BITS
        ):
            raise BundleError(f"{self.path} holds a quantised weight {name} of unknown form; quantise the bundle anew.")
        return Quantized(cast("Bytes", packed), cast("Floats", scales), _BITS[width])

    def epsilon(self, scale: str) -> float:
        """Return the epsilon of the norm whose scale has this name."""
        kept = self.aliases.get(scale, scale)
        if kept not in self.epsilons:
            raise BundleError(f"{self.path} has no norm with the scale {scale}; export the bundle anew.")
        return self.epsilons[kept]


def onnx_weights(path: Path) -> OnnxWeights:
    """Map the weights of an ONNX file of a bundle whose files were checked.

    Raises
    ------
    BundleError
        When the file cannot be read.
    """
    try:
        return _read(path)
    except (IndexError, ValueError, KeyError, OSError, struct.error) as error:
        raise BundleError(f"{path} cannot be read ({error}); copy the bundle again or export it anew.") from error


def _read(path: Path) -> OnnxWeights:
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    epsilons: dict[str, float] = {}
    aliases: dict[str, str] = {}
    for number, value in fields(memoryview(path.read_bytes())):
        if number == 7 and isinstance(value, memoryview):  # graph
            for inner, part in fields(value):
                if inner == 5 and isinstance(part, memoryview):  # initializer
                    name, array = _tensor(part, path.parent)
                    if array is not None:
                        tensors[name] = array
                elif inner == 1 and isinstance(part, memoryview):  # node
                    epsilons.update(_epsilon(part))
        elif number == 14 and isinstance(value, memoryview):  # metadata
            key, text = _entry(value)
            if key.startswith(ALIAS):
                aliases[key.removeprefix(ALIAS)] = text
    return OnnxWeights(path, tensors, epsilons, aliases)


def _tensor(data: memoryview, folder: Path) -> tuple[str, npt.NDArray[np.generic] | None]:
    name, kind, raw, dims = "", 0, None, list[int]()
    place: dict[str, str] = {}
    for number, value in fields(data):
        if number == 1:
            dims += [value] if isinstance(value, int) else list(_packed(value))
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == 9 and isinstance(value, memoryview):
            raw = value
        elif number == 13 and isinstance(value, memoryview):
            key, text = _entry(value)
            place[key] = text
    if kind not in _DTYPES:
        return name, None
    dtype = np.dtype(_DTYPES[kind])
    if place:
        offset = int(place.get("offset") or 0)
        return name, np.memmap(folder / place["location"], dtype, "c", offset, tuple(dims) or (1,)).reshape(dims)
    return name, None if raw is None else np.frombuffer(raw, dtype).reshape(dims)


def _epsilon(data: memoryview) -> Iterator[tuple[str, float]]:
    """Yield (name of the scale, epsilon) of a node that is a norm."""
    parts = list(fields(data))
    if not any(n == 4 and isinstance(v, memoryview) and bytes(v).decode() in _NORMS for n, v in parts):
        return
    inputs = [bytes(v).decode() for n, v in parts if n == 1 and isinstance(v, memoryview)]
    for number, value in parts:
        if number == 5 and isinstance(value, memoryview):
            attribute = dict(fields(value))
            name, number_ = attribute.get(1), attribute.get(2)
            if isinstance(name, memoryview) and bytes(name) == b"epsilon" and isinstance(number_, memoryview):
                yield inputs[1], float(struct.unpack("<f", number_)[0])


def _entry(data: memoryview) -> tuple[str, str]:
    pair = {n: bytes(v).decode() for n, v in fields(data) if isinstance(v, memoryview)}
    return pair.get(1, ""), pair.get(2, "")


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = read_varint(data, at)
        yield value


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: numbers as int, everything else as its bytes."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = read_varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(data):
            raise ValueError("a field runs past the end of the file")
        yield tag >> 3, data[at : at + size]
        at += size
