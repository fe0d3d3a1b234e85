"""What takes long to make and all tests share: made once, whatever the number of processes that run them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a path that `make` filled; it must appear there whole, as what an export renames into place does."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all processes
    shared = base / "shared"
    shared.mkdir(exist_ok=True)
    path = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not path.exists():
            make(path)
    return path
