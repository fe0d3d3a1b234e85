"""Bundles that follow instructions on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort

from cellscribe.engine.backends.base import Array, Chosen, Floats, Ints, Ready
from cellscribe.engine.backends.contract import check_instruct
from cellscribe.engine.backends.instruct import (
    EncoderPrompt,
    ExpressedCell,
    Profiles,
    check_memory,
    instruct_shapes,
    require_profiles,
)
from cellscribe.engine.backends.sessions import BoundRun, default_threads, open_session
from cellscribe.engine.backends.signals import with_conditions
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.backends.text_state import TextState
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PROFILE, TOWER

# ONNX Runtime sums a matrix product of one row in another order than one of several.
_MIN_ROWS = 2


class OnnxRuntimeInstruct:
    """Runs a bundle that follows instructions with ONNX Runtime on the CPU.

    Cells and prompts run one at a time: nothing is padded, and no sum depends on what else there is.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle, self.shapes = bundle, instruct_shapes(bundle)
        self.threads = threads or default_threads()
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)

    @property
    def device(self) -> str:
        """Device, provider and threads in words."""
        plural = "s" if self.threads != 1 else ""
        return f"CPU, ONNX Runtime {ort.__version__} CPUExecutionProvider, {self.threads} thread{plural}"

    def read_cells(self, cells: Iterable[ExpressedCell]) -> Iterator[Floats]:
        """Read cells one after the other."""
        for cell in cells:
            found = self._tower.run(["features"], {"genes": cell.genes[None], "values": cell.values[None]})
            yield found[0][0].astype(np.float32)

    def encode_prompts(self, prompts: Sequence[EncoderPrompt]) -> list[Any]:
        """Encode prompts one after the other."""
        return [self._encoder.run(["states"], self._encoder_inputs(one))[0][0] for one in prompts]

    def open_instruct_slots(self, plan: TextPlan) -> OnnxRuntimeInstructSlots:
        """Allocate the slots of a run."""
        return OnnxRuntimeInstructSlots(self, plan)

    def write_profiles(self, conditions: Floats, latents: Floats, libraries: Floats) -> Profiles:
        """Decode conditions one after the other."""
        require_profiles(self.bundle, self.shapes.profile)
        found = [
            self._profile.run(["rates", "dropout"], _profile_inputs(self.dtype, conditions, latents, libraries, i))
            for i in range(len(conditions))
        ]
        rates, dropout = (np.concatenate([one[part] for one in found]).astype(np.float32) for part in range(2))
        return Profiles(rates, dropout)

    def keys_values(self, states: Array) -> dict[str, Array]:
        """Return keys and values [H, S, D] of every decoder layer by the names of the decoder's inputs."""
        names = [one.name for one in self._cross.get_outputs()]
        return {name: one[0] for name, one in zip(names, self._cross.run(names, {"states": states[None]}), strict=True)}

    def empty_caches(self, rows: int, capacity: int, memory: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return caches [rows, H, C, D] of every layer, and room for keys and values of `memory` states."""
        t5 = self.shapes.t5
        shape = (rows, t5.n_heads, capacity, t5.d_head)
        own = {f"{part}.{i}": np.zeros(shape, self.dtype) for i in range(t5.n_layers) for part in ("key", "value")}
        shape = (rows, t5.n_heads, memory, t5.d_head)
        return own, {f"cross_{name}": np.zeros(shape, self.dtype) for name in own}

    @cached_property
    def decoder(self) -> ort.InferenceSession:
        """The decoder's session."""
        session = open_session(self.bundle.path(DECODER), self.threads)
        check_instruct(self.bundle, DECODER, session)
        return session

    def _encoder_inputs(self, prompt: EncoderPrompt) -> dict[str, Array]:
        shape = (self.shapes.tower.n_queries, self.shapes.t5.d_model)
        features = np.zeros(shape, self.dtype) if prompt.features is None else prompt.features.astype(self.dtype)
        return {
            "tokens": prompt.tokens[None], "mask": np.ones((1, len(prompt.tokens)), bool), "features": features[None],
            "starts": np.array([prompt.start], np.int64),
        }  # fmt: skip

    @cached_property
    def _tower(self) -> ort.InferenceSession:
        return self._checked(TOWER)

    @cached_property
    def _encoder(self) -> ort.InferenceSession:
        return self._checked(ENCODER)

    @cached_property
    def _cross(self) -> ort.InferenceSession:
        return self._checked(CROSS)

    @cached_property
    def _profile(self) -> ort.InferenceSession:
        return self._checked(PROFILE)

    def _checked(self, name: str) -> ort.InferenceSession:
        session = open_session(self.bundle.path(name), self.threads)
        check_instruct(self.bundle, name, session)
        return session


def _profile_inputs(
    dtype: np.dtype[Any], conditions: Floats, latents: Floats, libraries: Floats, i: int
) -> dict[str, Array]:
    given = {"condition": conditions, "latent": latents, "library": libraries}
    return {name: array[i : i + 1].astype(dtype) for name, array in given.items()}


class OnnxRuntimeInstructSlots:
    """Texts in progress: caches with one row per slot, and the keys and values of its prompt."""

    depth = 1  # work is done when it is given
    steps_per_ticket = 1

    def __init__(self, backend: OnnxRuntimeInstruct, plan: TextPlan) -> None:
        self._backend, self._plan, self._state = backend, plan, TextState(plan)
        rows, t5 = max(plan.num_slots, _MIN_ROWS), backend.shapes.t5
        self._caches, self._crosses = backend.empty_caches(rows, self._state.capacity, plan.longest_memory)
        self._seen = np.zeros((rows, plan.longest_memory), bool)
        self._logits = np.zeros((plan.num_slots, t5.vocab_size), np.float32)

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run what their texts begin with, and choose their first tokens."""
        chosen: list[Chosen] = []
        slots: list[int] = []
        for one in sorted(admissions, key=lambda one: one.slot):
            self._fill(one)
            chosen += self._state.begin(one, 0)
            if not self._state.has_ended(one.slot):
                slots.append(one.slot)
        return Ready((*chosen, *self._advance(slots)))

    def step(self, active: Ints) -> Ready:
        """Run what was chosen last for every active slot, and choose what follows."""
        return Ready(tuple(self._advance([slot for slot in active.tolist() if not self._state.has_ended(slot)])))

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        last: Floats = self._logits[:count]
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def _fill(self, one: Prompted) -> None:
        check_memory(len(one.memory), self._plan.longest_memory)
        if self._state.was_lost(one.slot):
            for array in self._caches.values():
                array[one.slot] = 0
        for name, found in self._backend.keys_values(one.memory).items():
            self._crosses[name][one.slot] = 0  # what is masked counts nothing, but nothing times NaN is NaN
            self._crosses[name][one.slot, :, : found.shape[1]] = found
        self._seen[one.slot] = np.arange(self._plan.longest_memory) < len(one.memory)

    def _advance(self, slots: list[int]) -> list[Chosen]:
        if not slots:
            return []
        self._logits[slots] = self._run(slots, "logits", self._backend.shapes.t5.vocab_size)
        chosen = self._state.choose(slots, self._logits[slots])
        return with_conditions(chosen, self._plan.signal_id, self.states)

    def states(self, slots: list[int]) -> Floats:
        """Run the last chosen tokens of slots; the decoder's states after them."""
        return self._run(slots, "states", self._backend.shapes.t5.d_model)

    def _run(self, slots: list[int], wanted: str, width: int) -> Floats:
        """Run the new tokens of slots, the rows between them along; `wanted` [n, width] of each slot's last one."""
        rows = self._state.rows(slots)
        counts = np.diff(np.append(-1, rows.last))
        height, most = max(max(slots) + 1, _MIN_ROWS), int(counts.max())
        tokens, starts = np.zeros((height, most), np.int64), np.zeros(height, np.int64)
        known = self._state.known[:height]
        starts[: len(known)] = np.minimum(known, self._state.capacity - most)
        starts[slots] = rows.positions[rows.last - counts + 1]
        place = rows.positions - rows.positions[rows.last - counts + 1].repeat(counts)
        tokens[rows.slots, place] = rows.tokens
        out = np.zeros((height, most, width), np.float32)
        self._bound(tokens, starts[:, None] + np.arange(most), {wanted: out})
        found: Floats = out[slots, counts - 1]
        return found

    def _bound(self, tokens: Ints, positions: Ints, outputs: dict[str, Array]) -> None:
        height = len(tokens)
        caches = {name: array[:height] for name, array in self._caches.items()}
        inputs: dict[str, Array] = {
            "tokens": tokens, "positions": positions, "memory_mask": self._seen[:height],
            "mask": np.arange(self._state.capacity) <= positions[:, :, None],
        }  # fmt: skip
        crosses = {name: array[:height] for name, array in self._crosses.items()}
        new = {f"new_{name}": array for name, array in caches.items()}
        BoundRun(self._backend.decoder, inputs | crosses | caches, outputs | new)()
