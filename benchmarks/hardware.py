"""What every result file says of the machine it was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from cellscribe.engine.gpu import find_gpus


def hardware() -> dict[str, object]:
    """Return processor, cores this process may use, memory in GiB, and the GPUs with driver and memory, if any."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "gpu": [gpu.line() for gpu in find_gpus()] or None,
    }
