"""What only the builder of TensorRT for RTX has: building for a GPU that is not there.

Calls in this file exist in ``tensorrt_rtx`` and not in ``tensorrt``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

IBuilderConfig: TypeAlias = Any


def can_build_for(trt: Any, compute_capability: int) -> bool:
    """Whether TensorRT for RTX knows a compute capability (89 is 8.9)."""
    return hasattr(trt.ComputeCapability, f"SM{compute_capability}")


def build_for(trt: Any, config: IBuilderConfig, compute_capability: int) -> None:
    """Build for one compute capability, whatever GPU is here, or none; the plan can be captured in a CUDA graph.

    For that all its memory must come from the caller, as captured work cannot allocate.
    """
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{compute_capability}"), 0)
