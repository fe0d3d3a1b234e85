"""The device memory of a run: caches, what is attended to, where each text stands, and what steps report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.bundle.shapes import CrossShape, DecoderShape

if TYPE_CHECKING:
    from torch import Tensor


class Report:
    """What `steps` steps chose for B slots; the device writes it, and it is copied to the host as a whole.

    chosen int32 and logprobs float32 [steps, B], evidence float32 [steps, B, S], attention float32
    [steps, B, L, H, S] or None.
    """

    def __init__(self, torch: Any, device: Any, steps: int, slots: int, plan: SlotPlan, cross: CrossShape) -> None:
        attended = (cross.n_layers, cross.n_heads, plan.num_genes)
        pinned = device.type == "cpu" and torch.cuda.is_available()

        def zeros(*shape: int, dtype: Any) -> Any:
            return torch.zeros(shape, dtype=dtype, device=device, pin_memory=pinned)

        self.chosen: Tensor = zeros(steps, slots, dtype=torch.int32)
        self.logprobs: Tensor = zeros(steps, slots, dtype=torch.float32)
        self.evidence: Tensor = zeros(steps, slots, plan.num_genes, dtype=torch.float32)
        self.attention: Tensor | None = None
        if plan.keep_attention:
            self.attention = zeros(steps, slots, *attended, dtype=torch.float32)

    def copy_from(self, other: Report) -> None:
        """Copy a report of the same sizes, in the order of the stream."""
        self.chosen.copy_(other.chosen, non_blocking=True)
        self.logprobs.copy_(other.logprobs, non_blocking=True)
        self.evidence.copy_(other.evidence, non_blocking=True)
        if self.attention is not None and other.attention is not None:
            self.attention.copy_(other.attention, non_blocking=True)


class Cursor:
    """Where each of n texts stands; a slot without a text is finished.

    keys (uint64 as int64), lengths int32, finished uint8, tokens int64 (the next input) and positions int32, all [n].
    Where texts have samplings of their own: temperatures float32 and top_ps float64, [n]; otherwise both are None.
    """

    NAMES = ("keys", "lengths", "finished", "tokens", "positions")
    OWN = ("temperatures", "top_ps")

    def __init__(self, keys: Tensor, lengths: Tensor, finished: Tensor, tokens: Tensor, positions: Tensor) -> None:
        self.keys, self.lengths, self.finished, self.tokens, self.positions = keys, lengths, finished, tokens, positions
        self.temperatures: Tensor | None = None
        self.top_ps: Tensor | None = None

    @staticmethod
    def at_start(torch: Any, device: Any, count: int, *, finished: bool, mixes: bool = False) -> Cursor:
        """Return n texts that have no token yet; or n slots without a text."""
        kinds = (torch.int64, torch.int32, torch.uint8, torch.int64, torch.int32)
        made = Cursor(*(torch.zeros(count, dtype=kind, device=device) for kind in kinds))
        made.finished.fill_(finished)
        if mixes:
            made.temperatures = torch.zeros(count, dtype=torch.float32, device=device)
            made.top_ps = torch.ones(count, dtype=torch.float64, device=device)
        return made

    def scatter(self, slots: Tensor, other: Cursor) -> None:
        """Put n texts into slots int64 [n]."""
        for name in self.NAMES if self.top_ps is None else self.NAMES + self.OWN:
            getattr(self, name)[slots] = getattr(other, name)


class SlotMemory:
    """Everything that B slots hold on the device.

    caches fp16 [L, 2, B, K, C, D]; memory fp16 [B, S, m] (latent) or cross keys and values [2, Lx, B, S, K, D]
    (materialised); mask uint8 [B, S]; lengths int32 [B], up to which the memory counts.
    """

    def __init__(
        self, torch: Any, device: Any, plan: SlotPlan, prompt_len: int, shape: DecoderShape, cross: CrossShape
    ) -> None:
        slots, genes = plan.num_slots, plan.num_genes
        capacity = prompt_len + plan.max_new_tokens
        half = {"dtype": torch.float16, "device": device}
        self.caches: Tensor = torch.zeros((shape.n_layers, 2, slots, shape.n_kv_heads, capacity, shape.d_head), **half)
        self.memory: Tensor | None = None
        self.projected: Tensor | None = None
        if cross.form == "latent":
            self.memory = torch.zeros((slots, genes, cross.d_memory), **half)
        else:
            self.projected = torch.zeros((2, cross.n_layers, slots, genes, cross.n_kv_heads, cross.d_head), **half)
        self.mask: Tensor = torch.zeros((slots, genes), dtype=torch.uint8, device=device)
        self.lengths: Tensor = torch.zeros(slots, dtype=torch.int32, device=device)
        kept = slots if plan.forced else 0
        self.logits: Tensor = torch.zeros((kept, shape.vocab_size), dtype=torch.float32, device=device)
        self.cursor = Cursor.at_start(torch, device, slots, finished=True, mixes=plan.mixes)
