"""What an atlas is read from: cell files, folders of them, and patterns, here or behind URLs."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from cellscribe.engine.atlas.urls import cell_urls, is_url, local_path
from cellscribe.engine.cells.kinds import kind_of
from cellscribe.engine.errors import InputError, UsageError

_MAGIC = "*?["


@dataclass(frozen=True)
class CellFile:
    """One input: an .h5ad or 10x .h5 file, or a .zarr or 10x .mtx folder, and a short name that no other one has.

    `path` is text where it is a URL.
    """

    path: Path | str
    name: str


def find_inputs(given: Sequence[str]) -> tuple[CellFile, ...]:
    """Find the cell files that names, folders and patterns stand for: each once, in the order given, sorted within.

    A folder that is no input itself (a .zarr store, a 10x folder) stands for all inputs below it, at any depth.

    Raises
    ------
    InputError
        For a name, folder or pattern that stands for no cells.
    UsageError
        When nothing is given.
    """
    if not given:
        raise UsageError("no input is named; give .h5ad, .zarr, 10x .h5 or .mtx folders, or folders of them.")
    found: dict[Path | str, None] = {}
    for one in given:
        path = local_path(one) if is_url(one) else Path(one)
        if path is None:
            found |= dict.fromkeys(cell_urls(one))
        else:
            found |= {below.resolve(): None for below in _paths_of(str(path))}
    return tuple(_named(list(found)))


def _paths_of(given: str) -> Iterable[Path]:
    path = Path(given)
    if not path.exists() and any(sign in given for sign in _MAGIC):
        matches = sorted(map(Path, glob.glob(given, recursive=True)))
        paths = [one for match in matches for one in _below(match)]
        if not paths:
            raise InputError(f"{given} matches no cells; check the pattern.")
        return paths
    if not path.exists():
        raise InputError(f"there is no file or folder {given}; check the name.")
    paths = _below(path) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"the folder {given} holds no cells; name .h5ad, .zarr, 10x .h5 or .mtx inputs.")
    return paths


def _below(path: Path, seen: set[Path] | None = None) -> list[Path]:
    """Return a path that is an input, or the inputs below a folder; folders that were `seen` are passed over."""
    if kind_of(path) is not None:
        return [path]
    seen = set() if seen is None else seen
    if not path.is_dir() or (folder := path.resolve()) in seen:  # links may lead back
        return []
    seen.add(folder)
    entries = (one for one in sorted(path.iterdir()) if not one.name.startswith("."))
    return [one for entry in entries for one in _below(entry, seen)]


def _named(paths: list[Path | str]) -> Iterable[CellFile]:
    """Name files by their last parts, as many as tell them apart."""
    parts = [PurePath(path).parts for path in paths]
    depth, deepest = 1, max(map(len, parts))
    while depth < deepest and len({one[-depth:] for one in parts}) < len(paths):
        depth += 1
    if len({one[-depth:] for one in parts}) < len(paths):  # URLs that differ by a slash
        parts = [(str(path),) for path in paths]
    for path, own in zip(paths, parts, strict=True):
        yield CellFile(path, "/".join(own[-depth:]))
