"""The golden cells of Cell2Sentence, and the compiled ranking of this tree."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from anndata import read_h5ad
from golden_sentences import Golden

from cellscribe.engine.sentences import native

SOURCES = Path(__file__).resolve().parents[3] / "kernels" / "cpu"


@pytest.fixture(scope="session")
def golden(shared: Path) -> Golden:
    """Fixture ``c2s`` with the cells that it was made of."""
    folder = shared / "fixtures" / "c2s"
    vocab, benchmark, inverse = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("vocab", "benchmark", "inverse")
    )
    sentences, vectors = (dict(np.load(folder / f"{name}.npz")) for name in ("sentences", "inverse_vectors"))
    cells = read_h5ad(shared / "data" / "zheng68k.h5ad")[vocab["cells_used"]].copy()
    return Golden(vocab, sentences, benchmark, inverse, vectors, cells)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> native.NativeSentences:
    """The compiled functions of this tree; the test is skipped without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    target = tmp_path_factory.mktemp("sentences") / "sentences.so"
    flags = ["-std=c++20", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *flags, f"-I{SOURCES / 'include'}", str(SOURCES / "sentences.cpp"), "-o", str(target)]
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    found = native.opened(ctypes.CDLL(str(target)))
    assert found is not None
    return found
