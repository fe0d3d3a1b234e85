"""What a .zarr array may say of itself: plain numbers or texts, and codecs that do nothing but unpack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cellscribe.engine.errors import InputError

_NUMBERS = {"bool", *(f"{kind}{8 * size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)), "float16", "float32"}
_NUMBERS |= {"float64"}
_TEXTS = {"string", "fixed_length_utf32"}
_TEXT_BYTES = 8  # a pointer
_TEXT_CODECS = {"vlen-utf8"}
_COMPRESSORS = {"blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "shuffle", "delta", "crc32c"}
_V3_CODECS = _TEXT_CODECS | {"bytes", "transpose", "blosc", "zstd", "gzip", "crc32c", "sharding_indexed"}


@dataclass(frozen=True)
class ArrayFacts:
    """Shape, shape of the chunks that are files, bytes of an element, whether it holds texts, and what packs chunks."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    element_bytes: int
    is_text: bool
    packer: str

    @property
    def declared_bytes(self) -> int:
        """Bytes of all elements, or of a chunk where that is more."""
        sizes = (int(np.prod(shape, dtype=object)) if shape else 1 for shape in (self.shape, self.chunks))
        return max(sizes) * self.element_bytes

    @property
    def num_chunks(self) -> int:
        """Number of files when no chunk is left out."""
        pairs = zip(self.shape, self.chunks, strict=True)
        return int(np.prod([-(-size // chunk) for size, chunk in pairs], dtype=object)) if self.shape else 1


def array_facts(metadata: dict[str, Any], where: str) -> ArrayFacts:
    """Check the metadata of an array, of format 2 or 3.

    Raises
    ------
    InputError
        For types and codecs that could run code or hide other files, and for what is not well formed.
    """
    try:
        return _version_2(metadata, where) if metadata.get("zarr_format") == 2 else _version_3(metadata, where)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"The metadata of {where} are damaged ({error}); write the store again.") from error


def _version_2(metadata: dict[str, Any], where: str) -> ArrayFacts:
    filters = [str(one["id"]) for one in metadata.get("filters") or ()]
    compressor = metadata.get("compressor")
    packer = "" if compressor is None else str(compressor["id"])
    _check_codecs([*filters, *([packer] if packer else [])], _COMPRESSORS | _TEXT_CODECS, where)
    text = str(metadata["dtype"])
    if text == "|O":
        if not filters or filters[0] not in _TEXT_CODECS:
            raise InputError(f"{where} holds Python objects, which are never read; write it with anndata.")
        return _facts(metadata["shape"], metadata["chunks"], _TEXT_BYTES, packer, is_text=True)
    dtype = np.dtype(text)
    if dtype.kind not in "biufUS":
        raise InputError(f"{where} holds {dtype}, neither numbers nor names; write it with anndata.")
    return _facts(metadata["shape"], metadata["chunks"], dtype.itemsize, packer, is_text=dtype.kind in "US")


def _version_3(metadata: dict[str, Any], where: str) -> ArrayFacts:
    codecs = metadata["codecs"]
    _check_codecs(_codec_names(codecs), _V3_CODECS, where)
    if metadata.get("storage_transformers"):
        raise InputError(f"{where} is stored by a storage transformer, which cannot be read; write it with anndata.")
    grid, kind = metadata["chunk_grid"], metadata["data_type"]
    if grid["name"] != "regular":
        raise InputError(f"{where} has a chunk grid {grid['name']!r}; write it with anndata.")
    name = kind if isinstance(kind, str) else str(kind["name"])
    if name not in _NUMBERS | _TEXTS:
        raise InputError(f"{where} holds {name}, neither numbers nor names; write it with anndata.")
    size = np.dtype(name).itemsize if name in _NUMBERS else _TEXT_BYTES
    if not isinstance(kind, str):
        size = max(size, int(kind["configuration"]["length_bytes"]))
    packer = (_codec_names(codecs[-1:]) or [""])[0]
    return _facts(metadata["shape"], grid["configuration"]["chunk_shape"], size, packer, is_text=name in _TEXTS)


def _facts(shape: Any, chunks: Any, element_bytes: int, packer: str, *, is_text: bool) -> ArrayFacts:
    whole, parts = tuple(map(int, shape)), tuple(map(int, chunks))
    if len(whole) != len(parts) or min(whole, default=0) < 0 or min(parts, default=1) < 1:
        raise ValueError(f"shape {whole} in chunks of {parts}")
    return ArrayFacts(whole, parts, element_bytes, is_text, packer)


def _codec_names(codecs: Any) -> list[str]:
    """Return the names of codecs, those within shards among them."""
    names: list[str] = []
    for codec in codecs:
        if isinstance(codec, str):
            names.append(codec)
            continue
        names.append(str(codec["name"]))
        inner = codec.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            names += _codec_names(inner.get(key) or ())
    return names


def _check_codecs(names: list[str], known: set[str], where: str) -> None:
    unknown = sorted(set(names) - known)
    if unknown:
        raise InputError(
            f"{where} is stored with the codec {unknown[0]!r}, which is not read from files of others, as it may run "
            "code; write it with anndata."
        )
