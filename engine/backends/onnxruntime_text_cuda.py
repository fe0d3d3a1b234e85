"""Families without an encoder on ONNX Runtime's CUDA provider: weights and caches stay on the device.

Tokens, positions and masks go there and logits come back each step; tokens are chosen on the host, as on the CPU.
Prompts run one at a time and steps run all slots, so that no text depends on which others are in work.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Array, Floats, Ints
from cellscribe.engine.backends.budget import check_room as check_bytes
from cellscribe.engine.backends.budget import text_budget
from cellscribe.engine.backends.contract import check_text_decoder
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu.backend import open_library
from cellscribe.engine.backends.cuda_provider import check_started, in_words, on_host, open_decoder, ready_provider
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_text_slots import DeviceTextSlots
from cellscribe.engine.backends.onnxruntime_text import pieces
from cellscribe.engine.backends.prompt_rows import OnPrompts
from cellscribe.engine.backends.sessions import Device, default_threads, running
from cellscribe.engine.backends.text import TextPlan, check_room
from cellscribe.engine.backends.text_feed import room_for, visible
from cellscribe.engine.bundle.load import DECODER, Bundle
from cellscribe.engine.decode.sampling import Greedy
from cellscribe.engine.errors import BundleError
from cellscribe.engine.gpu import gpu_number

Arrays = Mapping[str, DeviceArray]


class OnnxRuntimeTextCuda:
    """Runs a bundle without an encoder with ONNX Runtime on a GPU; parameters and errors as ``OnnxRuntimeCuda``."""

    def __init__(
        self, bundle: Bundle, device: Device | None = None, *, threads: int | None = None, captures: bool = True
    ) -> None:
        if bundle.manifest.decoder is None or bundle.manifest.style is None:
            raise BundleError(f"the bundle {bundle.name} reads no sentences; choose one of the family c2s.")
        self.bundle, self.shape, self.style = bundle, bundle.manifest.decoder, bundle.manifest.style
        self.place, self.threads = device or Device("cuda"), threads or default_threads()
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        self.graph_ids = itertools.count(1)  # a captured graph belongs to one set of arrays
        missing = ready_provider(bundle, self.place)
        wanted = captures and self.place.kind == "cuda"
        self.decoder, self._no_capture = open_decoder(bundle, self.threads, self.place, captures=wanted)
        check_started(self.decoder, self.place, missing)
        check_text_decoder(bundle, self.decoder)

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return in_words(self.place, self.bundle.manifest.precision)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what costs time at every step: operators that run on the CPU, and steps not captured."""
        if self.place.kind == "cpu":
            return ()
        return tuple(one for one in (on_host(self.bundle, DECODER, self.decoder), self._no_capture) if one)

    @property
    def greedy(self) -> Greedy | None:
        """Our library's way of finding the most probable token, where it runs: faster on large vocabularies."""
        return None if cpu_problem() else open_library(self.threads, None).greedy

    def open_text_slots(self, plan: TextPlan) -> DeviceTextSlots:
        """Allocate the slots of a run; RoomError when the GPU's free memory does not hold them."""
        check_room(self.bundle, plan.longest_prompt, plan.max_new_tokens)
        with running(self.place):
            gpu = gpu_number(self.place.number, is_fresh=True) if self.place.kind == "cuda" else None
            if gpu is not None:
                needed = text_budget(self.bundle.manifest, plan.num_slots, room_for(plan))
                check_bytes(gpu.free_bytes, needed, gpu.name)
            return DeviceTextSlots(self, plan)

    def embed_prompts(self, prompts: Sequence[Ints], progress: OnPrompts | None = None) -> Floats:
        """Return the mean of the last states over each prompt's tokens, float32 [N, d]; `progress` hears how many."""
        found = np.zeros((len(prompts), self.shape.d_model), np.float32)
        if not prompts:
            return found
        longest = max(map(len, prompts))
        check_room(self.bundle, longest, 0)
        with running(self.place):
            caches = self.caches(1, longest)
            for i, prompt in enumerate(prompts):
                total = np.zeros(self.shape.d_model, np.float64)
                for start, stop in pieces(0, len(prompt)):
                    states = self.empty((1, stop - start, self.shape.d_model), np.float32)
                    self.run_piece(prompt[start:stop], start, caches, caches, {"states": states})
                    total += states.read()[0].sum(0, dtype=np.float64)
                found[i] = total / len(prompt)
                if progress:
                    progress(i + 1)
        return found

    def run_piece(self, tokens: Ints, start: int, source: Arrays, target: Arrays, outputs: Arrays) -> None:
        """Run tokens int64 [T] of one row from position `start` on, over the caches of `source`, into `target`.

        Both are one array to update them in place. `outputs` are what is wanted: ``logits`` [1, 1, V] of the last
        token, ``states`` [1, T, d].
        """
        positions = np.arange(start, start + len(tokens))[None]
        arrays: dict[str, Array] = {
            "tokens": tokens[None], "positions": positions, "chosen": np.array([[len(tokens) - 1]], np.int64),
            **self.masks(positions, source["key.0"].shape[2]),
        }  # fmt: skip
        inputs = {name: DeviceArray.of(self.decoder, array, self.place) for name, array in arrays.items()}
        new = {f"new_{name}": array for name, array in target.items()}
        DeviceRun(self.decoder, {**inputs, **source}, {**outputs, **new})()

    def masks(self, positions: Ints, capacity: int) -> dict[str, Array]:
        """Return the masks that the decoder takes for positions int64 [B, T]."""
        found: dict[str, Array] = {"mask": visible(positions, capacity)}
        if self.style.window:
            found["near"] = visible(positions, capacity, self.style.window)
        return found

    def caches(self, rows: int, capacity: int) -> dict[str, DeviceArray]:
        """Return empty caches [rows, K, C, D] of every layer."""
        shape = (rows, self.shape.n_kv_heads, capacity, self.shape.d_head)
        return {
            f"{part}.{i}": self.zeros(shape, self.dtype)
            for i in range(self.shape.n_layers)
            for part in ("key", "value")
        }

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate an array on the device."""
        return DeviceArray.empty(self.decoder, shape, dtype, self.place)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate zeros on the device."""
        return DeviceArray.zeros(self.decoder, shape, dtype, self.place)
