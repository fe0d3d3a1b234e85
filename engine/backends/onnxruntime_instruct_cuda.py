"""Bundles that follow instructions on ONNX Runtime's CUDA provider: weights, states and caches stay on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import onnxruntime as ort

from cellscribe.engine.backends.base import Array, Floats
from cellscribe.engine.backends.budget import Budget, SlotBytes
from cellscribe.engine.backends.budget import check_room as check_bytes
from cellscribe.engine.backends.contract import check_instruct
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu.backend import open_library
from cellscribe.engine.backends.cuda_provider import check_started, in_words, on_host, open_decoder, ready_provider
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_instruct import DeviceInstruct
from cellscribe.engine.backends.instruct import InstructShapes, Profiles, instruct_shapes, require_profiles
from cellscribe.engine.backends.sessions import Device, default_threads, open_session, running
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.backends.text_feed import room_for
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import DECODER, PROFILE
from cellscribe.engine.decode.sampling import Greedy
from cellscribe.engine.gpu import gpu_number
from cellscribe.engine.instruct.prompts import MAX_TOKENS

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(bool)": bool}


class OnnxRuntimeInstructCuda(DeviceInstruct):
    """Runs a bundle that follows instructions with ONNX Runtime on a GPU; parameters as ``OnnxRuntimeCuda``."""

    def __init__(
        self, bundle: Bundle, device: Device | None = None, *, threads: int | None = None, captures: bool = True
    ) -> None:
        self._sessions = _Sessions(bundle, device or Device("cuda"), threads or default_threads(), captures)
        super().__init__(bundle, self._sessions)

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return in_words(self._sessions.place, self.bundle.manifest.precision)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what costs time at every step: operators that run on the CPU, and steps not captured."""
        return self._sessions.remarks

    def write_profiles(self, conditions: Floats, latents: Floats, libraries: Floats) -> Profiles:
        """Decode conditions one after the other, as a product of one row may be summed in another order."""
        shape, device = require_profiles(self.bundle, self.shapes.profile), self._sessions
        rates, dropout = (np.zeros((len(conditions), shape.n_genes), np.float32) for _ in range(2))
        given = {"condition": conditions, "latent": latents, "library": libraries}
        for i in range(len(conditions)):
            with device.running():
                mine = {name: device.upload(one[i : i + 1].astype(device.dtype)) for name, one in given.items()}
                out = {name: device.empty(PROFILE, name, (1, shape.n_genes)) for name in ("rates", "dropout")}
                device.run(PROFILE, mine, out)
                rates[i], dropout[i] = (device.read(out[name])[0] for name in ("rates", "dropout"))
        return Profiles(rates, dropout)


class _Sessions:
    """The sessions of a bundle's graphs, opened when they are first run, and the arrays that they share."""

    most_tokens = MAX_TOKENS

    def __init__(self, bundle: Bundle, place: Device, threads: int, captures: bool) -> None:
        self._bundle, self.place, self._threads = bundle, place, threads
        self._shapes: InstructShapes = instruct_shapes(bundle)
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        self._graph_ids = itertools.count(1)  # a captured graph belongs to one set of arrays
        missing = ready_provider(bundle, place)
        wanted = captures and place.kind == "cuda"
        decoder, self._no_capture = open_decoder(bundle, threads, place, captures=wanted)
        check_started(decoder, place, missing)
        check_instruct(bundle, DECODER, decoder)
        self._opened: dict[str, ort.InferenceSession] = {DECODER: decoder}

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about operators that run on the CPU, and steps that are not captured."""
        if self.place.kind == "cpu":
            return ()
        left = (on_host(self._bundle, *each) for each in self._opened.items())
        return tuple(one for one in (*left, self._no_capture) if one)

    @property
    def greedy(self) -> Greedy | None:
        """Our library's way of finding the most probable token, where it runs."""
        return None if cpu_problem() else open_library(self._threads, None).greedy

    def check_cell(self, num_genes: int) -> None:
        """Any number will do."""

    def check_prompt(self, num_tokens: int) -> None:
        """Any length will do."""

    def capacity(self, plan: TextPlan) -> int:
        """Return the positions that a slot needs; RoomError where the GPU has no room for so many."""
        gpu = gpu_number(self.place.number, is_fresh=True) if self.place.kind == "cuda" else None
        if gpu is not None:
            check_bytes(gpu.free_bytes, instruct_budget(self._shapes, plan, self.dtype.itemsize), gpu.name)
        return room_for(plan)

    def running(self) -> AbstractContextManager[Any]:
        """Turn what ONNX Runtime raises into one sentence."""
        return running(self.place)

    def empty(self, graph: str, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """Allocate an input or output of a graph, of zeros."""
        session = self._session(graph)
        kinds = {one.name: one.type for one in (*session.get_inputs(), *session.get_outputs())}
        return DeviceArray.zeros(session, shape, _TYPES[kinds[name]], self.place)

    def upload(self, array: Array) -> DeviceArray:
        """Copy an array to the device."""
        return DeviceArray.of(self._opened[DECODER], array, self.place)

    def write(self, target: DeviceArray, array: Array) -> None:
        """Copy an array of the host into one of the device."""
        target.write(array)

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

    def bound(
        self, graph: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Callable[[], None]:
        """Bind a graph to arrays, so that its runs become one CUDA graph where the session captures."""
        return DeviceRun(self._session(graph), inputs, outputs, str(next(self._graph_ids)))

    def _session(self, graph: str) -> ort.InferenceSession:
        if graph not in self._opened:
            session = open_session(self._bundle.path(graph), self._threads, self.place)
            check_instruct(self._bundle, graph, session)
            self._opened[graph] = session
        return self._opened[graph]


def instruct_budget(shapes: InstructShapes, plan: TextPlan, size: int) -> Budget:
    """Count the bytes of a run whose weights are loaded, with numbers of `size` bytes."""
    t5, capacity = shapes.t5, room_for(plan)
    each = 2 * t5.n_layers * t5.n_heads * t5.d_head * size
    slot = SlotBytes(
        caches=each * capacity,
        attended=each * plan.longest_memory,
        masks=capacity + plan.longest_memory,
        choice=4 * t5.vocab_size + 16,
        evidence=4 * t5.d_model,
    )
    return Budget(0, (each + 2 * t5.d_model * size) * plan.longest_memory, slot, plan.num_slots)
