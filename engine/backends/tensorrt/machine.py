"""The GPU of this machine, asked of the driver itself: no torch, no TensorRT, no context."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h


@dataclass(frozen=True)
class Machine:
    """What a plan must fit: the GPU's name, compute capability (89 is 8.9), memory, and the newest CUDA of its driver.

    Without a usable GPU `gpu` is empty and `problem` says why.
    """

    gpu: str = ""
    compute_capability: int = 0
    memory_bytes: int = 0
    cuda: tuple[int, int] = (0, 0)
    problem: str = ""

    def __str__(self) -> str:
        if not self.gpu:
            return self.problem
        return (
            f"{self.gpu}, SM{self.compute_capability}, {self.memory_bytes / 1e9:.1f} GB, "
            f"driver for CUDA {self.cuda[0]}.{self.cuda[1]}"
        )


def short_name(gpu: str) -> str:
    """Turn "NVIDIA GeForce RTX 4090" into rtx4090, "NVIDIA RTX A6000" into a6000, "NVIDIA H100 80GB HBM3" into h100."""
    found: list[str] = re.findall(r"[a-z0-9]+", gpu.lower())
    words = [word for word in found if word not in ("nvidia", "geforce", "tesla", "quadro")]
    if len(words) < 2 or words[0] != "rtx":
        return words[0] if words else "gpu"
    if re.fullmatch(r"a\d+", words[1]):
        return words[1]
    return "".join(words[: 3 if words[1] == "pro" else 2])


def this_machine(index: int = 0) -> Machine:
    """Look at one GPU of this machine."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Machine(problem="no NVIDIA driver (libcuda.so.1 is not found)")
    status = driver.cuInit(0)
    if status:
        return Machine(problem=f"the NVIDIA driver finds no usable GPU (cuInit gave {status})")
    return _look(driver, index)


def _look(driver: ctypes.CDLL, index: int) -> Machine:
    device, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(device), index):
        return Machine(problem=f"the NVIDIA driver has no GPU number {index}")
    name, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(number.value)
    cuda = (version.value // 1000, version.value % 1000 // 10)
    return Machine(name.value.decode(errors="replace"), 10 * numbers[0] + numbers[1], size.value, cuda)
