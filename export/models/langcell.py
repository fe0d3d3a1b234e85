"""LangCell (Zhao et al., ICML 2024): a cell encoder, a text encoder, and the text encoder that looks at a cell.

The fourth part, which upstream runs once for every cell and text, is cut where the cell comes in: what a text alone
decides is computed once per text, keys and values once per cell, and the rest for all texts of a cell together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellscribe.export.models.bert import Bert
from cellscribe.export.models.ops import Dense


class CellGraph(nn.Module):
    """encoder.onnx: tokens and mask of cells -> states and vectors.

    Parameters
    ----------
    bert
        The cell encoder.
    projection
        What maps the state of `<cls>` to a vector of length 1; None leaves a vector of the states as they are.
    pooling
        ``cls`` or ``mean``, over a cell's tokens.
    """

    def __init__(self, bert: Bert, projection: Dense | None, pooling: str = "cls") -> None:
        super().__init__()
        self.encoder, self.projection, self.pooling = bert, projection, pooling

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map int64 [B, S] and bool [B, S] to states [B, S, m] and float32 vectors [B, p]."""
        states = self.encoder(tokens, mask)
        if self.pooling == "mean":
            weight = mask.unsqueeze(-1).to(torch.float32)
            vector = (states.float() * weight).sum(1) / weight.sum(1)
        else:
            vector = states[:, 0].float()
        return states, vector if self.projection is None else unit(self.projection, states[:, 0])


class TextGraph(nn.Module):
    """text.onnx: tokens and mask of texts -> vectors, and where the matching of cells begins."""

    def __init__(self, bert: Bert, projection: Dense) -> None:
        super().__init__()
        self.text, self.projection = bert, projection

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map int64 [R, T] and bool [R, T] to float32 vectors [R, p] of length 1 and `start` [R, T, d].

        `start` is what the first layer's self-attention gives: nothing before it depends on a cell.
        """
        seen = mask[:, None, None, :]
        first, *others = self.text.blocks
        start = first.attend(self.text.embed(tokens), seen)
        x = first.feed_forward(start)
        for layer in others:
            x = layer.feed_forward(layer.attend(x, seen))
        return unit(self.projection, x[:, 0]), start


class KeysGraph(nn.Module):
    """keys.onnx: states of cells -> keys and values of every layer of the matching, once per cell."""

    def __init__(self, bert: Bert) -> None:
        super().__init__()
        self.crosses = [layer.cross for layer in bert.blocks if layer.cross is not None]
        self.text = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({"cross": one}) for one in self.crosses)})

    def forward(self, states: Tensor) -> tuple[Tensor, ...]:
        """Map [C, S, m] to keys and values [C, H, S, D] of every layer in turn."""
        return tuple(part for cross in self.crosses for part in cross.keys_values(states))


class MatchGraph(nn.Module):
    """match.onnx: texts, and keys and values of cells -> how well each text fits each cell.

    The last layer is computed for a text's first token alone, as the head reads no other.
    """

    def __init__(self, bert: Bert, head: Dense) -> None:
        super().__init__()
        self.text, self.head = bert, head

    def forward(self, start: Tensor, text_mask: Tensor, memory_mask: Tensor, keys_values: list[Tensor]) -> Tensor:
        """Match R texts with each of C cells.

        Parameters
        ----------
        start
            [C, R, T, d], of :class:`TextGraph`.
        text_mask, memory_mask
            bool [C, R, T] and [C, S], true for real tokens.
        keys_values
            [C, H, S, D], of :class:`KeysGraph`.

        Returns
        -------
        float32 [C, R, 2], the logits of no match and match.
        """
        cells, texts, tokens, d = start.shape
        seen, across = text_mask.reshape(cells * texts, 1, 1, tokens), memory_mask[:, None, None, :]
        x, last = start, len(self.text.blocks) - 1
        for i, layer in enumerate(self.text.blocks):
            if i:
                x = layer.attend(x.reshape(cells * texts, tokens, d), seen, 1 if i == last else None)
                x = x.reshape(cells, texts, -1, d)
            elif last == 0:
                x = x[:, :, :1]
            if layer.cross is not None:
                x = layer.cross(x, keys_values[2 * i], keys_values[2 * i + 1], across)
            x = layer.feed_forward(x)
        return self.head(x[:, :, 0]).float()


def unit(projection: Dense, state: Tensor) -> Tensor:
    """Project [B, d] and scale to length 1, in float32 -> [B, p]."""
    return F.normalize(projection(state).float(), dim=-1)
