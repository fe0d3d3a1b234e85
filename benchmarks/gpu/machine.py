"""What is the machine, and what can it do at best? Copy, read and product, measured in the same run as all the rest."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

from gpu.context import Context
from gpu.results import Row, rounded
from hardware import hardware

_PACKAGES = (
    "torch", "triton", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "tensorrt-rtx",
    "numpy", "scipy", "h5py", "anndata", "tokenizers", "safetensors",
)  # fmt: skip
_STATE = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu,memory.total"


def run(context: Context) -> None:
    """Name the machine, then measure its ceilings."""
    section = context.section("machine")
    section.fact(hardware=hardware(), versions=versions())
    section.fact(gpu=gpu(context), nvcc=first_line("nvcc", "--version", last=True))
    section.fact(before=state())
    section.fact(**measured(context), after=state())
    section.save("ok")


def versions() -> Row:
    """Return the versions of what a result depends on."""
    import platform

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def gpu(context: Context) -> Row:
    """Return the GPU as torch sees it; in emulation there is none."""
    if context.options.emulate:
        return {"name": "none: emulated on the CPU"}
    properties = context.torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_mib": round(context.l2_bytes / 2**20, 1),
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": context.torch.version.cuda,
    }


def measured(context: Context) -> Row:
    """Return GB/s of a large copy (bytes read and written) and of reading, TFLOP/s of a large fp16 product."""
    torch, clock, sizes = context.torch, context.clock, context.sizes
    copy, read = _streamed(context)
    n = sizes.product
    a, b = (torch.randn(n, n, device=context.device).half() for _ in range(2))
    product = clock.eager(lambda: torch.mm(a, b), sizes.repeats)
    return {
        "copy_gbs": rounded(2 * sizes.copy_bytes / copy / 1e9),
        "read_gbs": rounded(sizes.copy_bytes / read / 1e9),
        "matmul_tflops": rounded(2 * n**3 / product / 1e12),
        "copy_bytes": sizes.copy_bytes,
        "product": f"{n} x {n} x {n}, fp16, random",
    }


def _streamed(context: Context) -> tuple[float, float]:
    """Return seconds of copying and of reading a large array."""
    torch, clock, sizes = context.torch, context.clock, context.sizes
    source = torch.randn(sizes.copy_bytes // 4, device=context.device)
    target = torch.empty_like(source)
    copy = clock.eager(lambda: target.copy_(source), sizes.repeats)
    return copy, clock.eager(lambda: torch.sum(source), sizes.repeats)


def state() -> Row:
    """Return clocks, power and temperature; nothing is set."""
    line = first_line("nvidia-smi", f"--query-gpu={_STATE}", "--format=csv,noheader")
    return dict(zip(_STATE.split(","), (one.strip() for one in line.split(",")), strict=False)) if line else {}


def first_line(program: str, *arguments: str, last: bool = False) -> str:
    """Return the first (or last) line that a program prints; empty where there is none."""
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    lines = done.stdout.strip().splitlines()
    return (lines[-1] if last else lines[0]) if lines and done.returncode == 0 else ""
