"""Texts after prompts of their own on a device: caches with one row per slot, updated in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.engine.backends.base import Array, Chosen, Floats, Ints, Ready
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun
from cellscribe.engine.backends.device_slots import slice_of
from cellscribe.engine.backends.onnxruntime_text import pieces
from cellscribe.engine.backends.samplers import may_be_greedy
from cellscribe.engine.backends.sessions import running
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.backends.text_feed import Feed, feeds, room_for, shared
from cellscribe.engine.backends.text_state import TextState

if TYPE_CHECKING:
    from cellscribe.engine.backends.onnxruntime_text_cuda import OnnxRuntimeTextCuda

# A product of one row may be summed in another order than one of several, so there are never fewer rows.
_MIN_ROWS = 2


class DeviceTextSlots:
    """The slots of one run of :class:`~cellscribe.engine.backends.onnxruntime_text_cuda.OnnxRuntimeTextCuda`."""

    depth = 1  # work is done when it is given: the host chooses the tokens
    steps_per_ticket = 1

    def __init__(self, backend: OnnxRuntimeTextCuda, plan: TextPlan) -> None:
        self._backend, self._rows, self._capacity = backend, max(plan.num_slots, _MIN_ROWS), room_for(plan)
        self._state = TextState(plan, backend.greedy if may_be_greedy(plan) else None)
        self._caches = backend.caches(self._rows, self._capacity)
        # What every prompt starts from: the common prefix, or nothing. A run that reads it and writes the caches of a
        # slot copies it on the way, over all that the last text left there.
        self._start = backend.caches(1, self._capacity)
        self._logits = np.zeros((plan.num_slots, backend.shape.vocab_size), np.float32)
        self._out = backend.zeros((self._rows, 1, backend.shape.vocab_size), np.float32)
        self._steps: dict[int, _Step] = {}
        self._prefix = np.array(plan.prefix if len(plan.prefix) >= _MIN_ROWS else (), np.int64)
        with running(backend.place):
            for start, stop in pieces(0, len(self._prefix)):
                backend.run_piece(self._prefix[start:stop], start, self._start, self._start, {})

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run the prompt of each, and choose their first tokens."""
        chosen: list[Chosen] = []
        slots: list[int] = []
        with running(self._backend.place):
            for one in sorted(admissions, key=lambda one: one.slot):
                chosen += self._state.begin(one, shared(self._prefix, one.tokens, _MIN_ROWS))
                if not self._state.has_ended(one.slot):
                    self._run_prompt(one.slot)
                    slots.append(one.slot)
        return Ready((*chosen, *self._choose(slots)))

    def step(self, active: Ints) -> Ready:
        """Run what was chosen last for every active slot, and choose what follows."""
        slots = [slot for slot in active.tolist() if not self._state.has_ended(slot)]
        if not slots:
            return Ready(())
        rows, known = self._state.rows(slots), np.zeros(self._rows, np.int64)
        known[: len(self._state.known)] = self._state.known
        with running(self._backend.place):
            for feed in feeds(rows, slots, known, self._capacity):
                self._run_feed(feed)
        return Ready(tuple(self._choose(slots)))

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        last: Floats = self._logits[:count]
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def _choose(self, slots: list[int]) -> list[Chosen]:
        return self._state.choose(slots, self._logits[slots]) if slots else []

    def _run_prompt(self, slot: int) -> None:
        """Run what is not known yet of one slot, and keep the logits after it."""
        rows, own, source = self._state.rows([slot]), slice_of(self._caches, slot), self._start
        known, out = int(rows.positions[0]), self._out.rows(slot, slot + 1)
        for start, stop in pieces(0, len(rows.tokens)):
            wanted = {"logits": out} if stop == len(rows.tokens) else {}
            self._backend.run_piece(rows.tokens[start:stop], known + start, source, own, wanted)
            source = own
        self._logits[slot] = out.read()[0, 0]

    def _run_feed(self, feed: Feed) -> None:
        if feed.width not in self._steps:
            self._steps[feed.width] = _Step(self._backend, feed.width, self._caches, self._out)
        self._steps[feed.width](feed)
        if 4 * len(feed.slots) > self._rows:  # all at once, or one by one where few are wanted
            self._logits[feed.slots] = self._out.read()[feed.slots, 0]
        else:
            for slot in feed.slots.tolist():
                self._logits[slot] = self._out[slot].read()[0]


class _Step:
    """A run of all rows with as many tokens each, bound once: one CUDA graph where the backend captures."""

    def __init__(
        self, backend: OnnxRuntimeTextCuda, width: int, caches: dict[str, DeviceArray], out: DeviceArray
    ) -> None:
        self._backend, rows, self._capacity = backend, len(out), caches["key.0"].shape[2]
        masks = dict.fromkeys(backend.masks(np.zeros((1, 1), np.int64), 1), (rows, width, self._capacity))
        self._inputs = {
            "tokens": backend.zeros((rows, width), np.int64),
            "positions": backend.zeros((rows, width), np.int64),
            "chosen": backend.zeros((rows, 1), np.int64),
            **{name: backend.zeros(shape, np.bool_) for name, shape in masks.items()},
        }
        new = {f"new_{name}": array for name, array in caches.items()}
        inputs, outputs = {**self._inputs, **caches}, {"logits": out, **new}
        self._run = DeviceRun(backend.decoder, inputs, outputs, str(next(backend.graph_ids)))

    def __call__(self, feed: Feed) -> None:
        """Run it; the logits of each row's chosen token are in the output afterwards."""
        arrays: dict[str, Array] = {"tokens": feed.tokens, "positions": feed.positions, "chosen": feed.chosen}
        for name, array in (arrays | self._backend.masks(feed.positions, self._capacity)).items():
            self._inputs[name].write(array)
        self._run()
