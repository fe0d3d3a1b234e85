"""The NVIDIA GPUs of this machine: the driver says which and in what order, its tool nvidia-smi says the rest.

No CUDA runtime is loaded and no context is made. What was found is kept for the life of the process; only the free
memory is asked for anew where it counts.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

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


def find_gpus(*, is_fresh: bool = False) -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA programs of this process see, in CUDA's order; none without a working driver.

    Parts of a GPU (MIG) are left out: nvidia-smi does not list them so. With `is_fresh` free memory is that of now.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    if is_fresh:
        _ask.cache_clear()
    found, ids = _ask(program), _driver_ids()
    return in_order(found, ids) if ids else visible(found, os.environ)


def gpu_number(number: int, *, is_fresh: bool = False) -> Gpu | None:
    """Return the GPU with CUDA's number; None where nvidia-smi does not know it."""
    found, ids = find_gpus(is_fresh=is_fresh), _driver_ids()
    if not ids:
        return found[number] if number < len(found) else None
    wanted = ids[number] if number < len(ids) else ""
    return next((gpu for gpu in found if _plain(gpu.uuid) == wanted), None)


@cache
def _ask(program: str) -> tuple[Gpu, ...]:
    """Return the GPUs of the machine in the order of the PCI bus."""
    command = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(gpu for line in done.stdout.splitlines() if (gpu := _parse(line)) is not None)


def in_order(gpus: Sequence[Gpu], ids: Sequence[str]) -> tuple[Gpu, ...]:
    """Return those GPUs whose id the driver gives, in the driver's order, which is not that of the bus."""
    known = {_plain(gpu.uuid): gpu for gpu in gpus}
    return tuple(known[one] for one in ids if one in known)


def _plain(name: str) -> str:
    return name.removeprefix("GPU-").lower()


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
    """Whether CUDA programs of this process find a GPU: by the driver, or by nvidia-smi."""
    return bool(_driver_ids()) or bool(find_gpus())


@cache
def _driver_ids() -> tuple[str, ...]:
    """Return the ids of the GPUs, or parts of them, that CUDA numbers 0, 1 and so on; none without a driver."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return ()
        return tuple(_driver_id(driver, index) for index in range(count.value))
    except (OSError, AttributeError):
        return ()


def _driver_id(driver: ctypes.CDLL, index: int) -> str:
    device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    if driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetUuid_v2(raw, device):
        return ""
    return str(uuid.UUID(bytes=bytes(raw)))
