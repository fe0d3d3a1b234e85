"""The kernels as shared libraries: compiled by g++ for the emulator, or by nvcc for a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
INCLUDES = [f"-I{KERNELS}", f"-I{KERNELS / 'include'}"]
SHIPPED, NEWER = (80, 89, 90), (86, 100, 120)  # compute capabilities: of a wheel, and what a full build adds


def sources() -> list[Path]:
    return sorted(KERNELS.glob("*.cu"))


def emulated_library(target: Path) -> Path:
    """Compile every kernel with the emulator."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ to run the kernels in the emulator")
    flags = [
        "-std=c++17",
        "-O2",
        "-march=native",
        "-ffp-contract=off",
        "-fPIC",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
    ]
    quiet = ["-Wno-unknown-pragmas", "-Wno-unused-function"]

    def compile_one(source: Path) -> str:
        made = str(target.parent / f"{source.stem}.o")
        command = [compiler, *flags, *quiet, "-DCELLSCRIBE_EMULATED", *INCLUDES, "-x", "c++", "-c", str(source)]
        told = subprocess.run([*command, "-o", made], check=False, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        assert "warning" not in told.stderr, told.stderr
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources()))
    subprocess.run([compiler, "-shared", *objects, "-o", str(target)], check=True)
    return target


def device_library(target: Path) -> Path:
    """Compile every kernel for the GPU of this machine."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc, the CUDA compiler")
    flags = ["-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-arch=native", "-t", "0"]
    subprocess.run([nvcc, *flags, *INCLUDES, *map(str, sources()), "-o", str(target)], check=True)
    return target


def has_gpu() -> bool:
    """Whether torch sees one."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return bool(torch.cuda.is_available())
