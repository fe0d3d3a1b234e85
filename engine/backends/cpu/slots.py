"""Texts in progress inside the native library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellscribe.engine.backends.base import Admission, Chosen, Floats, Ints, Ready, SlotPlan
from cellscribe.engine.backends.cpu.loading import NativeDecoder
from cellscribe.engine.backends.cpu.passes import Passes
from cellscribe.engine.backends.samplers import may_be_greedy
from cellscribe.engine.backends.slot_state import SlotState
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape
from cellscribe.engine.decode.drafts import Drafts
from cellscribe.kernels.cpu_library import CpuLibrary

# Slots whose prompts run together: enough rows for products at full rate, few enough for the caches.
_CHUNK = 8
# Rows that a step may have with guessed tokens: so many cost little more than one, as weights are read all the same.
_DRAFT_ROWS, _MOST_DRAFTS = 4, 3


class Prompt:
    """The fixed prompt below the first cross-attention layer, computed once: hidden states [P, d], and its caches."""

    def __init__(self, passes: Passes, slot: int, token_ids: Ints, prefix: dict[str, Any]) -> None:
        self.slot, self.length = slot, len(token_ids)
        n_lower = passes.shape.n_lower
        for i in range(n_lower):
            keys, values = (np.ascontiguousarray(prefix[f"{p}.{i}"], dtype=np.float32) for p in ("key", "value"))
            passes.write(slot, i, keys, values)
        last = passes.decoder.embed(token_ids[-1:])
        where = np.array([slot], np.int64), np.array([self.length - 1], np.int64)
        passes.run(last, *where, layers=(0, n_lower))
        self.hidden = np.concatenate((prefix["hidden"].astype(np.float32), last))


class CpuSlots:
    """A fixed number of texts, their caches and cells in the library; choosing tokens is ours."""

    depth = 1  # work is done when it is given
    steps_per_ticket = 1

    def __init__(
        self,
        library: CpuLibrary,
        decoder: NativeDecoder,
        shape: DecoderShape,
        cross: CrossShape | None,
        plan: SlotPlan,
        prompt_ids: Ints,
        prefix: dict[str, Any],
    ) -> None:
        self._plan, self._shape = plan, shape
        self._state = SlotState(plan.num_slots, len(prompt_ids), plan, library.greedy)
        self._passes = Passes(
            library,
            decoder,
            shape,
            cross,
            num_slots=plan.num_slots + 1,  # the last one holds the prompt
            capacity=self._state.capacity,
            num_genes=plan.num_genes,
        )
        self._prompt = Prompt(self._passes, plan.num_slots, prompt_ids, prefix)
        self._logits = np.zeros((plan.num_slots, shape.vocab_size), np.float32)
        self._drafts = Drafts() if _may_draft(plan) else None

    @property
    def bytes(self) -> int:
        """Bytes of caches and memories."""
        return self._passes.bytes

    def admit(self, admissions: Sequence[Admission]) -> Ready:
        """Fill slots, run the prompt for them, and choose their first tokens."""
        ordered = sorted(admissions, key=lambda one: one.slot)
        chosen = [self._admit_some(ordered[at : at + _CHUNK]) for at in range(0, len(ordered), _CHUNK)]
        return Ready(tuple(chosen))

    def step(self, active: Ints) -> Ready:
        """Choose the next token of every active slot, and those after it that were guessed right."""
        active = active[self._state.lengths[active] < self._plan.max_new_tokens]  # the caches have no room for more
        if not len(active):
            return Ready(())
        guesses = self._guesses(active)
        counts = np.array([1 + len(one) for one in guesses])
        first = np.cumsum(counts) - counts  # row of each slot's last chosen token
        tokens = np.concatenate(
            [[self._state.tokens[slot, 0], *one] for slot, one in zip(active, guesses, strict=True)]
        )
        slots = active.repeat(counts)
        positions = self._state.positions[slots, 0] + np.arange(len(slots)) - first.repeat(counts)
        logits, evidence, attention = self._run(tokens, slots, positions)
        chosen: list[Chosen] = []
        going = np.arange(len(active))
        for ahead in range(int(counts.max())):
            if not len(going):
                break
            rows = first[going] + ahead
            one = self._choose(
                active[going], logits[rows], evidence[rows], None if attention is None else attention[rows]
            )
            chosen.append(one)
            going = going[
                [self._goes_on(int(i), ahead, int(t), guesses) for i, t in zip(going, one.token_ids, strict=True)]
            ]
        return Ready(tuple(chosen))

    def _guesses(self, active: Ints) -> list[list[int]]:
        """Guess tokens of the active slots; none where that would not pay."""
        room = min(_MOST_DRAFTS, _DRAFT_ROWS // len(active) - 1)
        guessing = {slot for slot in active.tolist() if self._state.is_greedy(slot)}
        if self._drafts is None or room < 1 or not guessing or not self._drafts.is_worthwhile():
            return [[] for _ in active]
        most = self._plan.max_new_tokens - 1 - self._state.lengths
        return [
            self._drafts.guess(slot, min(room, int(most[slot]))) if slot in guessing else [] for slot in active.tolist()
        ]

    def _goes_on(self, i: int, ahead: int, token: int, guesses: list[list[int]]) -> bool:
        """Whether the choice `ahead` of slot i was guessed, so that the row after it stands."""
        guess = guesses[i]
        is_right = ahead < len(guess) and token == guess[ahead]
        if is_right and token not in self._plan.eos_ids:
            return True
        if guess and self._drafts is not None:
            self._drafts.learn(guess, ahead + is_right, has_ended=is_right)
        return False

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        last: Floats = self._logits[:count]
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def _admit_some(self, admissions: Sequence[Admission]) -> Chosen:
        for one in admissions:
            self._state.begin(one)
            if self._drafts is not None:
                self._drafts.begin(one.slot)
            self._fill(one)
            self._passes.copy(self._prompt.slot, one.slot, self._shape.n_lower, self._prompt.length)
        slots = np.array([one.slot for one in admissions], np.int64)
        length, count = self._prompt.length, len(slots)
        logits, evidence, attention = self._passes.run(
            np.tile(self._prompt.hidden, (count, 1)),
            slots.repeat(length),
            np.tile(np.arange(length), count),
            layers=(self._shape.n_lower, self._shape.n_layers),
            chosen=np.arange(1, count + 1) * length - 1,
            keep_attention=self._plan.keep_attention,
        )
        return self._choose(slots, logits, evidence, attention)

    def _fill(self, one: Admission) -> None:
        if len(one.mask) > self._plan.num_genes:
            raise ValueError(
                f"a cell of {len(one.mask)} genes is beyond the {self._plan.num_genes} that slots were opened for"
            )
        genes = np.flatnonzero(one.mask)
        memory = np.asarray(one.memory, np.float32)[genes]
        if not len(genes):  # nothing to attend to: every position alike, to nothing
            genes = np.arange(self._plan.num_genes)
            memory = np.zeros((len(genes), np.shape(one.memory)[-1]), np.float32)
        self._passes.fill(one.slot, np.ascontiguousarray(memory), genes)

    def _run(self, tokens: Ints, slots: Ints, positions: Ints) -> tuple[Floats, Floats, Floats | None]:
        """Run rows of tokens through all layers; every row gives logits."""
        return self._passes.run(
            self._passes.decoder.embed(tokens),
            slots,
            positions,
            layers=(0, self._shape.n_layers),
            chosen=np.arange(len(tokens)),
            keep_attention=self._plan.keep_attention,
        )

    def _choose(self, slots: Ints, logits: Floats, evidence: Floats, attention: Floats | None) -> Chosen:
        self._logits[slots] = logits
        chosen = self._state.choose(slots, logits, evidence, attention)
        if self._drafts is not None:
            for slot, token in zip(slots.tolist(), chosen.token_ids.tolist(), strict=True):
                if self._state.is_greedy(slot):  # what is drawn teaches nothing about what is most probable
                    self._drafts.add(slot, token)
        return chosen


def _may_draft(plan: SlotPlan) -> bool:
    """Whether guesses may be tried: most probable tokens are chosen, and no others are put in their place."""
    return may_be_greedy(plan) and plan.may_guess and not plan.forced
