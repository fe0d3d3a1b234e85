"""Cells as lists of genes by falling expression relative to each gene's median: what Geneformer and LangCell read."""

from __future__ import annotations

from cellscribe.engine.ranks.spec import RankInput
from cellscribe.engine.ranks.tokenizer import RankBatch, RankTokenizer

__all__ = ["RankBatch", "RankInput", "RankTokenizer"]
