"""Texts after prompts of their own: free ones are chosen on the device, labels by the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from cellscribe.engine.backends.base import Array, Chosen, Floats, Ints, Ready
from cellscribe.engine.backends.budget import check_room, text_budget
from cellscribe.engine.backends.tensorrt.device import Tensor
from cellscribe.engine.backends.tensorrt.engine import Run
from cellscribe.engine.backends.tensorrt.faults import running
from cellscribe.engine.backends.tensorrt.layout import check_in_place, check_layout
from cellscribe.engine.backends.tensorrt.plan import STEP
from cellscribe.engine.backends.tensorrt.slots import DEPTH, Pending
from cellscribe.engine.backends.tensorrt.state import TextState as DeviceState
from cellscribe.engine.backends.tensorrt.text_parts import PromptPieces, TextParts, text_layout
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.backends.text_feed import FEW, ONE, Feed, feeds, shared
from cellscribe.engine.backends.text_state import TextState
from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.errors import PlanError


class _Texts:
    """The caches of all rows, what their prompts begin with, and their logits [B, 1, V].

    A step always runs every row, and a prompt its own alone, so that a text does not depend on which others are in
    work. Every size runs once at the start, and steps are captured as graphs.
    """

    def __init__(self, parts: TextParts, manifest: Manifest, plan: TextPlan) -> None:
        self.parts, self.plan, self.remark, self.rows = parts, plan, "", plan.num_slots
        self.running = partial(running, parts.torch, parts.device.name)
        check_in_place(parts.plan, parts.decoder.updated_in_place(), parts.shape)
        check_layout(parts.plan, text_layout(parts, self.rows), parts.decoder.bindings)
        scratch_bytes = parts.decoder.scratch_bytes()
        needed = text_budget(manifest, self.rows, parts.capacity, parts.plan.recipe.precision)
        needed = replace(needed, fixed=needed.fixed + scratch_bytes)
        check_room(parts.device.free_bytes(), needed, parts.device.name)
        self._scratch = parts.device.zeros((max(scratch_bytes, 256),), parts.torch.uint8)
        self._caches, self._start = parts.caches(self.rows), parts.caches(1)
        self.logits = parts.device.zeros((self.rows, 1, parts.shape.vocab_size), parts.torch.float32)
        self._prompts = PromptPieces(parts, self._scratch)
        self._prefix, self._runs = np.array(plan.prefix, np.int64), list[Run]()
        with parts.device.working():
            self._prompts.warm_up(self._caches[:, :1])
            for _ in self._prompts.run(self._prefix, 0, self._start):
                pass

    def known(self, tokens: Ints) -> int:
        """How many tokens of a prompt are known already."""
        return shared(self._prefix, tokens, 1)

    def fill(self, slot: int, tokens: Ints, known: int) -> None:
        """Run the tokens of a prompt behind the `known` ones; nothing of the row's last text is left."""
        self._caches[:, slot].copy_(self._start[:, 0])
        for _ in self._prompts.run(tokens, known, self._caches[:, slot : slot + 1]):
            pass
        self.logits[slot].copy_(self._prompts.logits[0])

    def open_step(self, tensors: dict[str, Tensor], after: Callable[[], None]) -> Callable[[], None]:
        """Run a step of all rows once, with what is done `after` it, and return what does both again."""
        parts, device = self.parts, self.parts.device
        run = parts.decoder.open_run(STEP, self._scratch)
        run.bind(parts.bound(self._caches, {**tensors, "logits": self.logits}))

        def program() -> None:
            run()
            after()

        with device.working():
            program()
        if not run.can_be_captured():
            self.remark = f"{parts.plan} cannot be captured as a CUDA graph, so each step takes longer."
            return program
        self._runs.append(run)  # a graph holds addresses of the context and of its tensors, and keeps neither alive
        try:
            return device.capture(program)
        except (RuntimeError, PlanError) as error:  # an operation that this driver or product cannot capture
            why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            self.remark = f"steps were not captured as a CUDA graph ({why}), so each takes longer."
            return program

    def read(self, count: int) -> Floats:
        """Copy the logits [count, V] of the first rows to the host."""
        return np.asarray(self.parts.device.fetch([self.logits[:count, 0]])()[0], np.float32)


class FreeTextSlots:
    """Texts that may go on with any token: it is chosen on the device, which never waits for the host.

    Attributes
    ----------
    remark
        Why steps are not captured; empty when they are.
    """

    depth = DEPTH
    steps_per_ticket = 1

    def __init__(self, parts: TextParts, manifest: Manifest, plan: TextPlan) -> None:
        self._texts = _Texts(parts, manifest, plan)
        self._state = DeviceState(parts.torch, parts.device, plan, 0, parts.capacity, parts.style.window)
        own = {"tokens": self._state.tokens, "positions": self._state.positions, "mask": self._state.mask}
        if parts.style.window:
            own["near"] = self._state.near
        self._nothing = parts.device.zeros((plan.num_slots, 1, 0), parts.torch.float32)
        self._all = slice(0, plan.num_slots)
        self._step = self._texts.open_step(parts.step_tensors(plan.num_slots, ONE) | own, self._advance_all)
        self.remark = self._texts.remark
        parts.decoder.save_kernels()

    def admit(self, admissions: Sequence[Prompted]) -> Pending:
        """Fill slots, run the prompt of each, and choose their first tokens."""
        texts, state = self._texts, self._state
        ordered = sorted(admissions, key=lambda one: one.slot)
        with texts.running(), texts.parts.device.working():
            state.spoke.zero_()
            for one in ordered:
                known = texts.known(one.tokens)
                texts.fill(one.slot, one.tokens[known:], known)
                state.begin(one, len(one.tokens))
                row = slice(one.slot, one.slot + 1)
                state.advance(texts.logits[row, 0], row)
            return self._ticket(np.array([one.slot for one in ordered], np.int64))

    def step(self, active: Ints) -> Pending:
        """Choose the next token of the active slots."""
        with self._texts.running(), self._texts.parts.device.working():
            self._step()
            return self._ticket(active)

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        with self._texts.running():
            return self._texts.read(count)

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        device = self._texts.parts.device
        with self._texts.running(), device.working():
            self._state.tokens[: len(tokens), 0].copy_(device.upload(tokens))

    def _advance_all(self) -> None:
        self._state.advance(self._texts.logits[:, 0], self._all)

    def _ticket(self, slots: Ints) -> Pending:
        state, asked = self._state, np.zeros(self._texts.rows, bool)
        asked[slots] = True
        wanted = [state.spoke, state.chosen, state.logprobs, self._nothing]
        return Pending(self._texts.parts.device.fetch(wanted), asked, self._texts.running)


class LabelSlots:
    """Texts that are labels: the host chooses among the few tokens that may follow, and what must follow goes along."""

    depth = 1
    steps_per_ticket = 1

    def __init__(self, parts: TextParts, manifest: Manifest, plan: TextPlan) -> None:
        self._texts, self._state = _Texts(parts, manifest, plan), TextState(plan)
        self._logits = np.zeros((plan.num_slots, parts.shape.vocab_size), np.float32)
        self._tensors = {width: parts.step_tensors(plan.num_slots, width) for width in (ONE, FEW)}
        with parts.device.working():
            for tensors in self._tensors.values():
                for name in ("mask", "near"):
                    if name in tensors:
                        tensors[name][:, :, 0] = True
        self._steps = {width: self._texts.open_step(one, lambda: None) for width, one in self._tensors.items()}
        self.remark = self._texts.remark
        parts.decoder.save_kernels()

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run the prompt of each, and choose their first tokens."""
        texts, chosen, slots = self._texts, list[Chosen](), list[int]()
        with texts.running(), texts.parts.device.working():
            for one in sorted(admissions, key=lambda one: one.slot):
                known = texts.known(one.tokens)
                chosen += self._state.begin(one, known)
                if not self._state.has_ended(one.slot):
                    texts.fill(one.slot, self._state.rows([one.slot]).tokens, known)
                    slots.append(one.slot)
            self._read(slots)
        return Ready((*chosen, *self._choose(slots)))

    def step(self, active: Ints) -> Ready:
        """Run what was chosen last for every active slot, and choose what follows."""
        slots = [slot for slot in active.tolist() if not self._state.has_ended(slot)]
        if not slots:
            return Ready(())
        texts, rows = self._texts, self._state.rows(slots)
        with texts.running(), texts.parts.device.working():
            for feed in feeds(rows, slots, self._state.known, texts.parts.capacity):
                self._run(feed)
                self._read(feed.slots.tolist())
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

    def _read(self, slots: list[int]) -> None:
        if slots:
            self._logits[slots] = self._texts.read(self._texts.rows)[slots]

    def _run(self, feed: Feed) -> None:
        parts, tensors = self._texts.parts, self._tensors[feed.width]
        arrays: dict[str, Array] = {"tokens": feed.tokens, "positions": feed.positions, "chosen": feed.chosen}
        for name, array in (arrays | parts.masks(feed.positions)).items():
            tensors[name].copy_(parts.device.upload(array))
        self._steps[feed.width]()
