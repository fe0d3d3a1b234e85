"""Products of a few rows against cuBLAS, in fp16 and with 8-bit weights; sampling; norms and activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpu.clock import Call
from gpu.kernel_cases import Bench, Case
from gpu.roofline import Work

_HALF, _SINGLE = 2, 4
_FP16, _FP32, _INT8 = 0, 1, 2  # include/cellscribe/types.h


def shapes(bench: Bench) -> dict[str, tuple[int, int]]:
    """K x N of a decoder's products."""
    m = bench.model
    return {
        "qkv": (m.d_model, (m.n_heads + 2 * m.n_kv_heads) * m.d_head),
        "out": (m.d_model, m.d_model),
        "gate_up": (m.d_model, 2 * m.d_ffn),
        "down": (m.d_ffn, m.d_model),
        "head": (m.d_model, m.vocab),
    }


def skinny(bench: Bench, name: str, rows: int, in_8_bits: bool) -> Case | None:
    """Multiply x [R, K] and weights [K, N]; None where the kernel does not serve the sizes."""
    from cellscribe.kernels.parameters.skinny_linear import SkinnyLinear

    torch, ops, (inner, width) = bench.torch, bench.ops, shapes(bench)[name]
    size = 1 if in_8_bits else _HALF
    p = SkinnyLinear(num_rows=rows, inner=inner, width=width, weight_type=_INT8 if in_8_bits else _FP16)
    if ops.library.workspace("skinny_linear", p) < 0:
        return None
    sets = bench.sets(inner * width * size)
    weights = bench.half(sets, inner, width) / inner**0.5
    used = torch.randint(-127, 128, weights.shape, dtype=torch.int8, device=bench.device) if in_8_bits else weights
    x, out, scales = bench.half(rows, inner), bench.half(rows, width), bench.wide(width)
    counters = torch.zeros(1 << 16, dtype=torch.int32, device=bench.device)

    def make(i: int) -> Call:
        one = SkinnyLinear(
            num_rows=rows, inner=inner, width=width, weight_type=p.weight_type, x=x.data_ptr(), x_row=inner,
            weight=used[i].data_ptr(), weight_row=width, scales=scales.data_ptr() if in_8_bits else None,
            out=out.data_ptr(), out_row=width, num_counters=len(counters), counters=counters.data_ptr(),
        )  # fmt: skip
        return lambda: ops.launch("skinny_linear", one, workspace=True)

    moved = inner * width * size + rows * (inner + width) * _HALF + width * _SINGLE * in_8_bits
    rival: Callable[[int], Call] = lambda i: lambda: torch.mm(x, weights[i], out=out)  # noqa: E731
    return Case(
        "skinny_linear",
        {"product": name, "rows": rows, "weights": "int8" if in_8_bits else "fp16", "inner": inner, "width": width},
        Work(moved, 2 * rows * inner * width),
        sets,
        make,
        {} if in_8_bits else {"cublas": rival},
    )


def sampling(bench: Bench, slots: int, is_greedy: bool) -> Case:
    """One token of every slot; the texts go on and on."""
    from cellscribe.engine.backends.cuda.ops import ptr
    from cellscribe.kernels.parameters.sampling import Sample

    torch, ops, m = bench.torch, bench.ops, bench.model
    sets = bench.sets(slots * m.vocab * _SINGLE)
    logits = 2 * bench.wide(sets, slots, m.vocab)

    def zeros(dtype: Any) -> Any:
        return torch.zeros(slots, dtype=dtype, device=bench.device)

    state = {
        "keys": torch.arange(slots, device=bench.device), "eos_ids": bench.ints(2, 1), "finished": zeros(torch.uint8),
        "lengths": zeros(torch.int32), "tokens": zeros(torch.int64), "positions": zeros(torch.int32),
        "chosen": zeros(torch.int32), "logprobs": zeros(torch.float32),
    }  # fmt: skip
    state["eos_ids"].fill_(-5)  # no token ends a text here

    def make(i: int) -> Call:
        p = Sample(
            num_slots=slots, vocabulary=m.vocab, logits_type=_FP32, prompt_len=m.prompt_len, max_new_tokens=1 << 30,
            num_eos=1, temperature=0.0 if is_greedy else 0.7, top_p=1.0 if is_greedy else 0.9, logits_slot=m.vocab,
            logits=ptr(logits[i]),
            **{name: ptr(tensor) for name, tensor in state.items()},
        )  # fmt: skip
        return lambda: ops.sample(p)

    how = "greedy" if is_greedy else "top-p 0.9 at 0.7"
    return Case("sample", {"slots": slots, "how": how}, Work(slots * m.vocab * _SINGLE, 0), sets, make)


def between(bench: Bench, rows: int, wide_rows: int) -> Iterator[Case]:
    """What stands between products: rows of a prompt, and rows of the encoder."""
    m, ops = bench.model, bench.ops
    x, update, weight = bench.wide(rows, m.d_model), bench.half(rows, m.d_model), bench.wide(m.d_model)
    yield Case(
        "add_rms_norm", {"rows": rows, "width": m.d_model}, Work(rows * m.d_model * 12, 0), 1,
        lambda _: lambda: ops.add_rms_norm(x, update, None, weight, 1e-5),
    )  # fmt: skip
    both = bench.half(rows, 2 * m.d_ffn)
    yield Case(
        "gated_silu", {"rows": rows, "width": m.d_ffn}, Work(rows * m.d_ffn * 6, 0), 1,
        lambda _: lambda: ops.gated_silu(both),
    )  # fmt: skip
    y, z = bench.half(wide_rows, m.d_memory), bench.half(wide_rows, m.d_memory)
    norm = (bench.wide(m.d_memory), bench.wide(m.d_memory), 1e-5)
    yield Case(
        "add_layer_norm", {"rows": wide_rows, "width": m.d_memory}, Work(wide_rows * m.d_memory * 6, 0), 1,
        lambda _: lambda: ops.add_layer_norm(y, z, None, norm),
    )  # fmt: skip


def cases(bench: Bench) -> Iterator[Callable[[], Case | None]]:
    """All of them, to be made one at a time."""
    for rows in bench.sizes.few_rows:
        for name in shapes(bench):
            for in_8_bits in (False, True):
                yield lambda n=name, r=rows, e=in_8_bits: skinny(bench, n, r, e)
    for slots in (1, 96) if bench.sizes.is_full else (2,):
        for is_greedy in (True, False):
            yield lambda s=slots, g=is_greedy: sampling(bench, s, g)
