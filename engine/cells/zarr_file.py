""".zarr stores of cells that AnnData wrote, in formats 2 and 3; only folders of this machine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cellscribe.engine.cells.anndata_file import AnndataFile
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.errors import InputError

_NEEDED = {"zarr": (3,), "numcodecs": (0, 16, 6)}  # an older numcodecs can run a pickle
_THREADS = 4


def open_zarr(path: Path, name: str, limits: ReadLimits, tick: Callable[[], None]) -> AnndataFile:
    """Open a store.

    Raises
    ------
    InputError
        When zarr is missing or too old, or the store is none of AnnData's.
    """
    for package, least in _NEEDED.items():
        _check_version(name, package, least)
    import zarr

    from cellscribe.engine.cells.zarr_guard import ZarrGuard

    zarr.config.set({"threading.max_workers": _THREADS, "async.concurrency": _THREADS})  # stacks count as memory
    guard = ZarrGuard(path, name, limits, tick)
    if not guard.has(guard.file, "obs") or not guard.has(guard.file, "var"):
        raise InputError(f"{name} has no obs and var, so it is a .zarr store but none of cells; write it with anndata.")
    return AnndataFile(guard, "zarr", tick)


def _check_version(name: str, package: str, least: tuple[int, ...]) -> None:
    try:
        found = version(package)
    except PackageNotFoundError:
        found = ""
    numbers = tuple(int(part) for part in found.split(".")[: len(least)] if part.isdigit())
    if numbers < least:
        there = f"{package} {found} is" if found else f"no {package} is"
        raise InputError(
            f"{name} is a .zarr store, which needs {package} {'.'.join(map(str, least))} and {there} installed; "
            "install it with: pip install -U 'cellscribe[zarr]'."
        )
