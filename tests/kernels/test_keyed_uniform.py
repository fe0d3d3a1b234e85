"""The CUDA kernel compiles and loads wherever nvcc is; on a GPU it must give the CPU's numbers bit for bit."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cellscribe.engine.keyed import stream_keys, uniforms

SOURCE = Path(__file__).resolve().parents[2] / "kernels/keyed_uniform.cu"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc, the CUDA compiler")
    target = tmp_path_factory.mktemp("kernels") / "keyed.so"
    architectures = [f"-gencode=arch=compute_{cc},code=sm_{cc}" for cc in (80, 86, 89, 90, 100, 120)]
    command = [nvcc, "-shared", "-Xcompiler", "-fPIC", "-Xptxas", "-v", *architectures, str(SOURCE), "-o", str(target)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert "spill" not in told or "0 bytes spill stores, 0 bytes spill loads" in told
    return ctypes.CDLL(str(target))


def test_it_compiles_for_every_architecture_and_loads(library: ctypes.CDLL) -> None:
    assert library.cellscribe_keyed_uniform


@pytest.mark.gpu
def test_it_gives_the_numbers_of_the_cpu(library: ctypes.CDLL) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    keys = np.repeat(stream_keys(7, np.arange(1001, dtype=np.uint64)), 9)
    counters = np.tile(np.arange(9), 1001)
    on_device = [torch.from_numpy(a.view(np.int64)).cuda() for a in (keys, counters)]
    out = torch.empty(len(keys), dtype=torch.float32, device="cuda")
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*on_device, out)]
    assert library.cellscribe_keyed_uniform(*pointers, ctypes.c_int64(len(keys)), ctypes.c_void_p(0)) == 0
    torch.cuda.synchronize()
    assert (out.cpu().numpy() == uniforms(keys, counters)).all()
