"""Bundles that read ranks on ONNX Runtime's CUDA provider: states, keys and texts stay on the device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import onnxruntime as ort

from cellscribe.engine.backends.base import Array
from cellscribe.engine.backends.cuda_provider import check_started, in_words, on_host, ready_provider
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_match import CELLS, DeviceMatch
from cellscribe.engine.backends.sessions import Device, default_threads, open_session, running
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import ENCODER

_ALWAYS_WIDE = ("vector", "logits")
_MOST_TEXTS = 128  # of a run; those of few tokens have no more to gain


class OnnxRuntimeMatchCuda(DeviceMatch):
    """Runs a bundle that reads ranks with ONNX Runtime on a GPU.

    Parameters
    ----------
    bundle
        An opened bundle.
    device
        Which GPU. "cpu" runs the very same code on the CPU provider, for tests.
    threads
        CPU threads of what stays on the CPU.

    Raises
    ------
    BackendError
        When the provider does not start here; the message says why.
    """

    def __init__(self, bundle: Bundle, device: Device | None = None, *, threads: int | None = None) -> None:
        self.place = device or Device("cuda")
        self._sessions = _Sessions(bundle, self.place, threads or default_threads())
        super().__init__(bundle, self._sessions)

    @property
    def device(self) -> str:
        """Device, provider and precision in words."""
        return in_words(self.place, self.bundle.manifest.precision)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about operators that run on the CPU."""
        if self.place.kind == "cpu":
            return ()
        return tuple(one for one in (on_host(self.bundle, *each) for each in self._sessions.opened.items()) if one)


class _Sessions:
    """The sessions of a bundle's graphs, opened when they are first run, and the arrays that they share."""

    cells, texts = CELLS, _MOST_TEXTS

    def __init__(self, bundle: Bundle, place: Device, threads: int) -> None:
        self._bundle, self._place, self._threads = bundle, place, threads
        self._dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        missing = ready_provider(bundle, place)
        self.opened: dict[str, ort.InferenceSession] = {}
        self._any = self._session(ENCODER)
        check_started(self._any, place, missing)

    def check_cell(self, num_tokens: int) -> None:
        """Any length will do."""

    def check_text(self, num_tokens: int) -> None:
        """Any length will do."""

    def running(self) -> AbstractContextManager[Any]:
        """Turn what ONNX Runtime raises into one sentence."""
        return running(self._place)

    def empty(self, graph: str, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """Allocate an input or output of a graph."""
        dtype = np.dtype(np.float32) if name in _ALWAYS_WIDE else self._dtype
        return DeviceArray.empty(self._any, shape, dtype, self._place)

    def upload(self, array: Array) -> DeviceArray:
        """Copy an array to the device."""
        return DeviceArray.of(self._any, array, self._place)

    def read(self, array: DeviceArray) -> Array:
        """Copy an array to the host."""
        return array.read()

    def rows(self, array: DeviceArray, start: int, stop: int) -> DeviceArray:
        """Return rows of an array, in place."""
        return array.rows(start, stop)

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        """Copy an array into another one."""
        target.write(source)

    def run(self, graph: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        """Run a graph, and wait for it."""
        DeviceRun(self._session(graph), inputs, outputs)()

    def _session(self, graph: str) -> ort.InferenceSession:
        if graph not in self.opened:
            self.opened[graph] = open_session(self._bundle.path(graph), self._threads, self._place)
        return self.opened[graph]
