"""What every result file says of the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from cellscribe.engine.gpu import find_gpus
from cellscribe.engine.output.atomic import replacing


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


def written(path: Path, result: Any) -> None:
    """Write a result as JSON; the file appears whole or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
