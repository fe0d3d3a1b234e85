"""Texts in progress on a device: arrays with one row per slot that every step binds whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from cellscribe.engine.backends.base import Admission, Array, Chosen, Floats, Ints, Memory, Ready, SlotPlan
from cellscribe.engine.backends.contract import attended_shapes
from cellscribe.engine.backends.device_arrays import DeviceArray, DeviceRun, stretches
from cellscribe.engine.backends.sessions import running
from cellscribe.engine.backends.slot_state import SlotState
from cellscribe.engine.errors import BundleError

if TYPE_CHECKING:
    from cellscribe.engine.backends.onnxruntime_cuda import OnnxRuntimeCuda

# A product of one row may be summed in another order than one of several, so there are never fewer rows.
_MIN_ROWS = 2
# ONNX Runtime runs a graph twice before it captures it: until the third run is over, no other CUDA call may come.
_RUNS_UNTIL_CAPTURED = 3


class DeviceSlots:
    """The slots of one run of :class:`~cellscribe.engine.backends.onnxruntime_cuda.OnnxRuntimeCuda`."""

    def __init__(self, backend: OnnxRuntimeCuda, plan: SlotPlan) -> None:
        manifest = backend.bundle.manifest
        if manifest.decoder is None or manifest.cross_attention is None or manifest.prompt is None:
            raise BundleError(f"the bundle {backend.bundle.name} cannot describe cells; choose one with a decoder.")
        self._backend, self._plan, self._rows = backend, plan, max(plan.num_slots, _MIN_ROWS)
        self._shape, self._cross = manifest.decoder, manifest.cross_attention
        self._prompt_ids = np.array(manifest.prompt.token_ids, np.int64)
        self._state = SlotState(self._rows, len(self._prompt_ids), plan)
        self._allocate()
        self._prompt_inputs = self._prompt_constants()
        self._prompts: dict[int, DeviceRun] = {}
        self._num_steps = 0
        self._run_step = self._bind_step()

    def _allocate(self) -> None:
        zeros, rows, genes, dtype = self._backend.zeros, self._rows, self._plan.num_genes, self._backend.dtype
        shape, cross = self._shape, self._cross
        cache = (rows, shape.n_kv_heads, self._state.capacity, shape.d_head)
        self._caches = {f"{p}.{i}": zeros(cache, dtype) for i in range(shape.n_layers) for p in ("key", "value")}
        self._attended: dict[str, DeviceArray] = {}
        for name, sizes in attended_shapes(cross).items():
            varying = iter((rows, genes))  # in this order in every shape
            self._attended[name] = zeros(tuple(next(varying) if s is None else s for s in sizes), dtype)
        self._memory_mask = zeros((rows, genes), np.bool_)
        self._inputs = {
            "tokens": zeros((rows, 1), np.int64),
            "positions": zeros((rows, 1), np.int64),
            "mask": zeros((rows, 1, self._state.capacity), np.bool_),
        }
        self._outputs = {
            "logits": zeros((rows, 1, shape.vocab_size), np.float32),
            "evidence": zeros((rows, 1, genes), np.float32),
        }
        if self._plan.keep_attention:
            self._outputs["attention"] = zeros((rows, cross.n_layers, cross.n_heads, 1, genes), np.float32)
        self._blank = zeros((genes, cross.d_memory), dtype)
        self._raw = zeros((1, genes, cross.d_memory), dtype) if cross.prepared else None

    def _prompt_constants(self) -> dict[str, DeviceArray]:
        """Return what is the same for every cell: the prompt, and lower caches that hold its known part.

        The run reads these lower caches and writes those of the slot, which copies them on the way.
        """
        prefix, known = self._backend.prefix, len(self._prompt_ids) - 1
        positions = np.arange(known + 1)[None]
        arrays: dict[str, Array] = {
            "tokens": self._prompt_ids[None, -1:],
            "hidden": prefix["hidden"][None],
            "positions": positions,
            "mask": self._state.range <= positions[:, :, None],
        }
        for i in range(self._shape.n_lower):
            for name in (f"key.{i}", f"value.{i}"):
                arrays[name] = np.zeros((1, *self._caches[name].shape[1:]), self._backend.dtype)
                arrays[name][0, :, :known] = prefix[name]
        return {name: self._upload(array) for name, array in arrays.items()}

    def _upload(self, array: Array) -> DeviceArray:
        return DeviceArray.of(self._backend.decoder, array, self._backend.place)

    depth = 1  # work is done when it is given: the host chooses the tokens
    steps_per_ticket = 1

    def admit(self, admissions: Sequence[Admission]) -> Ready:
        """Fill slots, run the prompt for each, and choose their first tokens."""
        ordered = sorted(admissions, key=lambda a: a.slot)
        with running(self._backend.place):
            for one in ordered:
                self._fill(one)
                self._prompt(one.slot)()
            return Ready((self._choose(np.array([a.slot for a in ordered], np.int64)),))

    def step(self, active: Ints) -> Ready:
        """Run one token for every slot, and choose the next one of the active ones."""
        with running(self._backend.place):
            for name, array in self._inputs.items():
                array.write(getattr(self._state, name))
            self._num_steps += 1
            is_capturing = self._backend.captures and self._num_steps <= _RUNS_UNTIL_CAPTURED
            with self._backend.exclusive if is_capturing else nullcontext():
                self._run_step()
            return Ready((self._choose(active),))

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        return self._last("logits", np.arange(count))[:, 0]

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def _choose(self, slots: Ints) -> Chosen:
        attention = self._last("attention", slots)[:, :, :, 0] if "attention" in self._outputs else None
        return self._state.choose(
            slots, self._last("logits", slots)[:, 0], self._last("evidence", slots)[:, 0], attention
        )

    def _last(self, name: str, slots: Ints) -> Floats:
        """Copy rows of an output to the host: all of them at once, or one by one where few are wanted."""
        array = self._outputs[name]
        if 4 * len(slots) > self._rows:
            found: Floats = array.read()[slots].astype(np.float32, copy=False)
            return found
        return np.stack([array[int(slot)].read() for slot in slots]).astype(np.float32, copy=False)

    def _fill(self, one: Admission) -> None:
        """Put a cell into its slot: memory (or the keys and values made of it), mask, key."""
        row = slice_of(self._attended, one.slot)
        self._copy_memory(one.memory, one.mask, row["memory"][0] if self._raw is None else self._raw[0])
        mask = np.zeros((1, self._plan.num_genes), bool)
        mask[0, : len(one.mask)] = one.mask
        # After the memory: a write from the host waits for the copies on the device before it.
        self._memory_mask.rows(one.slot, one.slot + 1).write(mask)
        if self._state.begin(one):
            for cache in slice_of(self._caches, one.slot).values():
                cache.write(np.zeros(cache.shape, self._backend.dtype))
        if self._raw is not None:
            DeviceRun(self._backend.cross, {"raw_memory": self._raw}, row)()

    def _copy_memory(self, memory: Memory, mask: Array, target: DeviceArray) -> None:
        """Copy what the mask leaves, and blank the rest: padding may hold anything, NaN too."""
        if not isinstance(memory, DeviceArray):
            memory = np.asarray(memory).astype(self._backend.dtype, copy=False)
        for start, stop, is_real in stretches(np.asarray(mask, bool)):
            source = memory if isinstance(memory, DeviceArray) else memory[start:stop]
            real = source.rows(start, stop) if isinstance(source, DeviceArray) else source
            target.rows(start, stop).write(real if is_real else self._blank.rows(start, stop))
        target.rows(len(mask), len(target)).write(self._blank.rows(len(mask), len(target)))

    def _prompt(self, slot: int) -> DeviceRun:
        """Return the run of the prompt for one slot.

        All of it but the last token is known below the first cross-attention layer; the last one goes through all.
        """
        if slot not in self._prompts:
            caches = slice_of(self._caches, slot)
            inputs = {**caches, **self._prompt_inputs, **self._of_slots(slot)}
            outputs = {**slice_of(self._outputs, slot), **{f"new_{name}": array for name, array in caches.items()}}
            self._prompts[slot] = DeviceRun(self._backend.decoder, inputs, outputs)
        return self._prompts[slot]

    def _of_slots(self, slot: int) -> dict[str, DeviceArray]:
        return slice_of({"memory_mask": self._memory_mask, **self._attended}, slot)

    def _bind_step(self) -> DeviceRun:
        hidden = self._backend.empty((self._rows, 0, self._shape.d_model), self._backend.dtype)
        inputs = {**self._inputs, "hidden": hidden, "memory_mask": self._memory_mask, **self._attended, **self._caches}
        outputs = {**self._outputs, **{f"new_{name}": array for name, array in self._caches.items()}}
        return DeviceRun(self._backend.decoder, inputs, outputs, str(next(self._backend.graph_ids)))


def slice_of(arrays: dict[str, DeviceArray], slot: int) -> dict[str, DeviceArray]:
    """Return one row of each array, with its axis."""
    return {name: array.rows(slot, slot + 1) for name, array in arrays.items()}
