"""The models and the cells that come with the package."""

from __future__ import annotations

from pathlib import Path

_BUNDLES = {"demo": "bundle", "demo-c2s": "bundle_c2s"}
SENTENCES = "demo-c2s"  # reads and writes cells as sentences


def _folder() -> Path:
    import cellscribe

    return Path(str(cellscribe.__file__)).parent / "demo"


def packaged_bundle(name: str = "demo") -> Path:
    """Return the folder of a packaged bundle: ``demo`` describes cells, ``demo-c2s`` reads and writes sentences."""
    return _folder() / _BUNDLES[name]


def named_bundle(name: str | Path) -> Path:
    """Return the folder that a user means: a packaged bundle by its name, unless a folder has that name."""
    return packaged_bundle(str(name)) if str(name) in _BUNDLES and not Path(name).is_dir() else Path(name)


def packaged_name(folder: Path) -> str | None:
    """Return the name of the packaged bundle that lies in a folder; None for any other folder."""
    return next((name for name in _BUNDLES if packaged_bundle(name).resolve() == folder.resolve()), None)


def packaged_cells() -> Path:
    """Return the file of the packaged cells: blood cells that were held out of training."""
    return _folder() / "cells.h5ad"


def cells_like_those_of(folder: Path) -> Path | None:
    """Return the packaged cells where a bundle is the packaged one that writes cells: it learned from their kind.

    They tell which words are genes, and the line from rank to expression. None for any other bundle.
    """
    return packaged_cells() if packaged_name(folder) == SENTENCES else None
