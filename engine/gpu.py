"""The NVIDIA GPUs of this machine, as the driver's own tool reports them; no CUDA library is loaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FIELDS = "index,uuid,name,driver_version,compute_cap,memory.total,memory.free"
_MIB = 1 << 20
_SECONDS = 20


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, driver, compute capability ("8.9"), and bytes of memory in all and free."""

    index: int
    uuid: str
    name: str
    driver: str
    compute: str
    total_bytes: int
    free_bytes: int

    def line(self) -> str:
        """Say it in words."""
        memory = f"{self.free_bytes / 1e9:.1f} GB free of {self.total_bytes / 1e9:.1f} GB"
        return f"{self.name}, compute capability {self.compute}, driver {self.driver}, {memory}"


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA programs of this process see, in CUDA's order; none without a working driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = [gpu for line in done.stdout.splitlines() if (gpu := _parse(line)) is not None]
    return visible(found, os.environ)


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return those that CUDA_VISIBLE_DEVICES leaves, in its order; all of them without it."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return tuple(gpus)
    left: list[Gpu] = []
    for word in (one.strip() for one in chosen.split(",")):
        gpu = next((g for g in gpus if word == str(g.index) or (word and g.uuid.startswith(word))), None)
        if gpu is None:
            break  # CUDA ignores what follows a device that is not there
        left.append(gpu)
    return tuple(left)


def _parse(line: str) -> Gpu | None:
    parts = [one.strip() for one in line.split(",")]
    try:
        index, uuid, name, driver, compute, total, free = parts
        return Gpu(int(index), uuid, name, driver, compute, int(total) * _MIB, int(free) * _MIB)
    except ValueError:
        return None


def has_gpu() -> bool:
    """Whether CUDA programs of this process find a GPU: by nvidia-smi, or by the driver where that is not installed."""
    return bool(find_gpus()) or _driver_count() > 0


def _driver_count() -> int:
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value
