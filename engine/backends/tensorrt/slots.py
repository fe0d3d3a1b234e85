"""The slots of a run: tensors with one row per slot, a captured step, and prompts between the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.base import Admission, Chosen, Floats, Ints, SlotPlan
from cellscribe.engine.backends.tensorrt.device import Fetch
from cellscribe.engine.backends.tensorrt.faults import running
from cellscribe.engine.backends.tensorrt.layout import (
    Kept,
    cache_names,
    check_in_place,
    check_layout,
    check_memory,
    slot_layout,
    staged_bytes,
)
from cellscribe.engine.backends.tensorrt.pieces import pieces
from cellscribe.engine.backends.tensorrt.plan import STEP
from cellscribe.engine.backends.tensorrt.prompt import Parts, Prompt, bound
from cellscribe.engine.backends.tensorrt.state import TextState
from cellscribe.engine.errors import PlanError

DEPTH = 2  # steps under way: the next is given to the device before the last is read


@dataclass(frozen=True)
class Pending:
    """A run whose choices are on their way to the host."""

    fetch: Fetch
    asked: npt.NDArray[np.bool_]
    running: Callable[[], AbstractContextManager[None]]  # says in one sentence what goes wrong

    def wait(self) -> tuple[Chosen, ...]:
        """Return the choices of the rows that were asked for and whose texts had not ended."""
        with self.running():  # what failed in a step is heard of here
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

    Attributes
    ----------
    remark
        Why steps are not captured; empty when they are.

    Raises
    ------
    RoomError
        When the slots do not fit into free memory.
    PlanError
        When the plan does not do what its recipe says.
    """

    def __init__(self, parts: Parts, slots: SlotPlan) -> None:
        self._parts, self._slots, self.remark = parts, slots, ""
        self._running = partial(running, parts.torch, parts.device.name)
        rows, recipe = slots.num_slots, parts.plan.recipe
        check_in_place(parts.plan, parts.decoder.updated_in_place(), parts.described.decoder)
        kept = slot_layout(parts.described, parts.plan, slots, rows)
        check_layout(parts.plan, kept, parts.decoder.bindings)
        batch = min(recipe.prompt_batch, rows)
        scratch_bytes = max(engine.scratch_bytes() for engine in parts.engines)
        fixed_bytes = scratch_bytes + staged_bytes(kept, parts.described, rows, batch)
        check_memory(kept, parts.described, fixed_bytes, parts.device, rows)
        self._allocate(kept)
        scratch = parts.device.zeros((max(scratch_bytes, 256),), parts.torch.uint8)
        self._prompt = Prompt(parts, batch, self._tensors, self._caches, scratch)
        self._prompt.warm_up()
        # A captured graph holds addresses of this context and of its tensors, and keeps neither alive.
        self._step = parts.decoder.open_run(STEP, scratch)
        self._step.bind(bound(parts, self._tensors))
        self._replay = self._open_step()
        for engine in parts.engines:
            engine.save_kernels()

    def _allocate(self, kept: dict[str, Kept]) -> None:
        torch, device, recipe = self._parts.torch, self._parts.device, self._parts.plan.recipe
        self._state = TextState(torch, device, self._slots, recipe.prompt_len, recipe.capacity)
        own = {"tokens": self._state.tokens, "positions": self._state.positions, "mask": self._state.mask}
        names = cache_names(self._parts.described.decoder)
        self._caches = device.zeros((len(names), *kept[names[0]].shape), torch.float16)  # one block, to clear rows of
        own |= {name: self._caches[i] for i, name in enumerate(names)}
        self._tensors = own | {
            name: device.zeros(one.shape, getattr(torch, one.dtype)) for name, one in kept.items() if name not in own
        }
        if "evidence" not in self._tensors:
            self._tensors["evidence"] = device.zeros((self._slots.num_slots, 1, self._slots.num_genes), torch.float32)

    @property
    def depth(self) -> int:
        """Two: the device never waits for the host."""
        return DEPTH

    @property
    def steps_per_ticket(self) -> int:
        """One token a step."""
        return 1

    def admit(self, admissions: Sequence[Admission]) -> Pending:
        """Fill slots, run the prompt for them, and choose their first tokens."""
        ordered = sorted(admissions, key=lambda a: a.slot)
        slots = np.array([a.slot for a in ordered], dtype=np.int64)
        with self._running(), self._parts.device.working():
            self._state.spoke.zero_()
            for one in ordered:
                self._fill(one)
            for first, count in pieces(slots, self._prompt.batch):
                rows = slice(first, first + count)
                self._prompt.run(rows)
                self._state.advance(self._tensors["logits"][rows, 0], rows)
            return self._ticket(slots)

    def step(self, active: Ints) -> Pending:
        """Choose the next token of the active slots."""
        with self._running():
            if self._replay is not None:
                self._replay()
            else:
                with self._parts.device.working():
                    self._program()
            return self._ticket(active)

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        with self._running():
            return np.asarray(self._parts.device.fetch([self._tensors["logits"][:count, 0]])()[0], np.float32)

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        with self._running(), self._parts.device.working():
            self._state.tokens[: len(tokens), 0].copy_(self._parts.device.upload(tokens))

    def _ticket(self, slots: Ints) -> Pending:
        state, tensors = self._state, self._tensors
        asked = np.zeros(self._slots.num_slots, bool)
        asked[slots] = True
        wanted = [state.spoke, state.chosen, state.logprobs, tensors["evidence"]]
        if self._slots.keep_attention:
            wanted.append(tensors["attention"])
        return Pending(self._parts.device.fetch(wanted), asked, self._running)

    def _fill(self, one: Admission) -> None:
        """Put a cell into its slot; what stands behind the mask is never copied, whatever it holds."""
        torch, device, length = self._parts.torch, self._parts.device, len(one.mask)
        memory = device.upload(one.memory) if isinstance(one.memory, np.ndarray) else one.memory
        mask = device.upload(np.asarray(one.mask, bool))
        raw, seen = self._tensors["raw_memory"][one.slot], self._tensors["memory_mask"][one.slot]
        raw.zero_()
        raw[:length].copy_(memory.to(torch.float16).masked_fill(~mask[:, None], 0.0))
        seen.zero_()
        seen[:length].copy_(mask)
        self._state.begin(one)

    def _program(self) -> None:
        """Run one step of all rows."""
        self._step()
        self._state.advance(self._tensors["logits"][:, 0], slice(0, self._slots.num_slots))

    def _open_step(self) -> Callable[[], None] | None:
        """Run the step once, so that nothing is compiled later, and capture it; None where that cannot be done."""
        device = self._parts.device
        with device.working():
            self._program()
        if not self._step.can_be_captured():
            self.remark = f"{self._parts.plan} cannot be captured as a CUDA graph, so each step takes longer."
            return None
        try:
            return device.capture(self._program)
        except (RuntimeError, PlanError) as error:  # an operation that this driver or product cannot capture
            why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            self.remark = f"steps were not captured as a CUDA graph ({why}), so each takes longer."
            return None
