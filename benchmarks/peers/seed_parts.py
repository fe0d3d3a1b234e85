"""What the seed's workers run on: a LingoCell with random weights, and the packaged cells as tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cellscribe.engine.cells import CellTokenizer, GeneVocabulary, open_cells
from cellscribe.engine.packaged import packaged_cells
from cellscribe.export.models.ops import Dense
from cellscribe.export.parts import Parts

WEIGHTS_SEED = 0  # of `cellscribe export`'s random models
TIE_SEED = 0  # the engine's default for draws among tied bins


@dataclass(frozen=True)
class TokenisedCells:
    """Cells as the encoder takes them: genes int64, values float32 and mask bool, each [B, S]."""

    cell_ids: tuple[str, ...]
    genes: Tensor
    values: Tensor
    mask: Tensor

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield `size` cells at a time."""
        for at in range(0, len(self.genes), size):
            part = slice(at, at + size)
            yield self.genes[part], self.values[part], self.mask[part]


def tokenised_cells(parts: Parts, cells: int) -> TokenisedCells:
    """Tokenise the first packaged cells as the engine does.

    Raises
    ------
    ValueError
        When there are not as many.
    """
    vocabulary = GeneVocabulary(parts.tokens, None, parts.input_genes)
    with open_cells(packaged_cells()) as source:
        if cells > source.n_cells:
            raise ValueError(f"{cells} cells are asked for where {source.n_cells} come with the package")
        tokenizer = CellTokenizer(parts.cells, vocabulary, source, seed=TIE_SEED)
        batch = next(iter(tokenizer.batches(rows=np.arange(cells), batch_cells=cells)))
    if batch.n_cells != cells:
        raise ValueError(f"{cells - batch.n_cells} of the first {cells} packaged cells cannot be tokenised")
    arrays = (np.array(one) for one in (batch.genes, batch.values, batch.mask))  # copies: they may be read-only
    return TokenisedCells(batch.cell_ids, *(torch.from_numpy(one) for one in arrays))


def linear(dense: Dense) -> nn.Linear:
    """Turn a Dense [d_in, d_out] into torch's own Linear [d_out, d_in]; the Dense gives its weight away."""
    made = nn.Linear(*dense.weight.shape, bias=dense.bias is not None, device="meta")
    made.weight = nn.Parameter(dense.weight.data.t().contiguous(), requires_grad=False)
    if dense.bias is not None:
        made.bias = nn.Parameter(dense.bias.data, requires_grad=False)
    dense.weight = nn.Parameter(torch.empty(0), requires_grad=False)
    return made
