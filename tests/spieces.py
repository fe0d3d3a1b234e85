"""spiece.model files made by hand."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def piece(name: str, score: float = 0.0, kind: int = 1) -> bytes:
    return field(1, field(1, name.encode()) + field(2, score) + field(3, kind))


SPECIALS = piece("<pad>", kind=3) + piece("</s>", kind=3) + piece("<unk>", kind=2)
LETTERS = piece("▁", -3.0) + piece("a", -2.0) + piece("b", -2.5) + piece("▁ab", -2.75) + piece("ba", -1.0)


def written(folder: Path, model: bytes, **files: Any) -> Path:
    (folder / "spiece.model").write_bytes(model)
    files = {"tokenizer_config": {"extra_ids": 2}, **files}
    for name, value in files.items():
        (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, dirs_exist_ok=True, copy_function=shutil.copyfile)
    to.chmod(0o755)
    return to
