"""The same graphs on ONNX Runtime's CUDA provider: the portable way onto a GPU.

Weights, memories, caches and masks stay on the device and are updated in place; only the last tokens go there and only
logits and evidence come back each step, and tokens are chosen on the host as they are on the CPU. Prompts run one cell
at a time and steps run all slots, so that the shapes of the matrix products, and with them the order of their sums, do
not depend on which cells are in work.
"""

from __future__ import annotations

import itertools
import threading
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.backends.advice import cpu_backend
from cellscribe.engine.backends.base import Array, Encoded, SlotPlan
from cellscribe.engine.backends.budget import budget, check_room
from cellscribe.engine.backends.contract import check_decoder, check_encoder, check_length
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_slots import DeviceSlots
from cellscribe.engine.backends.sessions import (
    Device,
    default_threads,
    host_operators,
    open_session,
    preload_libraries,
    refuses_capture,
    running,
)
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX, Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.gpu import gpu_number, has_gpu

PROVIDER = "CUDAExecutionProvider"
_CHUNK = 8  # cells per encoder run; always as many, so that a memory does not depend on its neighbours
_CELLS_AHEAD = 16
# Older releases are not trusted to capture a step beside other runs of the same session.
_CAPTURES_FROM = (1, 30)


class OnnxRuntimeCuda:
    """Runs a bundle with ONNX Runtime on a GPU.

    Parameters
    ----------
    bundle
        An opened bundle.
    device
        Which GPU. "cpu" runs the very same code on the CPU provider, for tests.
    threads
        CPU threads of what stays on the CPU.
    captures
        Replay steps as one CUDA graph, where ONNX Runtime can; where it cannot, `remarks` says so.

    Raises
    ------
    BackendError
        When the provider does not start here; the message says why.
    """

    def __init__(
        self, bundle: Bundle, device: Device | None = None, *, threads: int | None = None, captures: bool = True
    ) -> None:
        self.bundle, self.place = bundle, device or Device("cuda")
        self.captures = captures and self.place.kind == "cuda"
        self._no_capture = ""
        self.threads = threads or default_threads()
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        # A CUDA call of another thread would break a capture under way: whoever captures or encodes holds this.
        self.exclusive = threading.Lock()
        self.graph_ids = itertools.count(1)  # a captured graph belongs to one set of arrays
        self._encoder = self._open_encoder()
        check_encoder(bundle, self._encoder)

    def _open_encoder(self) -> ort.InferenceSession:
        """Open the first session, and make sure that it is where it was asked for."""
        is_gpu, missing = self.place.kind == "cuda", ""
        if is_gpu:
            if self.bundle.manifest.gpu_problem:
                raise BackendError(self.bundle.manifest.gpu_problem)
            if PROVIDER not in ort.get_available_providers():
                raise BackendError(cuda_provider_problem())
            missing = preload_libraries()
        session = open_session(self.bundle.path(ENCODER), self.threads, self.place)
        if is_gpu and PROVIDER not in session.get_providers():
            why = f" ({missing})" if missing else ""
            raise BackendError(
                f"ONNX Runtime {ort.__version__} could not start its CUDA provider, most often because the CUDA or "
                f"cuDNN libraries it was built for are missing{why}; install them, or use --backend {cpu_backend()}."
            )
        return session

    @property
    def device(self) -> str:
        """Device and provider in words."""
        gpu = gpu_number(self.place.number) if self.place.kind == "cuda" else None
        name = gpu.name if gpu else str(self.place)
        provider = PROVIDER if self.place.kind == "cuda" else "CPUExecutionProvider"
        return f"{name}, ONNX Runtime {ort.__version__} {provider}, {self.bundle.manifest.precision}"

    @property
    def cells_ahead(self) -> int:
        """Enough that slots which end together find cells ready."""
        return _CELLS_AHEAD if self.place.kind == "cuda" else 0

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what costs time at every step: operators that run on the CPU, and steps not captured."""
        if self.place.kind == "cpu":
            return ()
        sessions = {ENCODER: self._encoder} | ({DECODER: self.decoder} if self.bundle.describes else {})
        found = [self._left_on_host(name, session) for name, session in sessions.items()]
        return tuple(one for one in (*found, self._no_capture) if one)

    def _left_on_host(self, graph: str, session: ort.InferenceSession) -> str:
        return left_on_host(graph, host_operators(session, self.bundle.path(graph)))

    @cached_property
    def decoder(self) -> ort.InferenceSession:
        """The decoder's session, opened when text is first asked for."""
        if not self.bundle.describes:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; it embeds cells but writes no text."
            )
        session = self._open_decoder()
        check_decoder(self.bundle, session, self.prefix)
        return session

    def _open_decoder(self) -> ort.InferenceSession:
        """Open the decoder so that its steps can be captured, or else as it is."""
        path = self.bundle.path(DECODER)
        if self.captures:
            session, why = self._capturing(path)
            if session is not None:
                return session
            self.captures = False
            self._no_capture = f"steps are not captured as a CUDA graph, and take longer for it: {why}."
        return open_session(path, self.threads, self.place)

    def _capturing(self, path: Path) -> tuple[ort.InferenceSession | None, str]:
        """Open the decoder for captures; without a session, say why not."""
        if _version() < _CAPTURES_FROM:
            return None, f"ONNX Runtime {ort.__version__} is older than {'.'.join(map(str, _CAPTURES_FROM))}"
        try:
            session = open_session(path, self.threads, self.place, captures=True)
        except BundleError as error:
            if not refuses_capture(error):
                raise
            return None, f"ONNX Runtime {ort.__version__} keeps a part of them on the CPU"
        if self._left_on_host(DECODER, session):  # copies to the host cannot be captured
            return None, f"ONNX Runtime {ort.__version__} runs a part of them on the CPU"
        return session, ""

    @cached_property
    def cross(self) -> ort.InferenceSession:
        """The session of cross.onnx."""
        return open_session(self.bundle.path(CROSS), self.threads, self.place)

    @cached_property
    def prefix(self) -> dict[str, Array]:
        """Keys, values and hidden states of the prompt below the first cross-attention layer."""
        return {name: np.ascontiguousarray(value) for name, value in self.bundle.tensors(PREFIX).items()}

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells; their memory stays on the device, as rows of one array."""
        count, genes = batch.genes.shape
        width = self.bundle.manifest.encoder_shape.d_model
        if not count:
            return Encoded(np.zeros((0, genes, width), self.dtype), np.zeros((0, width), np.float32))
        rows = -(-count // _CHUNK) * _CHUNK
        with running(self.place), self.exclusive:
            memory = self.empty((rows, genes, width), self.dtype)
            cell = self.empty((rows, width), np.float32)
            for at in range(0, rows, _CHUNK):
                self._encode_chunk(batch, at, memory.rows(at, at + _CHUNK), cell.rows(at, at + _CHUNK))
            return Encoded(memory.rows(0, count), cell.rows(0, count).read().astype(np.float32, copy=False))

    def _encode_chunk(self, batch: TokenBatch, at: int, memory: DeviceArray, cell: DeviceArray) -> None:
        chosen = np.minimum(np.arange(at, at + _CHUNK), len(batch.rows) - 1)
        arrays: dict[str, Array] = {"genes": batch.genes, "values": batch.values, "mask": batch.mask}
        feed = {name: DeviceArray.of(self._encoder, array[chosen], self.place) for name, array in arrays.items()}
        DeviceRun(self._encoder, feed, {"memory": memory, "cell": cell})()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate an array on the device."""
        return DeviceArray.empty(self._encoder, shape, dtype, self.place)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate zeros on the device."""
        return DeviceArray.zeros(self._encoder, shape, dtype, self.place)

    def open_slots(self, plan: SlotPlan) -> DeviceSlots:
        """Allocate the slots of a run; RoomError when the GPU's free memory does not hold them."""
        check_length(self.bundle, plan.max_new_tokens)
        with running(self.place):
            _ = self.decoder  # checks the manifest's sizes, which the slots are made from
            gpu = gpu_number(self.place.number, is_fresh=True) if self.place.kind == "cuda" else None
            if gpu is not None:
                needed = budget(self.bundle.manifest, plan, cells_ahead=self.cells_ahead, with_weights=False)
                check_room(gpu.free_bytes, needed, gpu.name)
            return DeviceSlots(self, plan)


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
