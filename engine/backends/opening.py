"""Opening the backend of a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cellscribe.engine.backends.base import Backend
from cellscribe.engine.backends.instruct import InstructBackend
from cellscribe.engine.backends.match import MatchBackend
from cellscribe.engine.backends.text import TextBackend
from cellscribe.engine.bundle.load import Bundle

CPU, NATIVE = "onnxruntime-cpu", "cpu"


@dataclass(frozen=True)
class How:
    """What a backend is opened with: CPU threads, the number of the GPU, and a folder of TensorRT plans."""

    threads: int | None = None
    device: int = 0
    plans: Path | None = None


def open_one(bundle: Bundle, name: str, how: How) -> Backend:
    """Open the backend of a name.

    Of a bundle of sentences it is a ``TextBackend``, of one of ranks a ``MatchBackend``, and of one that follows
    instructions an ``InstructBackend``.
    """
    if bundle.manifest.instruct is not None:
        return cast(Backend, _open_instruct(bundle, name, how))
    if bundle.manifest.ranks is not None:
        return cast(Backend, _open_match(bundle, name, how))
    if bundle.manifest.style is not None:
        return cast(Backend, _open_text(bundle, name, how))
    if name == CPU:
        from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(bundle, how.threads)
    if name == NATIVE:
        from cellscribe.engine.backends.cpu import CpuBackend

        return CpuBackend(bundle, how.threads)
    if name == "onnxruntime-cuda":
        from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda
        from cellscribe.engine.backends.sessions import Device

        return OnnxRuntimeCuda(bundle, Device("cuda", how.device), threads=how.threads)
    if name == "cuda":
        from cellscribe.engine.backends.cuda import CudaBackend

        cuda: Backend = CudaBackend(bundle, f"cuda:{how.device}" if how.device else "cuda")
        return cuda
    from cellscribe.engine.backends.tensorrt import open_tensorrt

    tensorrt: Backend = open_tensorrt(bundle, device=how.device, plans=how.plans)
    return tensorrt


def _open_instruct(bundle: Bundle, name: str, how: How) -> InstructBackend:
    if name == NATIVE:
        from cellscribe.engine.backends.cpu.instruct import CpuInstruct

        return CpuInstruct(bundle, how.threads)
    if name == CPU:
        from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct

        return OnnxRuntimeInstruct(bundle, how.threads)
    if name == "tensorrt":
        from cellscribe.engine.backends.tensorrt.instruct import open_tensorrt_instruct

        return open_tensorrt_instruct(bundle, device=how.device, plans=how.plans)
    from cellscribe.engine.backends.onnxruntime_instruct_cuda import OnnxRuntimeInstructCuda
    from cellscribe.engine.backends.sessions import Device

    return OnnxRuntimeInstructCuda(bundle, Device("cuda", how.device), threads=how.threads)


def _open_match(bundle: Bundle, name: str, how: How) -> MatchBackend:
    if name == NATIVE:
        from cellscribe.engine.backends.cpu.match import CpuMatch

        return CpuMatch(bundle, how.threads)
    if name == "tensorrt":
        from cellscribe.engine.backends.tensorrt.match import open_tensorrt_match

        return open_tensorrt_match(bundle, device=how.device, plans=how.plans)
    if name == "onnxruntime-cuda":
        from cellscribe.engine.backends.onnxruntime_match_cuda import OnnxRuntimeMatchCuda
        from cellscribe.engine.backends.sessions import Device

        return OnnxRuntimeMatchCuda(bundle, Device("cuda", how.device), threads=how.threads)
    from cellscribe.engine.backends.onnxruntime_match import OnnxRuntimeMatch

    return OnnxRuntimeMatch(bundle, how.threads)


def _open_text(bundle: Bundle, name: str, how: How) -> TextBackend:
    if name == CPU:
        from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText

        return OnnxRuntimeText(bundle, how.threads)
    if name == NATIVE:
        from cellscribe.engine.backends.cpu.text import CpuText

        return CpuText(bundle, how.threads)
    if name == "onnxruntime-cuda":
        from cellscribe.engine.backends.onnxruntime_text_cuda import OnnxRuntimeTextCuda
        from cellscribe.engine.backends.sessions import Device

        return OnnxRuntimeTextCuda(bundle, Device("cuda", how.device), threads=how.threads)
    from cellscribe.engine.backends.tensorrt.text import open_tensorrt_text

    return open_tensorrt_text(bundle, device=how.device, plans=how.plans)
