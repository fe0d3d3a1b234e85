"""What do others need for the same cells? Torch with the same weights, checked before it is timed."""

from __future__ import annotations

from typing import Any

from gpu.context import Context
from gpu.parity import compared, kept
from gpu.peer_torch import TorchPeer
from gpu.results import Row, rounded
from gpu.roofline import cell_floor

_CHECKED_CELLS, _CHECKED_TOKENS = 8, 32


def run(context: Context) -> None:
    """Torch eager, the way such models are usually run."""
    _measure(context, "torch", compiled=False)


def run_compiled(context: Context) -> None:
    """Torch with its layers compiled and the step in one CUDA graph: the best that torch alone does here."""
    _measure(context, "torch-compiled", compiled=True)


def _measure(context: Context, name: str, *, compiled: bool) -> None:
    section = context.section(name)
    how = "layers compiled, step in one CUDA graph" if compiled else "eager"
    section.fact(
        what=f"the same model and weights in torch {context.torch.__version__}, fp16, {how}, static cache, "
        "cross keys and values materialised"
    )
    slots_of = context.sizes.peer_slots
    section.fact(check=checked(context, 1 if compiled else _CHECKED_CELLS, compiled=compiled))
    for slots in (slots_of[0], slots_of[-1]) if compiled else slots_of:  # every size is compiled anew
        section.row(**timed(context, slots, compiled=compiled))
    section.save("ok")


def checked(context: Context, most: int, *, compiled: bool) -> Row:
    """Compare with the float32 reference, teacher-forced."""
    reference = kept(context)
    cells = min(most, len(reference.tokens))
    tokens = reference.tokens[:cells, :_CHECKED_TOKENS]
    memory, mask = encoded(context, cells)
    with context.torch.inference_mode():
        peer = TorchPeer(context, memory, mask, compiled=compiled)
        logits = peer.forced(context.torch.tensor(tokens, device=context.device)).cpu().numpy()
    cut = type(reference)(tokens, reference.logits[:cells, : tokens.shape[1]])
    found = compared(cut, logits)
    if found["percent_equal"] < 90:
        raise RuntimeError(f"only {found['percent_equal']} % of its tokens are the reference's: not the same model")
    return {key: found[key] for key in ("tokens", "percent_equal", "near_ties", "others", "logits_max_error")}


def timed(context: Context, slots: int, *, compiled: bool) -> Row:
    """Time the encoder, the prompt and the steps for `slots` cells at once."""
    torch, clock, tokens = context.torch, context.clock, context.sizes.tokens
    encode = clock.wall(lambda: encoded(context, slots))
    encode = min(encode, clock.wall(lambda: encoded(context, slots)))
    memory, mask = encoded(context, slots)
    with torch.inference_mode():
        peer = TorchPeer(context, memory, mask, compiled=compiled)
        peer.greedy(2)  # warm
        project = clock.wall(lambda: [one.cross.keys_values(memory) for one in peer.decoder.blocks if one.cross])
        prompt = project + clock.wall(peer.prefill)
        whole = project + clock.wall(lambda: peer.greedy(tokens))
    ms = 1e3 * (encode + whole) / slots
    floor = cell_floor(context.model, slots, tokens, context.ceilings)
    return {
        "slots": slots,
        "tokens": tokens,
        "ms_per_cell": rounded(ms),
        "encoder_ms_per_cell": rounded(1e3 * encode / slots),
        "prompt_ms_per_cell": rounded(1e3 * prompt / slots),
        "step_ms": rounded(1e3 * (whole - prompt) / (tokens - 1)),
        "floor_ms_per_cell": rounded(floor.ms),
        "percent_of_roofline": rounded(100 * floor.ms / ms, 3),
        "tokens_per_s": rounded(1e3 * tokens / ms),
    }


def encoded(context: Context, cells: int) -> tuple[Any, Any]:
    """Encode real cells with the torch encoder in fp16 -> memory [B, S, m], mask [B, S] on the device."""
    torch, batch = context.torch, context.cells(cells)
    encoder, found = context.half_encoder, []
    mask = torch.tensor(batch.mask, device=context.device)
    with torch.inference_mode():
        for at in range(0, cells, 32):
            part = slice(at, at + 32)
            genes, values = (torch.tensor(one[part], device=context.device) for one in (batch.genes, batch.values))
            found.append(encoder(genes, values, mask[part])[0])
        return torch.cat(found), mask
