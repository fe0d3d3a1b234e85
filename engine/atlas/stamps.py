"""Whether an input is still what it was: a stamp that costs nothing, and a digest of every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cellscribe.engine.cells.kinds import kind_of
from cellscribe.engine.errors import InputError


def stamp_of(path: Path) -> str:
    """Return what changes when a file is written: its size and time, or those of all files of a folder.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        if path.is_dir():
            told = "\n".join(f"{one.relative_to(path).as_posix()} {_stamp(one)}" for one in _files_of(path))
            return hashlib.sha256(told.encode()).hexdigest()[:32]
        return _stamp(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def digest_of(path: Path) -> str:
    """Return 32 hex digits that change with any byte of a file, or of the files of a folder.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        if not path.is_dir():
            return _digest(path)
        told = "\n".join(f"{one.relative_to(path).as_posix()} {_digest(one)}" for one in _files_of(path))
        return hashlib.sha256(told.encode()).hexdigest()[:32]
    except OSError as error:
        raise _unreadable(path, error) from error


def _stamp(file: Path) -> str:
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:32]


def _files_of(folder: Path) -> Iterator[Path]:
    """Give the files of a .zarr store at any depth, or those that lie in a 10x folder, in order."""
    is_10x = kind_of(folder) == "10x-mtx"
    found = (one for one in folder.iterdir() if not one.name.startswith(".")) if is_10x else folder.rglob("*")
    yield from sorted(one for one in found if one.is_file())


def _unreadable(path: Path, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"there is no file or folder {path}, or not all of it; check the name.")
    return InputError(f"{path} cannot be read ({error.strerror}); check its permissions.")
