"""ONNX Runtime sessions, and arrays bound to them without copies."""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.backends.advice import cpu_backend
from cellscribe.engine.bundle.onnx_types import integer_nodes
from cellscribe.engine.errors import BackendError, BundleError, CellscribeError, RoomError

Array = npt.NDArray[np.generic]

_ERRORS_ONLY = 3
_RECORD_NODES = "session.record_ep_graph_assignment_info"
_SHAPE_OPERATORS = frozenset(
    ("Shape", "Size", "Gather", "Squeeze", "Unsqueeze", "Concat", "Slice", "Cast", "Add", "Sub", "Mul", "Div", "Range")
)
_NO_ROOM = ("out of memory", "failed to allocate memory", "cuda failure 2:", "cublas_status_alloc_failed")
_FREE = "free the device, or choose a smaller --batch-size (batch_size)."


@dataclass(frozen=True)
class Device:
    """Where arrays and sessions live: "cpu", or "cuda" with the number of the GPU."""

    kind: Literal["cpu", "cuda"]
    number: int = 0

    def __str__(self) -> str:
        return f"GPU {self.number}" if self.kind == "cuda" else "the CPU"

    def providers(self, captures: bool = False) -> list[Any]:
        """Return ONNX Runtime's providers for it."""
        if self.kind == "cpu":
            return ["CPUExecutionProvider"]
        options = {"device_id": str(self.number), "enable_cuda_graph": "1" if captures else "0"}
        # Half as much again at a time would waste gigabytes beside the slots; ask for what is needed.
        options["arena_extend_strategy"] = "kSameAsRequested"
        return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


CPU = Device("cpu")


def default_threads() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_session(path: Path, threads: int, device: Device = CPU, *, captures: bool = False) -> ort.InferenceSession:
    """Open a graph on the provider of a device; `captures` lets it replay runs as CUDA graphs.

    Raises
    ------
    BundleError
        When ONNX Runtime cannot load it.
    RoomError
        When the device's memory does not hold it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry(_RECORD_NODES, "1" if device.kind != "cpu" else "0")
    try:
        return ort.InferenceSession(str(path), options, providers=device.providers(captures))
    except Exception as error:  # ONNX Runtime raises many kinds
        if is_out_of_memory(error):
            raise RoomError(f"{device} has too little free memory for the weights in {path.name}; {_FREE}") from error
        first = str(error).split("\n")[0]
        raise BundleError(
            f"{path} cannot be loaded by ONNX Runtime {ort.__version__} ({first}); export it anew."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ONNX Runtime ran out of memory, by the words of its arenas and of CUDA."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_ROOM)


@contextlib.contextmanager
def running(device: Device) -> Iterator[None]:
    """Turn what ONNX Runtime raises while it works on `device` into one sentence: RoomError or BackendError."""
    try:
        yield
    except CellscribeError:
        raise
    except Exception as error:  # ONNX Runtime raises many kinds
        if is_out_of_memory(error):
            raise RoomError(f"{device} ran out of memory; {_FREE}") from error
        first, other = str(error).split("\n")[0], cpu_backend()
        is_same = device == CPU and other == "onnxruntime-cpu"
        mend = "check the bundle with `cellscribe verify`" if is_same else f"try again with --backend {other}"
        raise BackendError(f"ONNX Runtime {ort.__version__} failed on {device} ({first}); {mend}.") from error


def host_operators(session: ort.InferenceSession, graph: Path) -> dict[str, int]:
    """Count, by operator, the nodes of a session for a GPU that compute on the CPU all the same.

    Nodes of the file `graph` that give int64 alone belong there: they compute shapes, a few numbers at a time. Nodes
    that ONNX Runtime made itself have no name and are judged by their operator.
    """
    shapes = integer_nodes(graph)
    nodes = [
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
        if not (node.name in shapes if node.name else node.op_type in _SHAPE_OPERATORS)
    ]
    return dict(Counter(nodes))


def refuses_capture(error: BaseException) -> bool:
    """Whether a session could not be opened because ONNX Runtime cannot capture it as a CUDA graph."""
    return "graph capture" in str(error.__cause__)


@cache
def preload_libraries() -> str:
    """Load the CUDA and cuDNN libraries that pip installs, where ONNX Runtime finds none by itself.

    Returns what it says about those that it cannot load, in a line.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # which is for results
        try:
            getattr(ort, "preload_dlls", lambda: None)()
        except Exception as error:  # of a library that is optional; the session will say what it lacks
            return str(error)
    return said.getvalue().split("\n")[0].strip()


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
