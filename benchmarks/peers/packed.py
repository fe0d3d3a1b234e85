"""Linear layers packed for oneDNN.

Torch's float products go through MKL, which on processors that are not Intel's takes up to ten times as long over a few
rows as oneDNN does over packed weights, which torch itself uses in a compiled and frozen graph. This gives eager code
those products, each weight held once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ROWS = 32  # the number of rows that the layout is chosen for


class PackedLinear(nn.Module):
    """A Linear whose weight is kept in oneDNN's blocked layout."""

    def __init__(self, made: nn.Linear) -> None:
        super().__init__()
        self.weight = None  # for code that looks at its type before it calls
        self._packed = torch.ops.mkldnn._reorder_linear_weight(made.weight.data, _ROWS)
        self._bias = None if made.bias is None else made.bias.data

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., d_in] to [..., d_out]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return y


def pack(module: nn.Module) -> None:
    """Replace every Linear inside a module; torch's own attention, which reads its Linears' weights, is left alone."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child))
            del child
        elif not isinstance(child, nn.MultiheadAttention):
            pack(child)
