"""The model and the cells that come with the package."""

from __future__ import annotations

from pathlib import Path


def _folder() -> Path:
    import cellscribe

    return Path(str(cellscribe.__file__)).parent / "demo"


def packaged_bundle() -> Path:
    """Return the folder of the demonstration bundle."""
    return _folder() / "bundle"


def packaged_cells() -> Path:
    """Return the file of the packaged cells: blood cells that were held out of the demonstration's training."""
    return _folder() / "cells.h5ad"
