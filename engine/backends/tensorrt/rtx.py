"""What only TensorRT for RTX has: kernels compiled on the user's machine, and a cache of them.

Calls in this file exist in ``tensorrt_rtx`` and not in ``tensorrt``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, TypeAlias

ICudaEngine: TypeAlias = Any
IExecutionContext: TypeAlias = Any


class JitCache:
    """The compiled kernels of one engine, kept in a file of the user's cache.

    TensorRT checks such a file against product, GPU and driver, and compiles anew when it does not fit.
    """

    def __init__(self, engine: ICudaEngine, path: Path) -> None:
        self._path, self._known = path, b""
        runtime_config = engine.create_runtime_config()
        runtime_cache = runtime_config.create_runtime_cache()
        with contextlib.suppress(OSError):
            blob = path.read_bytes()
            if runtime_cache.deserialize(blob):
                self._known = blob
        runtime_config.set_runtime_cache(runtime_cache)
        self._config, self._cache = runtime_config, runtime_cache

    def open_context(self, trt: Any, engine: ICudaEngine) -> IExecutionContext:
        """Make a context that compiles kernels for its shapes at once, and leaves capturing to the caller.

        Compiling them in the background, as is the default, would change results in the middle of a run.
        """
        runtime_config = self._config
        runtime_config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        runtime_config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        return engine.create_execution_context(runtime_config)

    def save(self) -> None:
        """Write the cache when something new was compiled; a folder that cannot be written is left as it is."""
        runtime_cache = self._cache
        blob = bytes(runtime_cache.serialize())
        if blob == self._known:
            return
        part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(blob)
            os.replace(part, self._path)
            self._known = blob
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def is_capturable(context: IExecutionContext, stream: int) -> bool:
    """Whether a run may be recorded in a CUDA graph of the stream."""
    return bool(context.is_stream_capturable(stream))
