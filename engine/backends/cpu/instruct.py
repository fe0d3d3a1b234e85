"""Bundles that follow instructions in the native CPU library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from cellscribe.engine.backends.base import Chosen, Floats, Ints, Ready
from cellscribe.engine.backends.cpu.backend import (
    attended_bytes,
    check_free,
    in_memory,
    native_words,
    open_library,
    slot_bytes,
)
from cellscribe.engine.backends.cpu.instruct_loading import load_t5_decoder, load_t5_encoder
from cellscribe.engine.backends.cpu.loading import NativeDecoder
from cellscribe.engine.backends.cpu.passes import Passes
from cellscribe.engine.backends.instruct import EncoderPrompt, ExpressedCell, Profiles, check_memory, instruct_shapes
from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct
from cellscribe.engine.backends.sessions import default_threads
from cellscribe.engine.backends.signals import with_conditions
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.backends.text_state import TextState
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape, T5Shape

_ROWS = 512  # of prompts that are encoded together: enough for products at full rate, few enough for the caches


class CpuInstruct:
    """Runs a bundle that follows instructions with our own library on the CPU; parameters and errors as ``CpuBackend``.

    The T5 is ours; cells are read and profiles are decoded by ONNX Runtime, which is a small part of the work.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, instruction_set: str | None = None) -> None:
        self.bundle, self.shapes = bundle, instruct_shapes(bundle)
        self.threads = threads or default_threads()
        self.library = open_library(self.threads, instruction_set)
        self._others = OnnxRuntimeInstruct(bundle, self.threads)

    @property
    def device(self) -> str:
        """Device, instructions and threads in words."""
        return native_words(self.library, self.threads)

    @cached_property
    def encoder(self) -> NativeDecoder:
        """The T5's encoder, packed when it is first asked for."""
        with in_memory("the weights of the encoder"):
            return load_t5_encoder(self.bundle, self.library)

    @cached_property
    def decoder(self) -> NativeDecoder:
        """The T5's decoder, packed when it is first asked for."""
        with in_memory("the weights of the decoder"):
            return load_t5_decoder(self.bundle, self.library)

    def read_cells(self, cells: Iterable[ExpressedCell]) -> Iterator[Floats]:
        """Read cells one after the other."""
        return self._others.read_cells(cells)

    def write_profiles(self, conditions: Floats, latents: Floats, libraries: Floats) -> Profiles:
        """Decode conditions one after the other."""
        return self._others.write_profiles(conditions, latents, libraries)

    def encode_prompts(self, prompts: Sequence[EncoderPrompt]) -> list[Floats]:
        """Encode prompts, those of like lengths together."""
        found: list[Floats] = [np.zeros((0, self.shapes.t5.d_model), np.float32)] * len(prompts)
        for some in _in_parts([len(one.tokens) for one in prompts]):
            with in_memory("prompts"):
                states = self._encode([prompts[i] for i in some])
            for i, mine in zip(some, states, strict=True):
                found[i] = mine
        return found

    def open_instruct_slots(self, plan: TextPlan) -> CpuInstructSlots:
        """Take room for the slots of a run."""
        state, (shape, cross) = TextState(plan, self.library.greedy), _decoder_shapes(self.shapes.t5)
        each = slot_bytes(shape, state.capacity, self.decoder.cache_kind)
        check_free(plan.num_slots, each + attended_bytes(cross, shape, self.decoder.memory_kind, plan.longest_memory))
        with in_memory(f"{plan.num_slots} slots"):
            passes = Passes(
                self.library, self.decoder, shape, None, num_slots=plan.num_slots, capacity=state.capacity,
                num_genes=plan.longest_memory,
            )  # fmt: skip
            return CpuInstructSlots(passes, self.decoder, plan, state)

    def _encode(self, prompts: Sequence[EncoderPrompt]) -> list[Floats]:
        """Encode prompts in one pass; states [S, d] of each."""
        lengths = np.array([len(one.tokens) for one in prompts], np.int64)
        shape = _encoder_shape(self.shapes.t5)
        passes = Passes(
            self.library, self.encoder, shape, None, num_slots=len(prompts), capacity=int(lengths.max()), num_genes=0
        )
        x = np.concatenate([self._embed(one) for one in prompts])
        slots = np.arange(len(prompts)).repeat(lengths)
        positions = np.concatenate([np.arange(n) for n in lengths.tolist()])
        return np.split(passes.states(x, slots, positions), np.cumsum(lengths)[:-1])

    def _embed(self, prompt: EncoderPrompt) -> Floats:
        x = self.encoder.embed(prompt.tokens)
        if prompt.features is not None:
            x[prompt.start : prompt.start + len(prompt.features)] = prompt.features
        return x


class CpuInstructSlots:
    """Texts in progress; rows of all slots run together."""

    depth = 1  # work is done when it is given
    steps_per_ticket = 1

    def __init__(self, passes: Passes, decoder: NativeDecoder, plan: TextPlan, state: TextState) -> None:
        self._passes, self._decoder, self._plan, self._state = passes, decoder, plan, state
        self._logits = np.zeros((plan.num_slots, passes.shape.vocab_size), np.float32)

    @property
    def bytes(self) -> int:
        """Bytes of caches, and of the keys and values of prompts."""
        return self._passes.bytes

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run what their texts begin with, and choose their first tokens."""
        chosen: list[Chosen] = []
        slots: list[int] = []
        for one in sorted(admissions, key=lambda one: one.slot):
            check_memory(len(one.memory), self._plan.longest_memory)
            memory = np.ascontiguousarray(one.memory, np.float32)
            self._passes.fill(one.slot, memory, np.arange(len(memory)))
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

    def _advance(self, slots: list[int]) -> list[Chosen]:
        if not slots:
            return []
        rows = self._state.rows(slots)
        self._logits[slots] = self._passes.run(
            self._decoder.embed(rows.tokens), rows.slots, rows.positions,
            layers=(0, self._passes.shape.n_layers), chosen=np.ascontiguousarray(rows.last),
        )[0]  # fmt: skip
        chosen = self._state.choose(slots, self._logits[slots])
        return with_conditions(chosen, self._plan.signal_id, self.states)

    def states(self, slots: list[int]) -> Floats:
        """Run the last chosen tokens of slots; the decoder's states after them."""
        rows = self._state.rows(slots)
        states = self._passes.states(self._decoder.embed(rows.tokens), rows.slots, rows.positions)
        found: Floats = states[rows.last]
        return found


def _in_parts(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cut prompts, the longest first, so that a part has few rows, and one prompt at least."""
    part: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if part and sum(lengths[j] for j in part) + lengths[i] > _ROWS:
            yield part
            part = []
        part.append(i)
    if part:
        yield part


def _encoder_shape(t5: T5Shape) -> DecoderShape:
    heads = (t5.n_heads, t5.n_heads, t5.d_head)
    return DecoderShape(0, t5.d_model, t5.n_encoder_layers, t5.n_encoder_layers, *heads, t5.d_ffn, 0)


def _decoder_shapes(t5: T5Shape) -> tuple[DecoderShape, CrossShape]:
    heads = (t5.n_heads, t5.n_heads, t5.d_head)
    shape = DecoderShape(t5.vocab_size, t5.d_model, t5.n_layers, 0, *heads, t5.d_ffn, 0)
    return shape, CrossShape("materialised", t5.n_layers, *heads, t5.d_model, prepared=True)
