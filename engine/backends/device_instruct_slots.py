"""Texts over prompts that were encoded, on a device: caches, keys and values with one row per slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.engine.backends.base import Array, Chosen, Floats, Ints, Memory, Ready
from cellscribe.engine.backends.instruct import InstructShapes, check_memory
from cellscribe.engine.backends.samplers import may_be_greedy
from cellscribe.engine.backends.signals import with_conditions
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.backends.text_feed import Feed, feeds
from cellscribe.engine.backends.text_state import TextState
from cellscribe.engine.bundle.load import CROSS, DECODER

if TYPE_CHECKING:
    from cellscribe.engine.backends.device_instruct import InstructDevice

# A product of one row may be summed in another order than one of several, so there are never fewer rows.
_MIN_ROWS = 2


class DeviceInstructSlots:
    """The slots of one run."""

    depth = 1  # work is done when it is given: the host chooses the tokens
    steps_per_ticket = 1

    def __init__(self, device: InstructDevice, shapes: InstructShapes, plan: TextPlan) -> None:
        self._device, self._shapes, self._plan = device, shapes, plan
        self._rows, self._capacity = max(plan.num_slots, _MIN_ROWS), device.capacity(plan)
        self._state = TextState(plan, device.greedy if may_be_greedy(plan) else None)
        t5, most, empty = shapes.t5, plan.longest_memory, device.empty
        parts = [f"{part}.{i}" for i in range(t5.n_layers) for part in ("key", "value")]
        own, other = (self._rows, t5.n_heads, self._capacity, t5.d_head), (t5.n_heads, most, t5.d_head)
        self._caches = {name: empty(DECODER, name, own) for name in parts}
        self._crosses = {f"cross_{name}": empty(DECODER, f"cross_{name}", (self._rows, *other)) for name in parts}
        self._new_crosses = {name: empty(CROSS, name, (1, *other)) for name in self._crosses}
        self._seen = empty(DECODER, "memory_mask", (self._rows, most))
        self._raw, self._blank = (empty(CROSS, "states", (1, most, t5.d_model)) for _ in range(2))
        self._logits = np.zeros((plan.num_slots, t5.vocab_size), np.float32)
        self._steps: dict[int, _Step] = {}

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run what their texts begin with, and choose their first tokens."""
        chosen: list[Chosen] = []
        slots: list[int] = []
        for one in admissions:
            check_memory(len(one.memory), self._plan.longest_memory)
        with self._device.running():
            for one in sorted(admissions, key=lambda one: one.slot):
                self._fill(one)
                chosen += self._state.begin(one, 0)
                if not self._state.has_ended(one.slot):
                    slots.append(one.slot)
            return Ready((*chosen, *self._advance(slots)))

    def step(self, active: Ints) -> Ready:
        """Run what was chosen last for every active slot, and choose what follows."""
        with self._device.running():
            return Ready(tuple(self._advance([slot for slot in active.tolist() if not self._state.has_ended(slot)])))

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        last: Floats = self._logits[:count]
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def states(self, slots: list[int]) -> Floats:
        """Run the last chosen tokens of slots; the decoder's states after them."""
        found = np.zeros((self._plan.num_slots, self._shapes.t5.d_model), np.float32)
        self._run(slots, "states", found)
        mine: Floats = found[slots]
        return mine

    def _fill(self, one: Prompted) -> None:
        """Work out the keys and values of a prompt, in the rows of its slot."""
        device, count, most, slot = self._device, len(one.memory), self._plan.longest_memory, one.slot
        if self._state.was_lost(slot):  # what is masked counts nothing, but nothing times NaN is NaN
            for array in self._caches.values():
                mine = device.rows(array, slot, slot + 1)
                device.write(mine, np.zeros(tuple(mine.shape), device.dtype))
        raw = self._raw[0]
        self._put(device.rows(raw, 0, count), one.memory)
        device.copy(device.rows(raw, count, most), device.rows(self._blank[0], count, most))
        device.run(CROSS, {"states": self._raw}, self._new_crosses)
        for name, array in self._crosses.items():
            device.copy(device.rows(array, slot, slot + 1), self._new_crosses[name])
        device.write(device.rows(self._seen, slot, slot + 1), np.arange(most)[None] < count)

    def _put(self, target: Any, memory: Memory) -> None:
        if isinstance(memory, np.ndarray):
            self._device.write(target, np.ascontiguousarray(memory, self._device.dtype))
        else:
            self._device.copy(target, self._device.rows(memory.array, 0, len(memory)))

    def _advance(self, slots: list[int]) -> list[Chosen]:
        if not slots:
            return []
        self._run(slots, "logits", self._logits)
        chosen = self._state.choose(slots, self._logits[slots])
        return with_conditions(chosen, self._plan.signal_id, self.states)

    def _run(self, slots: list[int], wanted: str, out: Floats) -> None:
        """Run the new tokens of slots; what is `wanted` of each one's last goes into its row of `out`."""
        rows, known = self._state.rows(slots), np.zeros(self._rows, np.int64)
        known[: len(self._state.known)] = self._state.known
        for feed in feeds(rows, slots, known, self._capacity):
            if feed.width not in self._steps:
                arrays = {**self._crosses, **self._caches, "memory_mask": self._seen}
                self._steps[feed.width] = _Step(self._device, self._shapes, feed.width, self._capacity, arrays)
            found = self._steps[feed.width](feed, wanted)
            out[feed.slots] = found[feed.slots, feed.chosen[feed.slots, 0]]


class _Step:
    """A run of all rows with as many tokens each, bound once: one CUDA graph where the device captures."""

    def __init__(
        self, device: InstructDevice, shapes: InstructShapes, width: int, capacity: int, arrays: dict[str, Any]
    ) -> None:
        self._device, self._capacity = device, capacity
        rows, t5 = int(arrays["memory_mask"].shape[0]), shapes.t5
        sizes = {"tokens": (rows, width), "positions": (rows, width), "mask": (rows, width, capacity)}
        self._inputs = {name: device.empty(DECODER, name, size) for name, size in sizes.items()}
        self._outputs = {
            "logits": device.empty(DECODER, "logits", (rows, width, t5.vocab_size)),
            "states": device.empty(DECODER, "states", (rows, width, t5.d_model)),
        }
        new = {f"new_{name}": array for name, array in arrays.items() if name.split(".")[0] in ("key", "value")}
        self._run = device.bound(DECODER, {**self._inputs, **arrays}, {**self._outputs, **new})

    def __call__(self, feed: Feed, wanted: str) -> Array:
        """Run it; what was wanted of every row and token, [B, w, ...]."""
        given: dict[str, Array] = {
            "tokens": feed.tokens,
            "positions": feed.positions,
            "mask": feed.mask(self._capacity),
        }
        for name, array in given.items():
            self._device.write(self._inputs[name], array)
        self._run()
        return self._device.read(self._outputs[wanted])
