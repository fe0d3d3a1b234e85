"""Which code made a result: the package's version, and the native library by the hash of its file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cellscribe.engine.versions import versions
from cellscribe.kernels.cpu_library import library_path, load_cpu_library

LIBRARY = "native library"
_DIGITS = 12


def library_hash() -> str | None:
    """Return the first digits of the SHA-256 of the native library's file; None where none can be loaded."""
    path = library_path()
    return None if path is None or load_cpu_library() is None else hash_of(path)


def hash_of(path: Path) -> str:
    """Return the first 12 hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]


def versions_with_library() -> dict[str, str]:
    """Return name -> version of what shapes a result, the native library among it."""
    found = library_hash()
    return versions() if found is None else {**versions(), LIBRARY: found}
