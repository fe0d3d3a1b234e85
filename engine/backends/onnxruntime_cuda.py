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

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.backends.base import Array, Encoded, SlotPlan
from cellscribe.engine.backends.budget import budget, check_room
from cellscribe.engine.backends.contract import check_decoder, check_encoder, check_length
from cellscribe.engine.backends.cuda_provider import check_started, in_words, on_host, open_decoder, ready_provider
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_slots import DeviceSlots
from cellscribe.engine.backends.sessions import Device, default_threads, open_session, running
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX, Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BundleError
from cellscribe.engine.gpu import gpu_number

_CHUNK = 8  # cells per encoder run; always as many, so that a memory does not depend on its neighbours
_CELLS_AHEAD = 16


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
        missing = ready_provider(bundle, self.place)
        self._encoder = open_session(bundle.path(ENCODER), self.threads, self.place)
        check_started(self._encoder, self.place, missing)
        check_encoder(bundle, self._encoder)

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return in_words(self.place, self.bundle.manifest.precision)

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
        found = [on_host(self.bundle, name, session) for name, session in sessions.items()]
        return tuple(one for one in (*found, self._no_capture) if one)

    @cached_property
    def decoder(self) -> ort.InferenceSession:
        """The decoder's session, opened when text is first asked for."""
        if not self.bundle.describes:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; it embeds cells but writes no text."
            )
        session, self._no_capture = open_decoder(self.bundle, self.threads, self.place, captures=self.captures)
        self.captures = self.captures and not self._no_capture
        check_decoder(self.bundle, session, self.prefix)
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
