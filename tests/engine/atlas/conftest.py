"""Fixtures of the tests of atlases."""

from __future__ import annotations

from pathlib import Path

import pytest
from atlas_cells import write_cells


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two inputs; the second repeats cells of the first."""
    folder = tmp_path_factory.mktemp("cells")
    write_cells(folder / "a.h5ad", 40)
    write_cells(folder / "b.h5ad", 23, start=17)
    return folder
