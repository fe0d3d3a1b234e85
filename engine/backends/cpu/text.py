"""Families without an encoder in the native CPU library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np

from cellscribe.engine.backends.base import Chosen, Floats, Ints, Ready
from cellscribe.engine.backends.cpu.backend import check_free, in_memory, native_words, open_library, slot_bytes
from cellscribe.engine.backends.cpu.embedding import PromptMeans
from cellscribe.engine.backends.cpu.passes import Passes
from cellscribe.engine.backends.cpu.text_loading import NativeTextDecoder, load_text_decoder
from cellscribe.engine.backends.prompt_rows import OnPrompts
from cellscribe.engine.backends.sessions import default_threads
from cellscribe.engine.backends.text import Prompted, TextPlan, check_room
from cellscribe.engine.backends.text_state import Rows, TextState
from cellscribe.engine.bundle.load import Bundle
from cellscribe.engine.bundle.shapes import DecoderShape
from cellscribe.engine.errors import BundleError

PIECE = 504  # rows of prompts in one pass: whole tiles at full rate, few enough for the caches


class CpuText:
    """Runs a bundle without an encoder with our own library on the CPU; parameters and errors as ``CpuBackend``."""

    def __init__(self, bundle: Bundle, threads: int | None = None, instruction_set: str | None = None) -> None:
        if bundle.manifest.decoder is None or bundle.manifest.style is None:
            raise BundleError(f"the bundle {bundle.name} reads no sentences; choose one of the family c2s.")
        self.bundle, self.shape = bundle, bundle.manifest.decoder
        self.threads = threads or default_threads()
        self.library = open_library(self.threads, instruction_set)

    @property
    def device(self) -> str:
        """Device, instructions and threads in words."""
        return native_words(self.library, self.threads)

    @cached_property
    def decoder(self) -> NativeTextDecoder:
        """The decoder, packed when it is first asked for."""
        with in_memory("the weights of the decoder"):
            return load_text_decoder(self.bundle, self.library)

    def open_text_slots(self, plan: TextPlan) -> CpuTextSlots:
        """Take room for the slots of a run."""
        check_room(self.bundle, plan.longest_prompt, plan.max_new_tokens)
        decoder, state = self.decoder, TextState(plan, self.library.greedy)
        with in_memory(f"{plan.num_slots} slots"):
            passes = self._passes(decoder, plan.num_slots + bool(plan.prefix), state.capacity)
            return CpuTextSlots(passes, decoder, plan, state)

    def embed_prompts(self, prompts: Sequence[Ints], progress: OnPrompts | None = None) -> Floats:
        """Return the mean of the last states over each prompt's tokens, float32 [N, d]."""
        if not prompts:
            return np.zeros((0, self.shape.d_model), np.float32)
        check_room(self.bundle, max(map(len, prompts)), 0)
        decoder = self.decoder
        with in_memory("prompts"):
            means = PromptMeans(partial(self._passes, decoder), decoder, PIECE)
            return means.of(prompts, self.shape.d_model, progress)

    def _passes(self, decoder: NativeTextDecoder, num_slots: int, capacity: int) -> Passes:
        check_free(num_slots, slot_bytes(self.shape, capacity, decoder.cache_kind))
        return Passes(self.library, decoder, self.shape, None, num_slots=num_slots, capacity=capacity, num_genes=0)


class CpuTextSlots:
    """Texts in progress; rows of all slots run together."""

    depth = 1  # work is done when it is given
    steps_per_ticket = 1

    def __init__(self, passes: Passes, decoder: NativeTextDecoder, plan: TextPlan, state: TextState) -> None:
        self._passes, self._decoder, self._plan, self._state = passes, decoder, plan, state
        self._shape: DecoderShape = passes.shape
        self._logits = np.zeros((plan.num_slots, self._shape.vocab_size), np.float32)
        self._prefix = np.array(plan.prefix, np.int64)
        self._run_prefix()

    @property
    def bytes(self) -> int:
        """Bytes of caches."""
        return self._passes.bytes

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run their prompts together, and choose their first tokens."""
        chosen: list[Chosen] = []
        slots: list[int] = []
        for one in sorted(admissions, key=lambda one: one.slot):
            known = self._shared(one.tokens)
            if known:
                self._passes.copy(self._plan.num_slots, one.slot, self._shape.n_layers, known)
            chosen += self._state.begin(one, known)
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

    def _advance(self, slots: list[int]) -> list[Chosen]:
        if not slots:
            return []
        self._run(self._state.rows(slots), slots)
        return self._state.choose(slots, self._logits[slots])

    def _run(self, rows: Rows, slots: Sequence[int]) -> None:
        """Run rows, a piece at a time, and keep the logits of each slot's last row."""
        for start in range(0, len(rows.tokens), PIECE):
            stop = min(start + PIECE, len(rows.tokens))
            which = np.flatnonzero((rows.last >= start) & (rows.last < stop))
            part = slice(start, stop)
            tokens, positions = rows.tokens[part], np.ascontiguousarray(rows.positions[part])
            logits = self._passes.run(
                self._decoder.embed_at(tokens, positions),
                np.ascontiguousarray(rows.slots[part]),
                positions,
                layers=(0, self._shape.n_layers),
                chosen=np.ascontiguousarray(rows.last[which] - start),
            )[0]
            self._logits[np.array(slots, np.int64)[which]] = logits

    def _run_prefix(self) -> None:
        for start in range(0, len(self._prefix), PIECE):
            tokens = self._prefix[start : start + PIECE]
            positions = np.arange(start, start + len(tokens))
            x = self._decoder.embed_at(tokens, positions)
            self._passes.run(x, np.full(len(tokens), self._plan.num_slots), positions, layers=(0, self._shape.n_layers))

    def _shared(self, tokens: Ints) -> int:
        """How many tokens of a prompt are known from the prefix; one at least is left to run."""
        most = max(0, min(len(self._prefix), len(tokens) - 1))
        same = tokens[:most] == self._prefix[:most]
        return most if same.all() else int(same.argmin())
