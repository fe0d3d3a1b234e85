"""TensorRT's timing cache: measurements of kernels, kept between builds on one GPU."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TypeAlias

from cellscribe.engine.output.atomic import replacing

IBuilderConfig: TypeAlias = Any


class TimingCache:
    """A file of measurements, given to a builder's configuration; one of another GPU is left aside.

    Not for TensorRT for RTX, which measures nothing when it builds and would look for a GPU.
    """

    def __init__(self, config: IBuilderConfig, path: Path) -> None:
        self._config, self._path = config, path
        blob = b""
        with contextlib.suppress(OSError):
            blob = path.read_bytes()
        timing_cache = config.create_timing_cache(blob)
        if not config.set_timing_cache(timing_cache, False):
            timing_cache = config.create_timing_cache(b"")
            config.set_timing_cache(timing_cache, False)
        self._cache = timing_cache  # the configuration keeps its address, and must not outlive it

    def save(self) -> None:
        """Write what was measured."""
        config: IBuilderConfig = self._config
        timing_cache = config.get_timing_cache()
        with replacing(self._path) as part:
            part.write_bytes(bytes(timing_cache.serialize()))
