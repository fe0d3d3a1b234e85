"""What TensorRT for RTX has besides: a runtime configuration and a cache of compiled kernels; and the enumerations."""

from __future__ import annotations

from enum import Enum
from typing import Any


class FakeConfig:
    """The runtime configuration of TensorRT for RTX."""

    def __init__(self) -> None:
        self.cache: FakeCache | None = None
        self.strategy: Any = Allocation.STATIC
        self.cuda_graph_strategy: Any = None
        self.dynamic_shapes_kernel_specialization_strategy: Any = None

    def create_runtime_cache(self) -> FakeCache:
        return FakeCache()

    def set_runtime_cache(self, cache: FakeCache) -> bool:
        self.cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


class FakeCache:
    """The JIT cache of TensorRT for RTX."""

    def deserialize(self, blob: bytes) -> bool:
        return blob == b"kernels"

    def serialize(self) -> bytes:
        return b"kernels"


class Mode(Enum):
    NONE, INPUT, OUTPUT = range(3)


class Allocation(Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class Graphs(Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class Kernels(Enum):
    LAZY, EAGER, NONE = range(3)
