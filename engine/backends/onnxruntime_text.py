"""Families without an encoder on ONNX Runtime's CPU provider: bound arrays, caches updated in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import onnxruntime as ort

from cellscribe.engine.backends.base import Array, Chosen, Floats, Ints, Ready
from cellscribe.engine.backends.contract import check_text_decoder
from cellscribe.engine.backends.onnxruntime_embedding import PromptMeans
from cellscribe.engine.backends.prompt_rows import OnPrompts
from cellscribe.engine.backends.sessions import BoundRun, default_threads, open_session
from cellscribe.engine.backends.text import Prompted, TextPlan, check_room
from cellscribe.engine.backends.text_state import TextState
from cellscribe.engine.bundle.load import DECODER, Bundle
from cellscribe.engine.errors import BundleError

PIECE = 256  # tokens of a prompt in one run: bounds the scores in memory
# ONNX Runtime sums a matrix product of one row in another order than one of several.
_MIN_ROWS = 2


class OnnxRuntimeText:
    """Runs a bundle without an encoder with ONNX Runtime on the CPU."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        if bundle.manifest.decoder is None or bundle.manifest.style is None:
            raise BundleError(f"the bundle {bundle.name} reads no sentences; choose one of the family c2s.")
        self.bundle, self.shape, self.style = bundle, bundle.manifest.decoder, bundle.manifest.style
        self.threads = threads or default_threads()
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)

    @property
    def device(self) -> str:
        """Device, provider and threads in words."""
        plural = "s" if self.threads != 1 else ""
        return f"CPU, ONNX Runtime {ort.__version__} CPUExecutionProvider, {self.threads} thread{plural}"

    @cached_property
    def decoder(self) -> ort.InferenceSession:
        """The decoder's session."""
        session = open_session(self.bundle.path(DECODER), self.threads)
        check_text_decoder(self.bundle, session)
        return session

    def open_text_slots(self, plan: TextPlan) -> OnnxRuntimeTextSlots:
        """Allocate the slots of a run."""
        check_room(self.bundle, plan.longest_prompt, plan.max_new_tokens)
        return OnnxRuntimeTextSlots(self, plan)

    def embed_prompts(self, prompts: Sequence[Ints], progress: OnPrompts | None = None) -> Floats:
        """Return the mean of the last states over each prompt's tokens, float32 [N, d]."""
        if not prompts:
            return np.zeros((0, self.shape.d_model), np.float32)
        check_room(self.bundle, max(map(len, prompts)), 0)
        return PromptMeans(self.run_states, self.caches, pieces, PIECE).of(prompts, self.shape.d_model, progress)

    def embed_padded(self, prompts: Sequence[Ints], pad_id: int, progress: OnPrompts | None = None) -> Floats:
        """Return the mean of the last states over padded prompts, padding included, float32 [N, d].

        As Cell2Sentence 1.2.0 embeds a batch, run by transformers 5 with its default attention (``sdpa``): prompts are
        padded on the left to the longest of them, positions are counted from the first padded one, no token sees
        padding, and a padded position, which may see nothing, gets zeros from attention. (With ``eager`` attention the
        original gives other numbers: there a padded position attends evenly to all of its row.)
        """
        longest = max(map(len, prompts), default=0)
        check_room(self.bundle, longest, 0)
        found = np.zeros((len(prompts), self.shape.d_model), np.float32)
        for i, prompt in enumerate(prompts):
            tokens = np.concatenate((np.full(longest - len(prompt), pad_id, np.int64), prompt))[None]
            states = self.run_states(tokens, np.arange(longest)[None], self.caches(1, longest), longest - len(prompt))
            found[i] = states[0].mean(0, dtype=np.float64)
            if progress:
                progress(i + 1)
        return found

    def caches(self, rows: int, capacity: int) -> dict[str, Array]:
        """Return empty caches [rows, K, C, D] of every layer."""
        shape = self.shape
        return {
            f"{part}.{i}": np.zeros((rows, shape.n_kv_heads, capacity, shape.d_head), self.dtype)
            for i in range(shape.n_layers)
            for part in ("key", "value")
        }

    def run(self, tokens: Ints, positions: Ints, caches: dict[str, Array], chosen: Ints) -> Floats:
        """Run tokens int64 [B, T] over caches of B rows, which are updated -> logits [B, O, V] of the `chosen`."""
        logits = np.zeros((*chosen.shape, self.shape.vocab_size), np.float32)
        self._run(tokens, positions, caches, chosen, {"logits": logits})
        return logits

    def run_states(self, tokens: Ints, positions: Ints, caches: dict[str, Array], padding: int = 0) -> Floats:
        """Do the same for the last states [B, T, d]; the first `padding` positions are seen by none."""
        states = np.zeros((*tokens.shape, self.shape.d_model), np.float32)
        self._run(tokens, positions, caches, np.zeros((len(tokens), 1), np.int64), {"states": states}, padding)
        return states

    def _run(
        self,
        tokens: Ints,
        positions: Ints,
        caches: dict[str, Array],
        chosen: Ints,
        outputs: dict[str, Array],
        padding: int = 0,
    ) -> None:
        place = np.arange(next(iter(caches.values())).shape[2])
        mask = (place <= positions[:, :, None]) & (place >= padding)
        inputs: dict[str, Array] = {
            "tokens": np.ascontiguousarray(tokens), "positions": np.ascontiguousarray(positions), "mask": mask,
            "chosen": np.ascontiguousarray(chosen),
        }  # fmt: skip
        if self.style.window:
            inputs["near"] = mask & (place > positions[:, :, None] - self.style.window)
        new = {f"new_{name}": array for name, array in caches.items()}
        BoundRun(self.decoder, inputs | caches, outputs | new)()


def pieces(known: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut positions known..length-1 into runs, none of one position where it can be helped."""
    start = known
    while start < length:
        stop = min(start + PIECE, length)
        if length - stop == 1:
            stop -= 1
        stop = max(stop, start + 1)
        yield start, stop
        start = stop


class OnnxRuntimeTextSlots:
    """Texts in progress: caches with one row per slot."""

    depth = 1  # work is done when it is given
    steps_per_ticket = 1

    def __init__(self, backend: OnnxRuntimeText, plan: TextPlan) -> None:
        self._backend, self._plan = backend, plan
        self._state = TextState(plan)
        self._caches = backend.caches(max(plan.num_slots, _MIN_ROWS), self._state.capacity)
        self._logits = np.zeros((plan.num_slots, backend.shape.vocab_size), np.float32)
        self._prefix = np.array(plan.prefix, np.int64)
        self._known = self._run_prefix()

    def admit(self, admissions: Sequence[Prompted]) -> Ready:
        """Fill slots, run their prompts, and choose their first tokens."""
        chosen: list[Chosen] = []
        for one in sorted(admissions, key=lambda one: one.slot):
            known = self._shared(one.tokens)
            if self._state.was_lost(one.slot):
                for array in self._caches.values():
                    array[one.slot] = 0
            for name, array in self._known.items():
                self._caches[name][one.slot, :, :known] = array[0, :, :known]
            chosen += self._state.begin(one, known)
            if not self._state.has_ended(one.slot):
                self._logits[one.slot] = self._run_alone(one.slot)
                chosen += self._state.choose([one.slot], self._logits[one.slot : one.slot + 1])
        return Ready(tuple(chosen))

    def step(self, active: Ints) -> Ready:
        """Run what was chosen last for every active slot, and choose what follows."""
        slots = [slot for slot in active.tolist() if not self._state.has_ended(slot)]
        if not slots:
            return Ready(())
        rows = self._state.rows(slots)
        counts = np.diff(np.append(-1, rows.last))
        height, width = max(max(slots) + 1, _MIN_ROWS), int(counts.max())
        tokens, starts = np.zeros((height, width), np.int64), np.zeros(height, np.int64)
        starts[: len(self._state.known)] = np.minimum(self._state.known, self._state.capacity - width)[:height]
        place = rows.positions - rows.positions[rows.last - counts + 1].repeat(counts)
        tokens[rows.slots, place] = rows.tokens
        starts[slots] = rows.positions[rows.last - counts + 1]
        chosen = np.zeros((height, 1), np.int64)
        chosen[slots, 0] = counts - 1
        caches = {name: array[:height] for name, array in self._caches.items()}
        # What is beside a slot's own tokens counts nothing, but must have a position that the model knows.
        positions = np.minimum(starts[:, None] + np.arange(width), self._backend.shape.max_positions - 1)
        logits = self._backend.run(tokens, positions, caches, chosen)[:, 0]
        self._logits[slots] = logits[slots]
        return Ready(tuple(self._state.choose(slots, self._logits[slots])))

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        last: Floats = self._logits[:count]
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def _run_prefix(self) -> dict[str, Array]:
        if len(self._prefix) < _MIN_ROWS:
            return {}
        known = self._backend.caches(1, len(self._prefix))
        for start, stop in pieces(0, len(self._prefix)):
            positions = np.arange(start, stop)[None]
            self._backend.run(self._prefix[None, start:stop], positions, known, np.zeros((1, 1), np.int64))
        return known

    def _shared(self, tokens: Ints) -> int:
        """How many tokens of a prompt are known from the prefix; two at least are left to run."""
        if not self._known:
            return 0
        most = min(len(self._prefix), len(tokens) - _MIN_ROWS)
        same = tokens[: max(most, 0)] == self._prefix[: max(most, 0)]
        return int(same.argmin()) if not same.all() else len(same)

    def _run_alone(self, slot: int) -> Floats:
        """Run what is not known yet of one slot; the logits after it."""
        rows = self._state.rows([slot])
        caches = {name: array[slot : slot + 1] for name, array in self._caches.items()}
        logits = np.zeros((1, 1, self._backend.shape.vocab_size), np.float32)
        for start, stop in pieces(0, len(rows.tokens)):
            part = slice(start, stop)
            last = np.full((1, 1), stop - start - 1)
            logits = self._backend.run(rows.tokens[None, part], rows.positions[None, part], caches, last)
        found: Floats = logits[0, 0]
        return found
