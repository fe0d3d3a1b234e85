"""Texts in progress on the device: prompts are run for a few cells at once, steps are replayed graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.engine.backends.base import Admission, Floats, Ints, SlotPlan, Ticket
from cellscribe.engine.backends.cuda.cross import Latent, Projected, Projecting, Seen
from cellscribe.engine.backends.cuda.decoder import CrossSource, Decoder, Stream
from cellscribe.engine.backends.cuda.faults import running
from cellscribe.engine.backends.cuda.few import MAX_ROWS, FewRows
from cellscribe.engine.backends.cuda.graphs import StepGraph
from cellscribe.engine.backends.cuda.ops import ptr
from cellscribe.engine.backends.cuda.state import Cursor, Report, SlotMemory
from cellscribe.engine.backends.cuda.tickets import DeviceTicket, Joined
from cellscribe.engine.backends.samplers import sampling_of
from cellscribe.engine.decode.sampling import TOKEN_STREAM
from cellscribe.engine.keyed import stream_keys
from cellscribe.kernels.parameters.sampling import Sample

if TYPE_CHECKING:
    from torch import Tensor

_FP32 = 1  # CELLSCRIBE_FP32
# Cells whose prompts run together: enough rows for full products; their keys and values, made layer by layer, take
# about 10 MB a cell.
PROMPT_CELLS = 16
STEPS_PER_TICKET = 4  # token ids come back every so many steps


class CudaSlots:
    """A fixed number of texts in progress.

    Parameters
    ----------
    decoder, few
        The decoder and its kernels; and the same for steps of few rows, where its sizes allow it.
    prompt
        Hidden states fp32 [P, d] entering the first cross layer, and the caches fp16 [n_lower, 2, K, P, D] below it:
        nothing there depends on a cell.
    """

    depth = 2  # the next steps are given while the last ones are read

    def __init__(self, decoder: Decoder, few: FewRows | None, prompt: tuple[Tensor, Tensor], plan: SlotPlan) -> None:
        self._decoder, self._ops, self._cross, self._plan = decoder, decoder.ops, decoder.cross_shape, plan
        self._torch, self._device = decoder.ops.torch, decoder.ops.device
        self._hidden, self._lower = prompt
        self._prompt_len = len(self._hidden)
        self.steps_per_ticket = 1 if plan.forced or plan.keep_attention else STEPS_PER_TICKET
        self._memory = SlotMemory(self._torch, self._device, plan, self._prompt_len, decoder.shape, self._cross)
        self._report = self._new_report(self._device, self.steps_per_ticket, plan.num_slots)
        self._free: list[Report] = []  # on the host
        self._eos = self._torch.tensor(sorted(plan.eos_ids), dtype=self._torch.int32, device=self._device)
        self._few = few
        self._graph = StepGraph(self._torch, self._device)

    def admit(self, admissions: Sequence[Admission]) -> Ticket:
        """Fill slots, run the prompt for them, and choose their first tokens."""
        parts = [admissions[at : at + PROMPT_CELLS] for at in range(0, len(admissions), PROMPT_CELLS)]
        with running(self._torch, self._device):
            return Joined([self._admit_some(part) for part in parts])

    def step(self, active: Ints) -> DeviceTicket:
        """Run the next few tokens of all slots; those whose text has ended stay silent.

        All slots run, whichever are active: one graph, and sums in one order whatever the others do. What fewer rows
        would save at the end of a run is less than the capture of another graph takes.
        """
        with running(self._torch, self._device):
            self._graph.run(self._run_steps, self._frozen)
            host = self._free.pop() if self._free else self._new_report("cpu", *self._report.chosen.shape)
            host.copy_from(self._report)
            return self._ticket(host, np.arange(self._plan.num_slots), self._free.append)

    def logits(self, count: int) -> Floats:
        """Logits [count, V] that chose the last tokens of the first slots; kept where the plan is ``forced``."""
        with running(self._torch, self._device):
            last: Floats = self._memory.logits[:count].cpu().numpy()
        return last

    def force(self, tokens: Ints) -> None:
        """Put other tokens in place of the last chosen ones of the first slots."""
        with running(self._torch, self._device):
            self._memory.cursor.tokens[: len(tokens)] = self._ops.send(tokens)

    def _run_steps(self, one_is_enough: bool) -> None:
        for step in range(1 if one_is_enough else self.steps_per_ticket):
            self._run_step(step)

    def _run_step(self, step: int) -> None:
        memory, report, cursor = self._memory, self._report, self._memory.cursor
        attention = None if report.attention is None else report.attention[step]
        source = self._source(Seen(report.evidence[step], attention))
        if self._few is not None and self._plan.num_slots <= MAX_ROWS:
            logits = self._few.step(cursor.tokens, cursor.positions, memory.caches, source)
        else:
            layers = range(self._decoder.shape.n_layers)
            stream = self._decoder.embed(cursor.tokens)
            stream = self._decoder.run(stream, 1, layers, cursor.positions, memory.caches, source)
            logits = self._decoder.logits(stream)
        if self._plan.forced:
            memory.logits.copy_(logits)
        self._sample(logits, cursor, report, step)

    def _source(self, seen: Seen) -> CrossSource:
        memory = self._memory
        rest = (memory.mask, memory.lengths, seen)
        if memory.memory is not None:
            return Latent(self._ops, self._cross, memory.memory, *rest)
        assert memory.projected is not None
        keys, values = memory.projected.transpose(3, 4)  # each [L, B, K, S, D]
        return Projected(self._ops, self._cross, keys, values, *rest)

    def _admit_some(self, admissions: Sequence[Admission]) -> DeviceTicket:
        slots = np.array([a.slot for a in admissions], dtype=np.int64)
        at, count = self._ops.send(slots), len(slots)
        memory, mask, lengths = self._fill(admissions)
        report = self._new_report(self._device, 1, count)
        cursor = self._cursor(admissions)
        attention = None if report.attention is None else report.attention[0]
        seen = Seen(report.evidence[0], attention)
        source = self._prompt_source(at, memory, mask, lengths, seen)
        logits = self._run_prompt(at, count, cursor, source)
        if self._plan.forced:
            self._memory.logits[at] = logits
        self._sample(logits, cursor, report, 0)
        self._memory.cursor.scatter(at, cursor)
        self._memory.mask[at], self._memory.lengths[at] = mask, lengths
        host = self._new_report("cpu", 1, count)
        host.copy_from(report)
        return self._ticket(host, slots, lambda _: None)

    def _cursor(self, admissions: Sequence[Admission]) -> Cursor:
        """Return where n new texts stand, each with the key and the sampling of its own."""
        cursor = Cursor.at_start(self._torch, self._device, len(admissions), finished=False)
        each = [sampling_of(self._plan, one) for one in admissions]
        keys, seeds = np.array([one.key for one in admissions], np.uint64), np.array([own.seed for own in each])
        for seed in set(seeds.tolist()):
            keys[seeds == seed] = stream_keys(seed, keys[seeds == seed], TOKEN_STREAM)
        cursor.keys = self._ops.send(keys.view(np.int64))
        if self._plan.mixes:
            cursor.temperatures = self._ops.send(np.array([own.temperature for own in each], np.float32))
            cursor.top_ps = self._ops.send(np.array([own.top_p for own in each], np.float64))
        return cursor

    def _run_prompt(self, at: Tensor, count: int, cursor: Cursor, source: CrossSource) -> Tensor:
        """Run the layers with cross-attention over the prompt of new cells; the others are the same for all."""
        shape, length, caches = self._decoder.shape, self._prompt_len, self._memory.caches
        upper = range(shape.n_lower, shape.n_layers)
        made = self._ops.half(len(upper), 2, count, shape.n_kv_heads, length, shape.d_head)
        stream = Stream(self._hidden.repeat(count, 1))
        stream = self._decoder.run(stream, length, upper, cursor.positions, made, source)
        caches[shape.n_lower :, :, at, :, :length] = made
        caches[: shape.n_lower, :, at, :, :length] = self._lower.unsqueeze(2)
        return self._decoder.logits(stream.last(length))

    def _fill(self, admissions: Sequence[Admission]) -> tuple[Tensor, Tensor, Tensor]:
        """Bring n cells together: memory fp16 [n, S, m], mask uint8 [n, S], lengths int32 [n]."""
        count, genes = len(admissions), self._plan.num_genes
        memory = self._torch.zeros((count, genes, self._cross.d_memory), dtype=self._torch.float16, device=self._device)
        mask = np.zeros((count, genes), np.uint8)
        for i, one in enumerate(admissions):
            raw = one.memory if isinstance(one.memory, self._torch.Tensor) else self._ops.send(one.memory)
            memory[i, : len(one.mask)] = raw
            if raw.is_cuda:
                raw.record_stream(self._torch.cuda.current_stream())  # it may come from the stream of the encoder
            mask[i, : len(one.mask)] = one.mask
        norm = self._decoder.weights.memory_norm
        if norm is not None:
            memory = self._ops.add_layer_norm(memory.view(-1, memory.shape[-1]), None, None, norm.parts).view(
                memory.shape
            )
        ends = genes - mask[:, ::-1].argmax(-1)
        return memory, self._ops.send(mask), self._ops.send(np.where(mask.any(-1), ends, 0).astype(np.int32))

    def _prompt_source(self, at: Tensor, memory: Tensor, mask: Tensor, lengths: Tensor, seen: Seen) -> CrossSource:
        """Keep what the slots' steps will read, and say what their prompt reads."""
        kept = self._memory.projected
        if self._memory.memory is not None:
            self._memory.memory[at] = memory
        return Projecting(self._ops, self._cross, memory, mask, lengths, seen, None if kept is None else (kept, at))

    def _sample(self, logits: Tensor, cursor: Cursor, report: Report, step: int) -> None:
        sampling = self._plan.sampling
        greedy = sampling.is_greedy
        self._ops.sample(
            Sample(
                num_slots=len(logits),
                vocabulary=logits.shape[1],
                logits_type=_FP32,
                prompt_len=self._prompt_len,
                max_new_tokens=self._plan.max_new_tokens,
                num_eos=len(self._eos),
                temperature=0.0 if greedy else sampling.temperature,
                top_p=1.0 if greedy else sampling.top_p,
                logits_slot=logits.stride(0),
                logits=ptr(logits),
                keys=ptr(cursor.keys),
                eos_ids=ptr(self._eos),
                finished=ptr(cursor.finished),
                lengths=ptr(cursor.lengths),
                tokens=ptr(cursor.tokens),
                positions=ptr(cursor.positions),
                chosen=ptr(report.chosen[step]),
                logprobs=ptr(report.logprobs[step]),
                temperatures=ptr(cursor.temperatures),
                top_ps=ptr(cursor.top_ps),
            )
        )

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        """Hold every text where it is.

        A finished slot chooses nothing and does not move; its next keys and values are written where the step after
        will write the same ones.
        """
        finished = self._memory.cursor.finished
        before = finished.clone()
        finished.fill_(1)
        try:
            yield
        finally:
            finished.copy_(before)

    def _new_report(self, device: Any, steps: int, slots: int) -> Report:
        return Report(self._torch, self._torch.device(device), steps, slots, self._plan, self._cross)

    def _ticket(self, host: Report, slots: Ints, release: Callable[[Report], None]) -> DeviceTicket:
        event = None
        if self._device.type == "cuda":
            event = self._torch.cuda.Event()
            event.record()
        return DeviceTicket(host, slots, event, release, partial(running, self._torch, self._device))
