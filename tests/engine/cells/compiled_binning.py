"""The compiled binning, from the package's library or compiled here alone."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from cellscribe.engine.cells import native_binning
from cellscribe.engine.cells.native_binning import NativeBinning

SOURCES = Path(__file__).resolve().parents[3] / "kernels" / "cpu"


def compile_binning(folder: Path) -> NativeBinning:
    """Compile the binning of this tree; the test is skipped without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    target = folder / "binning.so"
    flags = ["-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"]
    command = [compiler, *flags, f"-I{SOURCES / 'include'}", str(SOURCES / "binning.cpp"), "-o", str(target)]
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "warning" not in told.stderr, told.stderr
    found = native_binning.opened(ctypes.CDLL(str(target)))
    assert found is not None
    return found


@contextmanager
def using(native: NativeBinning | None) -> Iterator[None]:
    """Let the engine find these functions, or none."""
    with patch.object(native_binning, "find_native", lambda: native):
        yield
