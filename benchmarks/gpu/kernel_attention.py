"""Attention: the latent form over memories, and grouped attention in each of its uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpu.clock import Call
from gpu.kernel_cases import Bench, Case
from gpu.roofline import Work, mean_context, memory_bytes

_HALF, _SINGLE = 2, 4


def latent(bench: Bench, ops: Any, slots: int, with_mass: bool) -> Case:
    """A step of one cross layer: H absorbed queries a slot over its memory [S, m]."""
    from cellscribe.engine.backends.cuda.ops import Scores

    m, torch = bench.model, bench.torch
    sets = bench.sets(slots * memory_bytes(m))
    memory = bench.half(sets, slots, m.genes, m.d_memory)
    query = bench.half(m.cross_heads, slots, m.d_memory) / m.d_memory**0.5
    mask = torch.ones((slots, m.genes), dtype=torch.uint8, device=bench.device)
    lengths, mass = bench.ints(m.genes, slots), bench.wide(slots, m.genes)
    scores = Scores(mass, 1.0, True) if with_mass else None
    moved = slots * (memory_bytes(m) + 2 * m.cross_heads * m.d_memory * _HALF + (2 * m.genes * _SINGLE) * with_mass)

    def in_torch(i: int) -> Call:
        def call() -> Any:
            q = query.transpose(0, 1)
            weights = torch.softmax(torch.bmm(q, memory[i].transpose(1, 2)), -1)
            return torch.bmm(weights, memory[i])

        return call

    return Case(
        "latent_cross",
        {"slots": slots, "with_mass": with_mass, "genes": m.genes, "heads": m.cross_heads, "width": m.d_memory},
        Work(moved, slots * 4 * m.cross_heads * m.genes * m.d_memory),
        sets,
        lambda i: lambda: ops.attend_latent(query, memory[i], mask, lengths, scores),
        {} if with_mass else {"torch_matmul_softmax_matmul": in_torch},
    )


def self_step(bench: Bench, ops: Any, slots: int, capacity: int) -> Case:
    """A step over a decoder's own tokens: positions in the middle of a text."""
    m = bench.model
    context = int(min(mean_context(m, bench.sizes.tokens), capacity - 1)) + 1
    each = 2 * m.n_kv_heads * capacity * m.d_head * _HALF
    sets = bench.sets(slots * each)
    caches = bench.half(sets, 2, slots, m.n_kv_heads, capacity, m.d_head)
    query, positions = bench.half(slots, 1, m.n_heads, m.d_head), bench.ints(context - 1, slots)
    moved = slots * (each * context / capacity + 2 * m.d_model * _HALF)
    return _grouped(
        "step over own tokens", {"slots": slots, "capacity": capacity, "in_use": context},
        Work(moved, slots * 4 * m.d_model * context), sets,
        lambda i: lambda: ops.attend(query, caches[i, 0], caches[i, 1], scale=m.d_head**-0.5, positions=positions),
    )  # fmt: skip


def prompt_self(bench: Bench, ops: Any, cells: int) -> Case:
    """The prompt's own tokens, causal."""
    m = bench.model
    query = bench.half(cells, m.prompt_len, m.n_heads, m.d_head)
    caches, positions = bench.half(2, cells, m.n_kv_heads, m.prompt_len, m.d_head), bench.ints(0, cells)
    moved = cells * m.prompt_len * (2 * m.n_heads + 2 * m.n_kv_heads) * m.d_head * _HALF
    return _grouped(
        "prompt over own tokens", {"slots": cells, "tokens": m.prompt_len},
        Work(moved, cells * 2 * m.d_model * m.prompt_len**2), 1,
        lambda _: lambda: ops.attend(query, caches[0], caches[1], scale=m.d_head**-0.5, positions=positions),
    )  # fmt: skip


def over_memory(bench: Bench, ops: Any, slots: int, tokens: int, kv_heads: int) -> Case:
    """Queries of a step (one token) or a prompt over projected keys and values of the memory."""
    m = bench.model
    each = 2 * kv_heads * m.genes * m.d_head * _HALF
    sets = bench.sets(slots * each)
    kept = bench.half(sets, 2, slots, kv_heads, m.genes, m.d_head)
    query, lengths = bench.half(slots, tokens, m.cross_heads, m.d_head), bench.ints(m.genes, slots)
    wide = m.cross_heads * m.d_head
    moved = slots * (each + 2 * tokens * wide * _HALF)
    name = "step over projected memory" if tokens == 1 else "prompt over projected memory"
    return _grouped(
        name, {"slots": slots, "tokens": tokens, "kv_heads": kv_heads, "genes": m.genes},
        Work(moved, slots * 4 * tokens * wide * m.genes), sets,
        lambda i: lambda: ops.attend(query, kept[i, 0], kept[i, 1], scale=m.d_head**-0.5, lengths=lengths),
    )  # fmt: skip


def encoder(bench: Bench, ops: Any, cells: int) -> Case:
    """The encoder's attention, as it calls it: strided views of one product."""
    m, torch, heads = bench.model, bench.torch, bench.sizes.encoder_heads
    qkv = bench.half(cells, m.genes, 3, heads, m.d_memory // heads)
    mask = torch.ones((cells, m.genes), dtype=torch.uint8, device=bench.device)
    q, k, v = qkv.unbind(2)
    scale = q.shape[-1] ** -0.5
    attention = torch.nn.functional.scaled_dot_product_attention
    case = _grouped(
        "encoder", {"slots": cells, "genes": m.genes, "heads": heads},
        Work(cells * m.genes * 4 * m.d_memory * _HALF, cells * 4 * m.genes**2 * m.d_memory), 1,
        lambda _: lambda: ops.attend(q, k.transpose(1, 2), v.transpose(1, 2), scale=scale, mask=mask),
    )  # fmt: skip
    case.rivals["torch_sdpa_without_mask"] = lambda _: lambda: attention(*(one.transpose(1, 2) for one in (q, k, v)))
    return case


def cases(bench: Bench) -> Iterator[Callable[[], Case]]:
    """All of them, to be made one at a time: their inputs are large."""
    m, ops, full = bench.model, bench.ops, bench.sizes.is_full
    for slots in bench.sizes.kernel_slots:
        for with_mass in (False, True):
            yield lambda s=slots, w=with_mass: latent(bench, ops, s, w)
    some = (1, 96, 512) if full else (2,)
    capacity = m.prompt_len + bench.sizes.tokens
    for slots in some:
        yield lambda s=slots: self_step(bench, ops, s, capacity)
    yield lambda: encoder(bench, ops, 32 if full else 1)
    yield lambda: prompt_self(bench, ops, 16 if full else 1)
    yield lambda: over_memory(bench, ops, 16 if full else 1, m.prompt_len, m.cross_kv_heads)
    for kv_heads in (4, 32) if full else (2,):
        yield lambda k=kv_heads: over_memory(bench, ops, 96 if full else 2, 1, k)


def swept_cases(bench: Bench, ops: Any) -> Iterator[Case]:
    """Those whose number of blocks the notes want to see varied."""
    for slots in (1, 32, 96) if bench.sizes.is_full else (1,):
        yield latent(bench, ops, slots, True)
    capacity = bench.model.prompt_len + bench.sizes.tokens
    yield self_step(bench, ops, 96 if bench.sizes.is_full else 1, capacity)


def _grouped(use: str, sizes: dict[str, Any], work: Work, sets: int, make: Callable[[int], Call]) -> Case:
    return Case("grouped_attention", {"use": use, **sizes}, work, sets, make)
