"""The kernels of :mod:`cellscribe.kernels`, called with torch tensors.

torch allocates, multiplies matrices and captures graphs; everything between two products is a kernel of ours. Shapes:
B slots, T tokens, S genes, H heads, K key/value heads, D head width, C cache positions, m memory width.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.kernels.library import KernelLibrary
from cellscribe.kernels.parameters.activations import BiasRelu, GatedSilu, ValueExpand
from cellscribe.kernels.parameters.embeddings import Embed
from cellscribe.kernels.parameters.grouped_attention import GroupedAttention
from cellscribe.kernels.parameters.latent_cross import LatentCross
from cellscribe.kernels.parameters.norms import AddLayerNorm, AddRmsNorm
from cellscribe.kernels.parameters.rotary_cache import RotaryCache
from cellscribe.kernels.parameters.sampling import Sample

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Where attention weights go.

    `mass` fp32 [B, S] takes the sum over the heads of the last token's weights, times `scale`; it is added to where
    `add` is set. `weights` fp32 [B, H, S], strided, takes them all.
    """

    mass: Tensor | None = None
    scale: float = 1.0
    add: bool = False
    weights: Tensor | None = None


class Ops:
    """Kernels on one device; all are given to the current stream."""

    def __init__(self, library: KernelLibrary, torch: Any, device: Any) -> None:
        self.library, self.torch, self.device = library, torch, device

    def half(self, *shape: int) -> Tensor:
        """Return fp16 memory that holds anything."""
        made: Tensor = self.torch.empty(shape, dtype=self.torch.float16, device=self.device)
        return made

    def send(self, array: Any) -> Tensor:
        """Copy a NumPy array to the device, in the order of the stream and without waiting for it."""
        made: Tensor = self.torch.from_numpy(np.require(array, requirements=["C", "W"]))
        if self.device.type != "cuda":
            return made
        return made.pin_memory().to(self.device, non_blocking=True)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x [rows, d_in] weight [d_in, d_out] in fp16."""
        made: Tensor = self.torch.mm(x, weight)
        return made

    def product_fp32(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x weight with the sums kept in float32."""
        options = {"out_dtype": self.torch.float32} if x.is_cuda else {}
        made: Tensor = self.torch.mm(x, weight, **options)
        return made.float()

    def embed(self, table: Tensor, ids: Tensor, *, fp32: bool) -> Tensor:
        """Return rows of a fp16 table [V, d] by int64 ids [rows]."""
        dtype = self.torch.float32 if fp32 else self.torch.float16
        out: Tensor = self.torch.empty((len(ids), table.shape[1]), dtype=dtype, device=self.device)
        p = Embed(
            num_rows=len(ids), width=table.shape[1], table_rows=len(table), out_fp32=fp32, table=ptr(table),
            table_row=table.stride(0), ids=ptr(ids), out=ptr(out), out_row=out.stride(0),
        )  # fmt: skip
        self.launch("embed", p)
        return out

    def add_rms_norm(
        self, x: Tensor, update: Tensor | None, bias: Tensor | None, weight: Tensor | None, eps: float
    ) -> Tensor:
        """Add update (and bias) to the residual stream x fp32 [rows, d] in place; return its RMS norm in fp16.

        Without a weight the sum itself is returned in fp16.
        """
        rows, width = x.shape
        out = self.half(rows, width)
        p = AddRmsNorm(
            num_rows=rows, width=width, eps=eps, x=ptr(x), x_row=x.stride(0), update=ptr(update),
            update_row=update.stride(0) if update is not None else 0, update_bias=ptr(bias), weight=ptr(weight),
            out=ptr(out) if weight is not None else None, out_row=width,
        )  # fmt: skip
        if weight is None:
            p.weight = ptr(x)  # not looked at without an output
        self.launch("add_rms_norm", p)
        return out if weight is not None else x.half()

    def add_layer_norm(
        self,
        x: Tensor,
        update: Tensor | None,
        update_bias: Tensor | None,
        norm: tuple[Tensor, Tensor, float],
        rows_after: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return LayerNorm(x + update + bias) in fp16 [rows, d], plus table[ids] where (table, ids) is given."""
        rows, width = x.shape
        out = self.half(rows, width)
        weight, bias, eps = norm
        p = AddLayerNorm(
            num_rows=rows, width=width, eps=eps, x=ptr(x), x_row=x.stride(0), update=ptr(update),
            update_row=update.stride(0) if update is not None else 0, update_bias=ptr(update_bias),
            weight=ptr(weight), bias=ptr(bias), out=ptr(out), out_row=width,
        )  # fmt: skip
        if rows_after is not None:
            table, ids = rows_after
            p.table, p.table_row, p.table_rows, p.ids = ptr(table), table.stride(0), len(table), ptr(ids)
        self.launch("add_layer_norm", p)
        return out

    def rotary_cache(
        self, qkv: Tensor, positions: Tensor, tables: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, heads: int
    ) -> None:
        """Turn the queries of qkv fp16 [B, T, (H + 2K) D] in place; put keys and values into caches [B, K, C, D]."""
        slots, tokens, _ = qkv.shape
        _, kv_heads, capacity, width = keys.shape
        p = RotaryCache(
            num_slots=slots, num_tokens=tokens, num_heads=heads, num_kv_heads=kv_heads, width=width,
            capacity=capacity, table_rows=len(tables[0]), qkv=ptr(qkv), qkv_slot=qkv.stride(0), qkv_token=qkv.stride(1),
            positions=ptr(positions), cos=ptr(tables[0]), sin=ptr(tables[1]), out=ptr(qkv), out_slot=qkv.stride(0),
            out_head=width, out_token=qkv.stride(1), keys=ptr(keys), values=ptr(values), cache_slot=keys.stride(0),
            cache_head=keys.stride(1), cache_position=keys.stride(2),
        )  # fmt: skip
        self.launch("rotary_cache", p)

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        scores: Scores | None = None,
    ) -> Tensor:
        """Attend query [B, T, H, D] to keys and values [B, K, C, D] -> fp16 [B, T, H, D].

        Strides are free but for the last axis. `positions` int32 [B] makes it causal, `mask` uint8 [B, C] and
        `lengths` int32 [B] leave keys out.
        """
        slots, tokens, heads, width = query.shape
        out = self.half(slots, tokens, heads, width)
        p = GroupedAttention(
            num_slots=slots, num_heads=heads, num_kv_heads=keys.shape[1], num_tokens=tokens, num_keys=keys.shape[2],
            head_width=width, scale=scale, query=ptr(query), query_slot=query.stride(0), query_head=query.stride(2),
            query_token=query.stride(1), key=ptr(keys), key_slot=keys.stride(0), key_head=keys.stride(1),
            key_row=keys.stride(2), value=ptr(values), value_slot=values.stride(0), value_head=values.stride(1),
            value_row=values.stride(2), mask=ptr(mask), mask_slot=mask.stride(0) if mask is not None else 0,
            lengths=ptr(lengths), positions=ptr(positions), out=ptr(out), out_slot=out.stride(0),
            out_head=out.stride(2), out_token=out.stride(1),
        )  # fmt: skip
        _ask(p, scores, tokens)
        self.launch("grouped_attention", p, workspace=True)
        return out

    def attend_latent(
        self, query: Tensor, memory: Tensor, mask: Tensor, lengths: Tensor, scores: Scores | None
    ) -> Tensor:
        """Attend absorbed queries [H, B, m] to memory [B, S, m] -> mixed memory fp16 [H, B, m]."""
        heads, slots, width = query.shape
        out = self.half(heads, slots, width)
        p = LatentCross(
            num_slots=slots, num_heads=heads, num_tokens=1, num_genes=memory.shape[1], width=width, scale=1.0,
            query=ptr(query), query_slot=query.stride(1), query_head=query.stride(0), query_token=0,
            memory=ptr(memory), memory_slot=memory.stride(0), mask=ptr(mask), mask_slot=mask.stride(0),
            lengths=ptr(lengths), out=ptr(out), out_slot=out.stride(1), out_head=out.stride(0), out_token=0,
        )  # fmt: skip
        _ask(p, scores, 1)
        self.launch("latent_cross", p, workspace=True)
        return out

    def gated_silu(self, x: Tensor) -> Tensor:
        """Return silu(gate) * up of x [rows, 2 f] -> fp16 [rows, f]."""
        rows, width = x.shape[0], x.shape[1] // 2
        out = self.half(rows, width)
        self.launch(
            "gated_silu",
            GatedSilu(num_rows=rows, width=width, x=ptr(x), x_row=x.stride(0), out=ptr(out), out_row=width),
        )
        return out

    def bias_relu_(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return relu(x + bias), in the place of x fp16 [rows, n]."""
        rows, width = x.shape
        row = x.stride(0)
        p = BiasRelu(
            num_rows=rows, width=width, relu=1, x=ptr(x), x_row=row, bias=ptr(bias), out=ptr(x), out_row=row
        )  # fmt: skip
        self.launch("bias_relu", p)
        return x

    def expand_values(self, values: Tensor, weight: Tensor, bias: Tensor, max_value: float) -> Tensor:
        """Return relu(min(value, max_value) weight + bias) of values fp32 [rows] -> fp16 [rows, d]."""
        out = self.half(len(values), len(weight))
        p = ValueExpand(
            num_rows=len(values), width=len(weight), max_value=max_value, values=ptr(values), weight=ptr(weight),
            bias=ptr(bias), out=ptr(out), out_row=len(weight),
        )  # fmt: skip
        self.launch("value_expand", p)
        return out

    def sample(self, p: Sample) -> None:
        """Choose tokens; the caller fills the struct, whose memory it owns."""
        self.launch("sample", p)

    def launch(self, kernel: str, p: ctypes.Structure, *, workspace: bool = False) -> None:
        """Launch a kernel on the current stream, with the workspace it asks for."""
        held = None
        if workspace:
            p.workspace_bytes = self.library.workspace(kernel, p)
            held = self.torch.empty(max(p.workspace_bytes, 1), dtype=self.torch.uint8, device=self.device)
            p.workspace = ptr(held)
        self.library(kernel, p, self._stream())
        del held  # the allocator keeps the order of the stream

    def _stream(self) -> int:
        return int(self.torch.cuda.current_stream().cuda_stream) if self.device.type == "cuda" else 0


def _ask(p: Any, scores: Scores | None, tokens: int) -> None:
    """Ask for the weights of the last token."""
    p.first_token = tokens - 1
    if scores is None:
        return
    if scores.mass is not None:
        p.mass, p.mass_slot, p.mass_token = ptr(scores.mass), scores.mass.stride(0), 0
        p.mass_scale, p.mass_add = scores.scale, scores.add
    if scores.weights is not None:
        p.weights, p.weights_token = ptr(scores.weights), 0
        p.weights_slot, p.weights_head = scores.weights.stride(0), scores.weights.stride(1)


def ptr(tensor: Tensor | None) -> int | None:
    """Return where a tensor's elements begin, None for none."""
    return None if tensor is None else tensor.data_ptr()
