"""What a result says of the machine it was measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellscribe.engine.gpu import find_gpus

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Hardware:
    """Processor, cores this process may use, memory, the processor's last cache (0: unknown), and GPUs in words."""

    processor: str
    cores: int
    memory_gib: float
    last_cache_bytes: int
    gpus: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Hardware:
        """Look at this machine."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        gpus = tuple(gpu.line() for gpu in find_gpus())
        return cls(_processor(), cores, round(pages / 2**30, 1), _last_cache(_CACHES), gpus)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "gpus": list(self.gpus)}

    def line(self) -> str:
        """Say it in a line."""
        cache = f", {self.last_cache_bytes / 2**20:.0f} MiB last cache" if self.last_cache_bytes else ""
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return ", ".join([f"{self.processor}, {cores}, {self.memory_gib:g} GiB{cache}", *self.gpus])


def reset_peak_memory() -> None:
    """Forget the most memory that the process held, where the system lets it."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int | None:
    """Most memory that the process held since the last reset; None where the system does not say."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _last_cache(folder: Path) -> int:
    sizes = []
    for one in folder.glob("index*/size"):
        text = one.read_text().strip()
        if text[:-1].isdigit() and text[-1:] in _UNITS:
            sizes.append(int(text[:-1]) * _UNITS[text[-1]])
    return max(sizes, default=0)
