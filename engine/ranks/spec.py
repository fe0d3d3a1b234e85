"""What a bundle that reads ranks of genes wants of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RankInput:
    """The cell side of a manifest whose bundle reads ranks.

    Parameters
    ----------
    max_tokens
        Tokens of a cell at most, `<cls>` included.
    has_cls, has_eos
        Whether `<cls>` comes before the genes, and `<eos>` after them.
    pooling
        What stands for a cell: the state of `<cls>`, or the mean over its tokens' states.
    target_sum
        Counts are scaled to this total of a cell before they are divided by the genes' medians.
    """

    max_tokens: int = 2048
    has_cls: bool = True
    has_eos: bool = False
    pooling: Literal["cls", "mean"] = "cls"
    target_sum: float = 1e4

    @property
    def max_genes(self) -> int:
        """Genes of a cell at most."""
        return self.max_tokens - self.has_cls - self.has_eos
