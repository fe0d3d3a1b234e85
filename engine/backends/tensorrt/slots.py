"""The slots of a run: tensors with one row per slot, a captured step, and prompts between the steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Admission, Chosen, Floats, Ints, SlotPlan
from cellscribe.engine.backends.tensorrt.device import Device, Fetch, Tensor
from cellscribe.engine.backends.tensorrt.engine import Engine
from cellscribe.engine.backends.tensorrt.layout import Described, cache_names, check_layout, check_memory, slot_layout
from cellscribe.engine.backends.tensorrt.plan import PROMPT, STEP, Plan
from cellscribe.engine.backends.tensorrt.state import TextState

DEPTH = 2  # steps under way: the next is given to the device before the last is read


@dataclass(frozen=True)
class Parts:
    """What slots are made from.

    On the device, of the prompt without its last token (P - 1 positions): keys and values of the layers below the first
    cross-attention layer in turn, [2·Ll, K, P - 1, D], and the hidden states that enter it, [P - 1, d].
    """

    torch: Any
    device: Device
    plan: Plan
    described: Described
    decoder: Engine
    cross: Engine | None
    prefix_caches: Tensor
    prefix_hidden: Tensor


@dataclass(frozen=True)
class Pending:
    """A run whose choices are on their way to the host."""

    fetch: Fetch
    asked: npt.NDArray[np.bool_]

    def wait(self) -> tuple[Chosen, ...]:
        """Return the choices of the rows that were asked for and whose texts had not ended."""
        spoke, tokens, logprobs, evidence, *attention = self.fetch()
        slots = np.flatnonzero(np.logical_and(spoke, self.asked)).astype(np.int64)
        seen = np.asarray(attention[0], np.float32)[slots, :, :, 0] if attention else None
        return (
            Chosen(
                slots,
                np.asarray(tokens, np.int64)[slots],
                np.asarray(logprobs, np.float32)[slots],
                np.asarray(evidence, np.float32)[slots, 0],
                seen,
            ),
        )


class TensorRTSlots:
    """Texts in progress on a GPU.

    A step always runs every row, so that a text does not depend on which others are under way, and is one captured
    graph with an execution context of its own. Prompts run for neighbouring rows, 8, 4, 2 or 1 at a time: few shapes,
    so few kernels to compile.
    """

    def __init__(self, parts: Parts, slots: SlotPlan) -> None:
        self._parts, self._slots, torch, device = parts, slots, parts.torch, parts.device
        recipe, rows = parts.plan.recipe, slots.num_slots
        kept = slot_layout(parts.described, parts.plan, slots, rows)
        check_layout(parts.plan, kept, parts.decoder.bindings)
        engines = [parts.decoder, *([parts.cross] if parts.cross else [])]
        scratch_bytes = max(engine.scratch_bytes() for engine in engines)
        self._batch = min(recipe.prompt_batch, rows)
        check_memory(kept, parts.described, scratch_bytes + self._staged_bytes(), device, rows)
        self._state = TextState(torch, device, slots, recipe.prompt_len, recipe.capacity)
        own = {"tokens": self._state.tokens, "positions": self._state.positions, "mask": self._state.mask}
        names = cache_names(parts.described.decoder)
        self._caches = device.zeros((len(names), *kept[names[0]].shape), torch.float16)  # one block, to clear rows of
        own |= {name: self._caches[i] for i, name in enumerate(names)}
        self._tensors = own | {
            name: device.zeros(one.shape, getattr(torch, one.dtype)) for name, one in kept.items() if name not in own
        }
        if "evidence" not in self._tensors:
            self._tensors["evidence"] = device.zeros((rows, 1, slots.num_genes), torch.float32)
        self._raw = device.zeros((rows, slots.num_genes, parts.described.cross.d_memory), torch.float16)
        self._scratch = device.zeros((max(scratch_bytes, 256),), torch.uint8)
        self._prompt = parts.decoder.open_run(device, PROMPT, self._scratch)
        self._prepare = parts.cross.open_run(device, 0, self._scratch) if parts.cross else None
        self._prompt_inputs = self._stage_prompt()
        self._warm_up()
        self._replay = self._open_step()
        for engine in engines:
            if engine.jit is not None:
                engine.jit.save()

    @property
    def depth(self) -> int:
        """Two: the device never waits for the host."""
        return DEPTH

    def admit(self, admissions: Sequence[Admission]) -> Pending:
        """Fill slots, run the prompt for them, and choose their first tokens."""
        ordered = sorted(admissions, key=lambda a: a.slot)
        slots = np.array([a.slot for a in ordered], dtype=np.int64)
        with self._parts.device.working():
            self._state.spoke.zero_()
            for one in ordered:
                self._fill(one)
            for first, count in pieces(slots, self._batch):
                rows = slice(first, first + count)
                self._run_prompt(rows)
                self._state.advance(self._tensors["logits"][rows, 0], rows)
        return self._ticket(slots)

    def step(self, active: Ints) -> Pending:
        """Choose the next token of the active slots."""
        self._replay()
        return self._ticket(active)

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        return np.asarray(self._parts.device.fetch([self._tensors["logits"][:count, 0]])()[0], np.float32)

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        with self._parts.device.working():
            self._state.tokens[: len(tokens), 0].copy_(self._parts.device.upload(tokens))

    def _ticket(self, slots: Ints) -> Pending:
        state, tensors = self._state, self._tensors
        asked = np.zeros(self._slots.num_slots, bool)
        asked[slots] = True
        wanted = [state.spoke, state.chosen, state.logprobs, tensors["evidence"]]
        if self._slots.keep_attention:
            wanted.append(tensors["attention"])
        return Pending(self._parts.device.fetch(wanted), asked)

    def _fill(self, one: Admission) -> None:
        """Put a cell into its slot; what stands behind the mask is never copied, whatever it holds."""
        torch, device, length = self._parts.torch, self._parts.device, len(one.mask)
        memory = device.upload(one.memory) if isinstance(one.memory, np.ndarray) else one.memory
        mask = device.upload(np.asarray(one.mask, bool))
        raw, seen = self._raw[one.slot], self._tensors["memory_mask"][one.slot]
        raw.zero_()
        raw[:length].copy_(memory.to(torch.float16).masked_fill(~mask[:, None], 0.0))
        seen.zero_()
        seen[:length].copy_(mask)
        self._state.begin(one.slot, one.key)

    def _run_prompt(self, rows: slice) -> None:
        """Run the prompt for some rows: all but its last token is known below the first cross-attention layer."""
        tensors, parts, count = self._tensors, self._parts, rows.stop - rows.start
        if self._prepare is not None:
            attended = {n: tensors[n][rows] for n in parts.cross.bindings if n in tensors} if parts.cross else {}
            self._prepare.bind({"raw_memory": self._raw[rows], **attended})
            self._prepare()
        else:
            tensors["memory"][rows].copy_(self._raw[rows])
        self._caches[:, rows].zero_()  # a text that failed leaves NaN behind, which no mask keeps out of a sum
        lower, known = parts.prefix_caches.shape[0], parts.prefix_caches.shape[2]
        self._caches[:lower, rows, :, :known].copy_(parts.prefix_caches[:, None])
        inputs = {name: value[:count] for name, value in self._prompt_inputs.items()}
        self._prompt.bind(self._bound(rows) | inputs)
        self._prompt()

    def _bound(self, rows: slice) -> dict[str, Tensor]:
        """Return rows of every tensor by the engine's names; a cache is bound twice, and updated in place."""
        part = {name: tensor[rows] for name, tensor in self._tensors.items()}
        part |= {f"new_{name}": part[name] for name in cache_names(self._parts.described.decoder)}
        return {name: part[name] for name in self._parts.decoder.bindings}

    def _stage_prompt(self) -> dict[str, Tensor]:
        parts, batch = self._parts, self._batch
        recipe = parts.plan.recipe
        positions = np.tile(np.arange(recipe.prompt_len), (batch, 1))
        hidden = parts.device.zeros((batch, *parts.prefix_hidden.shape), parts.torch.float16)
        with parts.device.working():
            hidden.copy_(parts.prefix_hidden)
        return {
            "tokens": parts.device.upload(np.full((batch, 1), parts.described.prompt.token_ids[-1])),
            "hidden": hidden,
            "positions": parts.device.upload(positions),
            "mask": parts.device.upload(np.arange(recipe.capacity) <= positions[:, :, None]),
        }

    def _staged_bytes(self) -> int:
        recipe, shape = self._parts.plan.recipe, self._parts.described
        prompt = self._batch * recipe.prompt_len * (2 * shape.decoder.d_model + 8 + recipe.capacity)
        return prompt + 2 * self._slots.num_slots * self._slots.num_genes * shape.cross.d_memory

    def _warm_up(self) -> None:
        """Run every size of prompt once, so that nothing is compiled while texts are written."""
        with self._parts.device.working():
            for count in _sizes(self._batch):
                self._run_prompt(slice(0, count))

    def _open_step(self) -> Callable[[], None]:
        """Bind the step to its tensors for good, run it once, and capture it."""
        device, rows = self._parts.device, slice(0, self._slots.num_slots)
        run = self._parts.decoder.open_run(device, STEP, self._scratch)
        run.bind(self._bound(rows))

        def program() -> None:
            run()
            self._state.advance(self._tensors["logits"][:, 0], rows)

        def as_it_is() -> None:
            with device.working():
                program()

        as_it_is()
        if run.can_be_captured():
            with contextlib.suppress(RuntimeError):  # an operation that this driver cannot capture
                return device.capture(program)
        return as_it_is


def pieces(slots: Ints, largest: int) -> Iterator[tuple[int, int]]:
    """Split sorted slot numbers into neighbours (first, count); counts are powers of two, at most `largest`."""
    start = 0
    for at in range(1, len(slots) + 1):
        if at < len(slots) and slots[at] == slots[at - 1] + 1:
            continue
        while start < at:
            count = next(size for size in _sizes(largest) if size <= at - start)
            yield int(slots[start]), count
            start += count


def _sizes(largest: int) -> list[int]:
    """Return the powers of two up to `largest`, falling."""
    return [1 << bit for bit in reversed(range(largest.bit_length()))]
