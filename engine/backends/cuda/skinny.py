"""Products of a few rows, with the norm or activation before them and the sum after them in one kernel."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from cellscribe.engine.backends.cuda.ops import Ops, ptr
from cellscribe.engine.backends.cuda.weights import DecoderWeights, Norm
from cellscribe.kernels.parameters.skinny_linear import SkinnyLinear

if TYPE_CHECKING:
    from torch import Tensor


class Input(IntEnum):
    """What is done to the input first; include/cellscribe/skinny_linear.h."""

    PLAIN = 0
    RMS_NORM = 1
    GATED_SILU = 2


class Output(IntEnum):
    """Where the product goes."""

    FP16 = 0
    FP32 = 1
    ADD_FP32 = 2


_INT8 = 2  # CELLSCRIBE_INT8


class SkinnyProducts:
    """x [R, K] times weights [K, N], R up to 8; weights are read in fp16, or in int8 once they are rounded to it."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self._rounded: dict[int, tuple[Tensor, Tensor]] = {}  # by the address of the fp16 weight
        # Zero before and after every call; calls follow each other on one stream, so that they may share it.
        self._counters = ops.torch.zeros(1 << 16, dtype=ops.torch.int32, device=ops.device)

    def serves(self, x: Tensor, weight: Tensor) -> bool:
        """Whether the kernel takes these sizes."""
        return self._ops.library.workspace("skinny_linear", self._sizes(x, weight)) >= 0

    def serves_all(self, weights: DecoderWeights) -> bool:
        """Whether the kernel takes every product of a decoder's layers, for any number of rows up to 8."""
        widest = self._ops.half(8, 1)
        return all(self.serves(widest, weight) for weight in _products(weights))

    def round_to_int8(self, weights: DecoderWeights) -> None:
        """Keep the weights of a decoder's layers and head in int8 too, one scale per column, and read those."""
        torch = self._ops.torch
        for weight in (*_products(weights), weights.head):
            if weight.shape[1] % 16:
                continue
            scales = (weight.abs().amax(0).float() / 127).clamp(min=torch.finfo(torch.float32).tiny)
            rounded = (weight.float() / scales).round().clamp(-127, 127).to(torch.int8)
            self._rounded[weight.data_ptr()] = (rounded, scales)

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        *,
        norm: Norm | None = None,
        input_: Input = Input.PLAIN,
        output: Output = Output.FP16,
        add_to: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Return f(x) weight + bias, or add it to `add_to` fp32 [R, N] and return that.

        With a norm x is fp32 [R, K]; with GATED_SILU fp16 [R, 2 K]; otherwise fp16 [R, K]. The bias is fp32 [N].
        """
        ops, torch = self._ops, self._ops.torch
        p = self._sizes(x, weight)
        dtype = torch.float32 if output is Output.FP32 else torch.float16
        out: Tensor = (
            add_to if add_to is not None else torch.empty((len(x), weight.shape[1]), dtype=dtype, device=ops.device)
        )
        p.input = Input.RMS_NORM if norm is not None else input_
        p.output = Output.ADD_FP32 if add_to is not None else output
        kept, scales = self._rounded.get(weight.data_ptr(), (weight, None))
        p.x, p.x_row, p.weight, p.weight_row, p.scales = ptr(x), x.stride(0), ptr(kept), kept.stride(0), ptr(scales)
        p.out, p.out_row, p.bias = ptr(out), out.stride(0), ptr(bias)
        if norm is not None:
            p.eps, p.norm_weight = norm.eps, ptr(norm.weight)
        p.counters, p.num_counters = ptr(self._counters), len(self._counters)
        ops.launch("skinny_linear", p, workspace=True)
        return out

    def _sizes(self, x: Tensor, weight: Tensor) -> SkinnyLinear:
        kind = _INT8 if weight.data_ptr() in self._rounded else 0
        return SkinnyLinear(num_rows=len(x), inner=weight.shape[0], width=weight.shape[1], weight_type=kind)


def _products(weights: DecoderWeights) -> list[Tensor]:
    """Return the matrices of a decoder's layers."""
    found = []
    for layer in weights.layers:
        found += [layer.qkv, layer.out, layer.gate_up, layer.down]
        if layer.cross is not None:
            found += [layer.cross.q, layer.cross.out]
    return found
