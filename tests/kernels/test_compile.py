"""Every kernel compiles for every architecture, without spills, and the library loads with all its functions."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from building import INCLUDES, KERNELS, NEWER, SHIPPED, sources

HEADERS = sorted((KERNELS / "include/cellscribe").glob("*.h"))


@dataclass(frozen=True)
class Compiled:
    """Each source's library for some architectures, and what ptxas said about it."""

    architectures: tuple[int, ...]
    files: dict[str, tuple[Path, str]]


@pytest.fixture(scope="module", params=[SHIPPED, pytest.param(NEWER, marks=pytest.mark.slow)], ids=str)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc, the CUDA compiler")
    folder = tmp_path_factory.mktemp("compiled")
    codes = [f"-gencode=arch=compute_{cc},code=sm_{cc}" for cc in request.param]
    flags = ["-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall", "-Xptxas", "-v"]

    def compile_one(source: Path) -> tuple[Path, str]:
        target = folder / f"{source.stem}.so"
        command = [nvcc, *flags, *codes, *INCLUDES, str(source), "-o", str(target)]
        told = subprocess.run(command, check=False, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        return target, told.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # the longest first
        ordered = sorted(sources(), key=lambda one: "attention" not in one.stem and "latent" not in one.stem)
        files = dict(zip((one.stem for one in ordered), pool.map(compile_one, ordered), strict=True))
    return Compiled(request.param, files)


def test_no_kernel_spills_or_warns(compiled: Compiled) -> None:
    for name, (_, told) in compiled.files.items():
        kernels = re.findall(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", told)
        if name == "library":  # has no kernels of its own
            assert not kernels
            continue
        assert {int(cc) for _, cc in kernels} == set(compiled.architectures), name
        spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", told)
        assert len(spills) >= len(kernels), name
        spilling = [k for k, s in zip(kernels, spills, strict=False) if s != ("0", "0")]
        assert not spilling, f"{name}: {spilling}"
        assert "warning" not in told, told


def test_the_libraries_load_with_every_function_of_their_headers(compiled: Compiled) -> None:
    for header in HEADERS:
        for function in re.findall(r"^\w+ (cellscribe_\w+)\(", header.read_text(), re.MULTILINE):
            assert ctypes.CDLL(str(compiled.files[header.stem][0]))[function], function
