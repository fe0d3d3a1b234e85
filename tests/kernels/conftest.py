"""The kernels, compiled for the emulator (any machine with g++) and, where there is a GPU, for it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from placing import OnDevice, OnHost

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


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
    includes = ["-DCELLSCRIBE_EMULATED", f"-I{KERNELS}", f"-I{KERNELS / 'include'}"]
    running = []
    for source in sorted(KERNELS.glob("*.cu")):
        made = target.parent / f"{source.stem}.o"
        command = [compiler, *flags, *quiet, *includes, "-x", "c++", "-c", str(source), "-o", str(made)]
        running.append((made, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
    for made, process in running:
        _, told = process.communicate()
        assert process.returncode == 0, told
        assert "warning" not in told, told
    subprocess.run([compiler, "-shared", *(str(made) for made, _ in running), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(emulated_library(tmp_path_factory.mktemp("kernels") / "emulated.so")))


def device_build(target: Path) -> Path:
    """Compile every kernel for the GPU of this machine."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc, the CUDA compiler")
    flags = ["-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-arch=native", "-t", "0"]
    sources = [str(source) for source in sorted(KERNELS.glob("*.cu"))]
    includes = [f"-I{KERNELS}", f"-I{KERNELS / 'include'}"]
    subprocess.run([nvcc, *flags, *includes, *sources, "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="session")
def device_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return ctypes.CDLL(str(device_build(tmp_path_factory.mktemp("kernels") / "device.so")))


@pytest.fixture
def placing_emulated() -> OnHost:
    return OnHost()


@pytest.fixture
def placing_device() -> OnDevice:
    return OnDevice()
