"""Texts over prompts that were encoded, on a device: caches, keys and values with one row per slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.engine.backends.base import Array, Chosen, Floats, Ints, Ready
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_slots import slice_of
from cellscribe.engine.backends.instruct import check_memory
from cellscribe.engine.backends.sessions import running
from cellscribe.engine.backends.signals import with_conditions
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.backends.text_feed import Feed, feeds, room_for
from cellscribe.engine.backends.text_state import TextState
from cellscribe.engine.bundle.load import CROSS

if TYPE_CHECKING:
    from cellscribe.engine.backends.onnxruntime_instruct_cuda import OnnxRuntimeInstructCuda

# A product of one row may be summed in another order than one of several, so there are never fewer rows.
_MIN_ROWS = 2


class DeviceInstructSlots:
    """The slots of one run of ``OnnxRuntimeInstructCuda``."""

    depth = 1  # work is done when it is given: the host chooses the tokens
    steps_per_ticket = 1

    def __init__(self, backend: OnnxRuntimeInstructCuda, plan: TextPlan) -> None:
        self._backend, self._plan = backend, plan
        self._rows, self._capacity = max(plan.num_slots, _MIN_ROWS), room_for(plan)
        self._state = TextState(plan, backend.greedy if plan.sampling.is_greedy else None)
        t5, zeros = backend.shapes.t5, backend.zeros
        parts = [f"{part}.{i}" for i in range(t5.n_layers) for part in ("key", "value")]
        own, other = ((self._rows, t5.n_heads, n, t5.d_head) for n in (self._capacity, plan.longest_memory))
        self._caches = {name: zeros(own, backend.dtype) for name in parts}
        self._crosses = {f"cross_{name}": zeros(other, backend.dtype) for name in parts}
        self._seen = zeros((self._rows, plan.longest_memory), np.bool_)
        self._raw = zeros((1, plan.longest_memory, t5.d_model), backend.dtype)
        self._logits = np.zeros((plan.num_slots, t5.vocab_size), np.float32)
        self._steps: dict[tuple[int, str], _Step] = {}

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run what their texts begin with, and choose their first tokens."""
        chosen: list[Chosen] = []
        slots: list[int] = []
        for one in admissions:
            check_memory(len(one.memory), self._plan.longest_memory)
        with running(self._backend.place):
            for one in sorted(admissions, key=lambda one: one.slot):
                self._fill(one)
                chosen += self._state.begin(one, 0)
                if not self._state.has_ended(one.slot):
                    slots.append(one.slot)
            return Ready((*chosen, *self._advance(slots)))

    def step(self, active: Ints) -> Ready:
        """Run what was chosen last for every active slot, and choose what follows."""
        with running(self._backend.place):
            return Ready(tuple(self._advance([slot for slot in active.tolist() if not self._state.has_ended(slot)])))

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        last: Floats = self._logits[:count]
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def _fill(self, one: Prompted) -> None:
        """Work out the keys and values of a prompt, in the rows of its slot."""
        count, most = len(one.memory), self._plan.longest_memory
        if self._state.was_lost(one.slot):
            for array in slice_of(self._caches, one.slot).values():
                array.write(np.zeros(array.shape, array.dtype))
        width = (most - count, self._backend.shapes.t5.d_model)
        mine = self._raw[0]
        mine.rows(0, count).write(_as(one.memory, self._backend.dtype))
        mine.rows(count, most).write(np.zeros(width, self._backend.dtype))
        self._backend.run(CROSS, {"states": self._raw}, slice_of(self._crosses, one.slot))
        self._seen.rows(one.slot, one.slot + 1).write(np.arange(most)[None] < count)

    def _advance(self, slots: list[int]) -> list[Chosen]:
        if not slots:
            return []
        self._run(slots, "logits", self._logits)
        chosen = self._state.choose(slots, self._logits[slots])
        return with_conditions(chosen, self._plan.signal_id, self.states)

    def states(self, slots: list[int]) -> Floats:
        """Run the last chosen tokens of slots; the decoder's states after them."""
        found = np.zeros((self._plan.num_slots, self._backend.shapes.t5.d_model), np.float32)
        self._run(slots, "states", found)
        mine: Floats = found[slots]
        return mine

    def _run(self, slots: list[int], wanted: str, out: Floats) -> None:
        """Run the new tokens of slots; what is `wanted` of each one's last goes into its row of `out`."""
        rows, known = self._state.rows(slots), np.zeros(self._rows, np.int64)
        known[: len(self._state.known)] = self._state.known
        for feed in feeds(rows, slots, known, self._capacity):
            key = (feed.width, wanted)
            if key not in self._steps:
                arrays = {**self._crosses, **self._caches, "memory_mask": self._seen}
                self._steps[key] = _Step(self._backend, feed.width, self._capacity, wanted, arrays)
            found = self._steps[key](feed)
            out[feed.slots] = found[feed.slots, feed.chosen[feed.slots, 0]]


class _Step:
    """A run of all rows with as many tokens each, bound once: one CUDA graph where the backend captures."""

    def __init__(
        self, backend: OnnxRuntimeInstructCuda, width: int, capacity: int, wanted: str, arrays: dict[str, DeviceArray]
    ) -> None:
        rows, t5 = len(arrays["memory_mask"]), backend.shapes.t5
        self._capacity = capacity
        self._inputs = {
            "tokens": backend.zeros((rows, width), np.int64),
            "positions": backend.zeros((rows, width), np.int64),
            "mask": backend.zeros((rows, width, capacity), np.bool_),
        }
        size = t5.vocab_size if wanted == "logits" else t5.d_model
        self._out = backend.zeros((rows, width, size), np.float32)
        new = {f"new_{name}": array for name, array in arrays.items() if name.split(".")[0] in ("key", "value")}
        outputs = {wanted: self._out, **new}
        self._run = DeviceRun(backend.decoder, {**self._inputs, **arrays}, outputs, str(next(backend.graph_ids)))

    def __call__(self, feed: Feed) -> Array:
        """Run it; what was wanted of every row and token, [B, w, ...]."""
        for name, array in (
            ("tokens", feed.tokens), ("positions", feed.positions), ("mask", feed.mask(self._capacity)),
        ):  # fmt: skip
            self._inputs[name].write(array)
        self._run()
        return self._out.read()


def _as(memory: DeviceArray | Array, dtype: np.dtype[np.generic]) -> DeviceArray | Array:
    return memory if isinstance(memory, DeviceArray) else np.ascontiguousarray(memory, dtype)
