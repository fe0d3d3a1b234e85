"""What the machine offers: processor, memory, packages."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cellscribe.engine.output.run import count

PACKAGES = (
    "cellscribe",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
    "anndata",
    "h5py",
    "numpy",
    "scipy",
    "tokenizers",
)


def machine_facts() -> Iterator[tuple[str, str]]:
    """Say what the machine offers: processor, memory, packages, ONNX Runtime's providers."""
    import onnxruntime

    yield "machine", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    yield "processor", f"{_processor()}, {count(_num_cores(), 'core')} for this process"
    yield "memory", _memory()
    yield "providers", ", ".join(onnxruntime.get_available_providers())
    yield "packages", ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Return the bytes that new work may take without swapping; None where the system does not say."""
    return _memory_sizes().get("MemAvailable")


def _memory_sizes() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _memory() -> str:
    sizes = _memory_sizes()
    if "MemAvailable" not in sizes or "MemTotal" not in sizes:
        return "unknown"
    return f"{sizes['MemAvailable'] / 1e9:.1f} GB free of {sizes['MemTotal'] / 1e9:.1f} GB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
