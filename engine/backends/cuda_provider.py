"""ONNX Runtime's CUDA provider: whether it is there, whether it started, and sessions whose steps are captured."""

from __future__ import annotations

import onnxruntime as ort

from cellscribe.engine.backends.advice import cpu_backend
from cellscribe.engine.backends.sessions import (
    Device,
    host_operators,
    open_session,
    preload_libraries,
    refuses_capture,
)
from cellscribe.engine.bundle.load import DECODER, Bundle
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.gpu import gpu_number, has_gpu

PROVIDER = "CUDAExecutionProvider"
# Older releases are not trusted to capture a step beside other runs of the same session.
_CAPTURES_FROM = (1, 30)


def ready_provider(bundle: Bundle, place: Device) -> str:
    """Get ready to open sessions of a bundle on a device; what could not be loaded for it, in a line.

    Raises
    ------
    BackendError
        When no session of it can be opened there; it says why.
    """
    if place.kind == "cpu":
        return ""
    if bundle.manifest.gpu_problem:
        raise BackendError(bundle.manifest.gpu_problem)
    if PROVIDER not in ort.get_available_providers():
        raise BackendError(cuda_provider_problem())
    return preload_libraries()


def check_started(session: ort.InferenceSession, place: Device, missing: str) -> None:
    """Raise BackendError when a session is not where it was asked for; `missing` is what could not be loaded."""
    if place.kind == "cuda" and PROVIDER not in session.get_providers():
        why = f" ({missing})" if missing else ""
        raise BackendError(
            f"ONNX Runtime {ort.__version__} could not start its CUDA provider, most often because the CUDA or "
            f"cuDNN libraries it was built for are missing{why}; install them, or use --backend {cpu_backend()}."
        )


def open_decoder(bundle: Bundle, threads: int, place: Device, *, captures: bool) -> tuple[ort.InferenceSession, str]:
    """Open the decoder so that its steps can be captured, or else as it is, with a sentence that says why."""
    path = bundle.path(DECODER)
    if not captures:
        return open_session(path, threads, place), ""
    session, why = _capturing(bundle, threads, place)
    if session is not None:
        return session, ""
    said = f"steps are not captured as a CUDA graph, and take longer for it: {why}."
    return open_session(path, threads, place), said


def _capturing(bundle: Bundle, threads: int, place: Device) -> tuple[ort.InferenceSession | None, str]:
    """Open the decoder for captures; without a session, say why not."""
    if _version() < _CAPTURES_FROM:
        return None, f"ONNX Runtime {ort.__version__} is older than {'.'.join(map(str, _CAPTURES_FROM))}"
    try:
        session = open_session(bundle.path(DECODER), threads, place, captures=True)
    except BundleError as error:
        if not refuses_capture(error):
            raise
        return None, f"ONNX Runtime {ort.__version__} keeps a part of them on the CPU"
    if on_host(bundle, DECODER, session):  # copies to the host cannot be captured
        return None, f"ONNX Runtime {ort.__version__} runs a part of them on the CPU"
    return session, ""


def on_host(bundle: Bundle, graph: str, session: ort.InferenceSession) -> str:
    """Return a sentence about what a session for a GPU runs on the CPU; empty when it is nothing."""
    return left_on_host(graph, host_operators(session, bundle.path(graph)))


def in_words(place: Device, precision: str) -> str:
    """Name a device, the provider and the precision."""
    gpu = gpu_number(place.number) if place.kind == "cuda" else None
    provider = PROVIDER if place.kind == "cuda" else "CPUExecutionProvider"
    return f"{gpu.name if gpu else place}, ONNX Runtime {ort.__version__} {provider}, {precision}"


def cuda_provider_problem() -> str:
    """Say why ONNX Runtime has no CUDA provider here; empty when it has one."""
    if PROVIDER in ort.get_available_providers():
        return "" if has_gpu() else "no NVIDIA GPU answers; install or update its driver."
    return (
        f"the installed ONNX Runtime {ort.__version__} has no CUDA provider; "
        "`pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu`."
    )


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in ort.__version__.split(".")[:2])


def left_on_host(graph: str, operators: dict[str, int]) -> str:
    """Return a sentence about operators of a graph that run on the CPU instead of the GPU; empty when none does."""
    if not operators:
        return ""
    named = ", ".join(f"{count} {name}" for name, count in sorted(operators.items()))
    return (
        f"ONNX Runtime {ort.__version__} runs a part of {graph} on the CPU ({named}), with copies at every step; "
        "use a newer onnxruntime-gpu."
    )
