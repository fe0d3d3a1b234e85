"""The ONNX Runtime CPU backend: bound arrays, caches updated in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import onnxruntime as ort

from cellscribe.engine.backends.base import Admission, Array, Chosen, Encoded, Floats, Ints, Ready, SlotPlan
from cellscribe.engine.backends.contract import attended_shapes, check_decoder, check_encoder, check_length
from cellscribe.engine.backends.sessions import BoundRun, default_threads, open_session
from cellscribe.engine.backends.slot_state import SlotState
from cellscribe.engine.bundle.load import CROSS, DECODER, ENCODER, PREFIX, Bundle
from cellscribe.engine.cells import TokenBatch
from cellscribe.engine.errors import BundleError

# Cells per encoder or prompt run: bounds the attention scores in memory.
_CHUNK = 4
# ONNX Runtime sums a matrix product of one row in another order than one of several. A step therefore never runs
# fewer rows, so that a text does not depend on the number of slots.
_MIN_ROWS = 2


class OnnxRuntimeCpu:
    """Runs a bundle with ONNX Runtime on the CPU."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        self.threads = threads or default_threads()
        self.dtype = np.dtype(np.float16 if bundle.manifest.precision == "fp16" else np.float32)
        self._encoder = open_session(bundle.path(ENCODER), self.threads)
        check_encoder(bundle, self._encoder)

    @property
    def device(self) -> str:
        """Device, provider and threads in words."""
        plural = "s" if self.threads != 1 else ""
        return f"CPU, ONNX Runtime {ort.__version__} CPUExecutionProvider, {self.threads} thread{plural}"

    @cached_property
    def decoder(self) -> ort.InferenceSession:
        """The decoder's session, opened when text is first asked for."""
        if not self.bundle.describes:
            raise BundleError(
                f"the bundle {self.bundle.name} holds an encoder alone; it embeds cells but writes no text."
            )
        session = open_session(self.bundle.path(DECODER), self.threads)
        check_decoder(self.bundle, session, self.prefix)
        return session

    @cached_property
    def cross(self) -> ort.InferenceSession:
        """The session of cross.onnx."""
        return open_session(self.bundle.path(CROSS), self.threads)

    @cached_property
    def prefix(self) -> dict[str, Array]:
        """Keys, values and hidden states of the prompt below the first cross-attention layer."""
        return {name: np.ascontiguousarray(value) for name, value in self.bundle.tensors(PREFIX).items()}

    @property
    def cells_ahead(self) -> int:
        """None: the cores that would encode are those that decode."""
        return 0

    def encode(self, batch: TokenBatch) -> Encoded:
        """Encode cells, a few at a time."""
        parts = [self._encode_chunk(batch, at) for at in range(0, len(batch.rows), _CHUNK)]
        if not parts:
            width = self.bundle.manifest.encoder_shape.d_model
            return Encoded(np.zeros((0, batch.genes.shape[1], width), self.dtype), np.zeros((0, width), np.float32))
        return Encoded(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _encode_chunk(self, batch: TokenBatch, at: int) -> list[Array]:
        part = slice(at, at + _CHUNK)
        feed = {"genes": batch.genes[part], "values": batch.values[part], "mask": batch.mask[part]}
        outputs: list[Array] = self._encoder.run(["memory", "cell"], feed)
        return outputs

    def open_slots(self, plan: SlotPlan) -> OnnxRuntimeSlots:
        """Allocate the slots of a run."""
        check_length(self.bundle, plan.max_new_tokens)
        _ = self.decoder  # checks the manifest's sizes, which the slots are made from
        return OnnxRuntimeSlots(self, plan)


class OnnxRuntimeSlots:
    """Texts in progress: arrays with one row per slot, of which runs bind the rows they need."""

    def __init__(self, backend: OnnxRuntimeCpu, plan: SlotPlan) -> None:
        manifest = backend.bundle.manifest
        if manifest.decoder is None or manifest.cross_attention is None or manifest.prompt is None:
            raise BundleError(f"the bundle {backend.bundle.name} cannot describe cells; choose one with a decoder.")
        self._backend, self._plan = backend, plan
        self._shape, self._cross = manifest.decoder, manifest.cross_attention
        self._prompt_ids = np.array(manifest.prompt.token_ids, dtype=np.int64)
        rows = max(plan.num_slots, _MIN_ROWS)
        self._state = SlotState(rows, len(self._prompt_ids), plan)
        self._allocate(rows)
        self._steps: dict[int, BoundRun] = {}

    def _allocate(self, rows: int) -> None:
        shape, cross, dtype = self._shape, self._cross, self._backend.dtype
        capacity, genes = self._state.capacity, self._plan.num_genes
        self._caches = {
            f"{part}.{i}": np.zeros((rows, shape.n_kv_heads, capacity, shape.d_head), dtype)
            for i in range(shape.n_layers)
            for part in ("key", "value")
        }
        varying = (rows, genes)  # in this order in every shape
        self._attended: dict[str, Array] = {}
        for name, sizes in attended_shapes(cross).items():
            axes = iter(varying)
            self._attended[name] = np.zeros([next(axes) if s is None else s for s in sizes], dtype)
        self._memory_mask = np.zeros((rows, genes), bool)
        self._logits = np.zeros((rows, 1, shape.vocab_size), np.float32)
        self._evidence = np.zeros((rows, 1, genes), np.float32)
        self._attention = (
            np.zeros((rows, cross.n_layers, cross.n_heads, 1, genes), np.float32) if self._plan.keep_attention else None
        )

    depth = 1  # work is done when it is given
    steps_per_ticket = 1

    def admit(self, admissions: Sequence[Admission]) -> Ready:
        """Fill slots, run the prompt for them a few neighbours at a time, and choose their first tokens."""
        ordered = sorted(admissions, key=lambda a: a.slot)
        for start in range(0, len(ordered), _CHUNK):
            self._fill(ordered[start : start + _CHUNK])
        slots = np.array([a.slot for a in ordered], dtype=np.int64)
        for first, stop in _neighbours(slots):
            for at in range(first, stop, _CHUNK):
                self._run_prompt(at, min(at + _CHUNK, stop))
        return Ready((self._choose(slots),))

    def step(self, active: Ints) -> Ready:
        """Run one token for every row up to the last active one."""
        rows = max(int(active.max()) + 1, _MIN_ROWS)
        if rows not in self._steps:
            self._steps[rows] = self._bind_step(rows)
        self._steps[rows]()
        return Ready((self._choose(active),))

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots."""
        last: Floats = self._logits[:count, 0]
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        self._state.force(tokens)

    def _choose(self, slots: Ints) -> Chosen:
        attention = None if self._attention is None else self._attention[slots, :, :, 0]
        return self._state.choose(slots, self._logits[slots, 0], self._evidence[slots, 0], attention)

    def _fill(self, admissions: Sequence[Admission]) -> None:
        """Put cells into their slots: memory (or the keys and values made of it), mask, key."""
        for one in admissions:
            length = len(one.mask)
            raw = np.zeros((1, self._plan.num_genes, one.memory.shape[-1]), self._backend.dtype)
            raw[0, :length][one.mask] = one.memory[one.mask]
            self._memory_mask[one.slot] = False
            self._memory_mask[one.slot, :length] = one.mask
            if self._state.begin(one):
                for cache in self._caches.values():
                    cache[one.slot] = 0
            for name, value in self._prepare(raw).items():
                self._attended[name][one.slot] = value[0]

    def _prepare(self, memory: Array) -> dict[str, Array]:
        if not self._cross.prepared:
            return {"memory": memory}
        names = list(self._attended)
        return dict(zip(names, self._backend.cross.run(names, {"raw_memory": memory}), strict=True))

    def _run_prompt(self, first: int, stop: int) -> None:
        """Run the prompt for slots first..stop-1.

        All of it but the last token is known below the first cross-attention layer; the last one goes through all.
        """
        prefix, known, rows = self._backend.prefix, len(self._prompt_ids) - 1, slice(first, stop)
        count = stop - first
        for i in range(self._shape.n_lower):
            for part in ("key", "value"):
                self._caches[f"{part}.{i}"][rows, :, :known] = prefix[f"{part}.{i}"]
        positions = np.tile(np.arange(len(self._prompt_ids)), (count, 1))
        inputs = {
            "tokens": np.full((count, 1), self._prompt_ids[-1]),
            "hidden": np.ascontiguousarray(np.broadcast_to(prefix["hidden"], (count, *prefix["hidden"].shape))),
            "positions": positions,
            "mask": self._state.range <= positions[:, :, None],
        }
        self._bind(inputs, rows)()

    def _bind_step(self, rows: int) -> BoundRun:
        part = slice(0, rows)
        inputs = {
            "tokens": self._state.tokens[part],
            "hidden": np.zeros((rows, 0, self._shape.d_model), self._backend.dtype),
            "positions": self._state.positions[part],
            "mask": self._state.mask[part],
        }
        return self._bind(inputs, part)

    def _bind(self, inputs: dict[str, Array], rows: slice) -> BoundRun:
        caches = {name: array[rows] for name, array in self._caches.items()}
        attended = {name: array[rows] for name, array in self._attended.items()}
        outputs: dict[str, Array] = {"logits": self._logits[rows], "evidence": self._evidence[rows]}
        if self._attention is not None:
            outputs["attention"] = self._attention[rows]
        return BoundRun(
            self._backend.decoder,
            {**inputs, "memory_mask": self._memory_mask[rows], **attended, **caches},
            {**outputs, **{f"new_{name}": array for name, array in caches.items()}},
        )


def _neighbours(slots: Ints) -> list[tuple[int, int]]:
    """Split sorted slot numbers into runs [first, stop) without gaps."""
    if not len(slots):
        return []
    cuts = [0, *(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(slots)]
    return [(int(slots[a]), int(slots[b - 1]) + 1) for a, b in pairwise(cuts)]
