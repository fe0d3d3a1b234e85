"""ONNX Runtime sessions, and arrays bound to them without copies."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.errors import BundleError

Array = npt.NDArray[np.generic]

_ERRORS_ONLY = 3


def default_threads() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """Open a graph on the CPU provider.

    Raises
    ------
    BundleError
        When ONNX Runtime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds
        first = str(error).split("\n")[0]
        raise BundleError(
            f"{path} cannot be loaded by ONNX Runtime {ort.__version__} ({first}); export it anew."
        ) from error


@dataclass
class BoundRun:
    """One set of arrays bound to a session: run as often as wanted, inputs and outputs stay where they are.

    An array bound as input and as output is updated in place. The arrays must be C-contiguous and outlive the run.
    """

    session: ort.InferenceSession
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    _binding: Any = field(init=False)
    _options: Any = field(init=False)

    def __post_init__(self) -> None:
        self._binding = self.session.io_binding()
        for name, array in self.inputs.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, _pointer(array))
        for name, array in self.outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, _pointer(array))
        self._options = ort.RunOptions()
        self._options.only_execute_path_to_fetches = True  # evidence nobody asked for costs nothing

    def __call__(self) -> None:
        """Run the graph on the bound arrays."""
        self.session.run_with_iobinding(self._binding, self._options)


_NOWHERE = np.zeros(16, np.uint8)  # an address for arrays without elements


def _pointer(array: Array) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("bound arrays must be contiguous")
    return int(array.ctypes.data) if array.size else int(_NOWHERE.ctypes.data)
