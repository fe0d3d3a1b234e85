"""Bundles that follow instructions on ONNX Runtime's CUDA provider: weights, states and caches stay on the device.

Prompts run in groups of one size, padded to lengths that are a multiple of 32, so that the states of a prompt follow
from the prompt alone. Tokens are chosen on the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from cellscribe.engine.backends.base import Array, Floats
from cellscribe.engine.backends.budget import Budget, SlotBytes
from cellscribe.engine.backends.budget import check_room as check_bytes
from cellscribe.engine.backends.contract import check_instruct
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu.backend import open_library
from cellscribe.engine.backends.cuda_provider import check_started, in_words, on_host, open_decoder, ready_provider
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_instruct_slots import DeviceInstructSlots
from cellscribe.engine.backends.instruct import (
    EncoderPrompt,
    ExpressedCell,
    Profiles,
    instruct_shapes,
    require_profiles,
)
from cellscribe.engine.backends.sessions import Device, default_threads, open_session, running
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.backends.text_feed import room_for
from cellscribe.engine.backends.text_state import Greedy
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import DECODER, ENCODER, PROFILE, TOWER
from cellscribe.engine.gpu import gpu_number

_PROMPTS, _LENGTHS = 16, 32  # of a run of the encoder: prompts, and what their padded length is a multiple of


class OnnxRuntimeInstructCuda:
    """Runs a bundle that follows instructions with ONNX Runtime on a GPU; parameters as ``OnnxRuntimeCuda``."""

    def __init__(
        self, bundle: Bundle, device: Device | None = None, *, threads: int | None = None, captures: bool = True
    ) -> None:
        self.bundle, self.shapes = bundle, instruct_shapes(bundle)
        self.place, self.threads = device or Device("cuda"), threads or default_threads()
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        self.graph_ids = itertools.count(1)  # a captured graph belongs to one set of arrays
        missing = ready_provider(bundle, self.place)
        wanted = captures and self.place.kind == "cuda"
        self.decoder, self._no_capture = open_decoder(bundle, self.threads, self.place, captures=wanted)
        check_started(self.decoder, self.place, missing)
        check_instruct(bundle, DECODER, self.decoder)
        self._opened: dict[str, ort.InferenceSession] = {}

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return in_words(self.place, self.bundle.manifest.precision)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what costs time at every step: operators that run on the CPU, and steps not captured."""
        if self.place.kind == "cpu":
            return ()
        left = (on_host(self.bundle, *each) for each in {DECODER: self.decoder, **self._opened}.items())
        return tuple(one for one in (*left, self._no_capture) if one)

    @property
    def greedy(self) -> Greedy | None:
        """Our library's way of finding the most probable token, where it runs."""
        return None if cpu_problem() else open_library(self.threads, None).greedy

    def read_cells(self, cells: Iterable[ExpressedCell]) -> Iterator[Floats]:
        """Read cells one after the other; features come back to the host."""
        shape = (1, self.shapes.tower.n_queries, self.shapes.t5.d_model)
        for cell in cells:
            with running(self.place):
                features = self.empty(shape, self.dtype)
                self.run(TOWER, {"genes": cell.genes[None], "values": cell.values[None]}, {"features": features})
                yield features.read()[0].astype(np.float32)

    def encode_prompts(self, prompts: Sequence[EncoderPrompt]) -> list[DeviceArray]:
        """Encode prompts in groups of one padded length; their states stay on the device."""
        found: dict[int, DeviceArray] = {}
        padded = [-(-len(one.tokens) // _LENGTHS) * _LENGTHS for one in prompts]
        with running(self.place):
            for length in sorted(set(padded)):
                places = [i for i, mine in enumerate(padded) if mine == length]
                for start in range(0, len(places), _PROMPTS):
                    some = places[start : start + _PROMPTS]
                    states = self._encode([prompts[i] for i in some], length)
                    found |= {i: states[row].rows(0, len(prompts[i].tokens)) for row, i in enumerate(some)}
        return [found[i] for i in range(len(prompts))]

    def open_instruct_slots(self, plan: TextPlan) -> DeviceInstructSlots:
        """Allocate the slots of a run; RoomError when the GPU's free memory does not hold them."""
        with running(self.place):
            gpu = gpu_number(self.place.number, is_fresh=True) if self.place.kind == "cuda" else None
            if gpu is not None:
                check_bytes(gpu.free_bytes, self._budget(plan), gpu.name)
            return DeviceInstructSlots(self, plan)

    def write_profiles(self, conditions: Floats, latents: Floats, libraries: Floats) -> Profiles:
        """Decode conditions one after the other, as a product of one row may be summed in another order."""
        shape = require_profiles(self.bundle, self.shapes.profile)
        rates, dropout = (np.zeros((len(conditions), shape.n_genes), np.float32) for _ in range(2))
        for i in range(len(conditions)):
            with running(self.place):
                out = {name: self.empty((1, shape.n_genes), self.dtype) for name in ("rates", "dropout")}
                given = {"condition": conditions, "latent": latents, "library": libraries}
                self.run(PROFILE, {name: one[i : i + 1].astype(self.dtype) for name, one in given.items()}, out)
                rates[i], dropout[i] = (out[name].read()[0] for name in ("rates", "dropout"))
        return Profiles(rates, dropout)

    def run(self, graph: str, inputs: Mapping[str, Array | DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        """Run a graph on arrays of the host, which are copied, or of the device, and wait for it."""
        given = {name: one if isinstance(one, DeviceArray) else self.upload(one) for name, one in inputs.items()}
        DeviceRun(self._session(graph), given, outputs)()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate an array on the device."""
        return DeviceArray.empty(self.decoder, shape, dtype, self.place)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate zeros on the device."""
        return DeviceArray.zeros(self.decoder, shape, dtype, self.place)

    def upload(self, array: Array) -> DeviceArray:
        """Copy an array to the device."""
        return DeviceArray.of(self.decoder, array, self.place)

    def _encode(self, prompts: Sequence[EncoderPrompt], length: int) -> DeviceArray:
        """Encode a group -> [16, length, d]; rows without a prompt count nothing."""
        t5, queries = self.shapes.t5, self.shapes.tower.n_queries
        tokens, mask = np.zeros((_PROMPTS, length), np.int64), np.zeros((_PROMPTS, length), bool)
        starts = np.full(_PROMPTS, length, np.int64)
        features = np.zeros((_PROMPTS, queries, t5.d_model), self.dtype)
        for row, one in enumerate(prompts):
            tokens[row, : len(one.tokens)], mask[row, : len(one.tokens)] = one.tokens, True
            if one.features is not None:
                starts[row], features[row] = one.start, one.features
        states = self.empty((_PROMPTS, length, t5.d_model), self.dtype)
        inputs = {"tokens": tokens, "mask": mask, "features": features, "starts": starts}
        self.run(ENCODER, inputs, {"states": states})
        return states

    def _budget(self, plan: TextPlan) -> Budget:
        """Count the bytes of a run whose weights are loaded."""
        t5, size = self.shapes.t5, self.dtype.itemsize
        each = 2 * t5.n_layers * t5.n_heads * t5.d_head * size
        capacity = room_for(plan)
        slot = SlotBytes(
            caches=each * capacity,
            attended=each * plan.longest_memory,
            masks=capacity + plan.longest_memory,
            choice=4 * t5.vocab_size + 16,
            evidence=4 * t5.d_model,
        )
        return Budget(0, plan.longest_memory * t5.d_model * size, slot, plan.num_slots)

    def _session(self, graph: str) -> ort.InferenceSession:
        if graph not in self._opened:
            session = open_session(self.bundle.path(graph), self.threads, self.place)
            check_instruct(self.bundle, graph, session)
            self._opened[graph] = session
        return self._opened[graph]
