"""The same graphs on ONNX Runtime's CUDA provider: the portable way onto a GPU.

Weights, memories, caches and masks stay on the device and are updated in place; only the last tokens go there and only
logits and evidence come back each step, and tokens are chosen on the host as they are on the CPU. Prompts run one cell
at a time and steps run all slots, so that the shapes of the matrix products, and with them the order of their sums, do
not depend on which cells are in work.
"""

from __future__ import annotations

import threading
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.backends.base import Array, Encoded, SlotPlan
from cellscribe.engine.backends.budget import budget, check_room
from cellscribe.engine.backends.contract import check_decoder, check_encoder, check_length
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_slots import DeviceSlots
from cellscribe.engine.backends.sessions import Device, default_threads, host_operators, open_session, running
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX, Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.gpu import find_gpus

PROVIDER = "CUDAExecutionProvider"
_CHUNK = 8  # cells per encoder run; always as many, so that a memory does not depend on its neighbours
_CELLS_AHEAD = 16
# Operators that may stay on the CPU without a word: they compute shapes, a few numbers at a time.
_SHAPE_OPERATORS = frozenset(
    ("Shape", "Size", "Gather", "Squeeze", "Unsqueeze", "Concat", "Slice", "Cast", "Add", "Sub", "Mul", "Div", "Range")
)


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
        Replay steps as one CUDA graph.

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
        self.threads = threads or default_threads()
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        # A CUDA call of another thread would break a capture under way: whoever captures or encodes holds this.
        self.exclusive = threading.Lock()
        if self.place.kind == "cuda" and PROVIDER not in ort.get_available_providers():
            raise BackendError(cuda_provider_problem())
        self._encoder = open_session(bundle.path(ENCODER), self.threads, self.place)
        if self.place.kind == "cuda" and PROVIDER not in self._encoder.get_providers():
            raise BackendError(
                f"ONNX Runtime {ort.__version__} could not start its CUDA provider, most often because the CUDA or "
                "cuDNN libraries it was built for are missing; install them, or use --backend onnxruntime-cpu."
            )
        check_encoder(bundle, self._encoder)

    @property
    def device(self) -> str:
        """Device and provider in words."""
        gpus = find_gpus() if self.place.kind == "cuda" else ()
        name = gpus[self.place.number].name if self.place.number < len(gpus) else str(self.place)
        provider = PROVIDER if self.place.kind == "cuda" else "CPUExecutionProvider"
        graph = ", CUDA graph" if self.captures else ""
        return f"{name}, ONNX Runtime {ort.__version__} {provider}, {self.bundle.manifest.precision}{graph}"

    @property
    def cells_ahead(self) -> int:
        """Enough that slots which end together find cells ready."""
        return _CELLS_AHEAD if self.place.kind == "cuda" else 0

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about operators that run on the CPU instead, and cost copies at every step."""
        if self.place.kind == "cpu":
            return ()
        sessions = {ENCODER: self._encoder} | ({DECODER: self.decoder} if self.bundle.describes else {})
        return tuple(s for name, one in sessions.items() if (s := left_on_host(name, host_operators(one))))

    @cached_property
    def decoder(self) -> ort.InferenceSession:
        """The decoder's session, opened when text is first asked for."""
        if not self.bundle.describes:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; it embeds cells but writes no text."
            )
        session = open_session(self.bundle.path(DECODER), self.threads, self.place, captures=self.captures)
        check_decoder(self.bundle, session, self.prefix)
        if left_on_host(DECODER, host_operators(session) if self.captures else {}):
            self.captures = False  # copies to the host cannot be captured
            session = open_session(self.bundle.path(DECODER), self.threads, self.place)
        return session

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
        width = self.bundle.manifest.encoder.d_model
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
            gpus = find_gpus() if self.place.kind == "cuda" else ()
            if self.place.number < len(gpus):
                needed = budget(self.bundle.manifest, plan, cells_ahead=self.cells_ahead, with_weights=False)
                check_room(gpus[self.place.number].free_bytes, needed, gpus[self.place.number].name)
            return DeviceSlots(self, plan)


def cuda_provider_problem() -> str:
    """Say why ONNX Runtime has no CUDA provider here; empty when it has one."""
    if PROVIDER in ort.get_available_providers():
        return "" if find_gpus() else "no NVIDIA GPU answers (nvidia-smi finds none); install or update its driver."
    return (
        f"the installed ONNX Runtime {ort.__version__} has no CUDA provider; "
        "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`."
    )


def left_on_host(graph: str, operators: dict[str, int]) -> str:
    """Return a sentence about operators of a graph that run on the CPU instead of the GPU; empty when none does."""
    real = {name: count for name, count in operators.items() if name not in _SHAPE_OPERATORS}
    if not real:
        return ""
    named = ", ".join(f"{count} {name}" for name, count in sorted(real.items()))
    return (
        f"ONNX Runtime {ort.__version__} runs a part of {graph} on the CPU ({named}), with copies at every step; "
        "use a newer onnxruntime-gpu."
    )
