"""Cells in: reading them, matching their genes, and turning them into tokens."""

from __future__ import annotations

from cellscribe.engine.cells.binning import bin_bounds, bin_values
from cellscribe.engine.cells.block import CsrBlock
from cellscribe.engine.cells.gene_report import GeneReport
from cellscribe.engine.cells.genes import GeneMatch, match_genes
from cellscribe.engine.cells.hvg import choose_hvgs
from cellscribe.engine.cells.limits import ReadLimits
from cellscribe.engine.cells.opening import open_cells
from cellscribe.engine.cells.source import CellSource
from cellscribe.engine.cells.spec import CellInput, HvgFlavor
from cellscribe.engine.cells.token_batch import TokenBatch
from cellscribe.engine.cells.tokenizer import CellTokenizer, match_source
from cellscribe.engine.cells.values import ValueChoice, ValueKind
from cellscribe.engine.cells.vocabulary import GeneVocabulary

__all__ = [
    "CellInput",
    "CellSource",
    "CellTokenizer",
    "CsrBlock",
    "GeneMatch",
    "GeneReport",
    "GeneVocabulary",
    "HvgFlavor",
    "ReadLimits",
    "TokenBatch",
    "ValueChoice",
    "ValueKind",
    "bin_bounds",
    "bin_values",
    "choose_hvgs",
    "match_genes",
    "match_source",
    "open_cells",
]
