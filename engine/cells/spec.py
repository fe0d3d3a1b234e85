"""What a bundle wants of a cell: which genes, which values, which layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["fixed", "ragged"]
Selection = Literal["list", "hvg", "all"]
ValueStyle = Literal["continuous", "category", "scaling"]
HvgFlavor = Literal["seurat_v3", "cell_ranger"]


@dataclass(frozen=True)
class CellInput:
    """The cell side of a bundle's manifest.

    Parameters
    ----------
    layout
        ``fixed``: the same genes for every cell, zeros kept, `<cls>` first. ``ragged``: a cell's non-zero genes only,
        padded to the longest of the batch.
    selection
        ``list``: the bundle's own genes, in vocabulary order (a gene the file lacks is a zero); ``hvg``: `num_genes`
        highly variable genes chosen from the file; ``all``: every gene of the file that the vocabulary knows.
    num_genes
        Genes per cell: exactly (``fixed``) or at most (``ragged``; a longer cell is thinned by keyed draw).
    n_bins
        Bins of the value binning, zero included (51: digits 0..50); 0 feeds the normalised values themselves.
    cls_value, pad_value
        Values of the `<cls>` token and of padding.
    target_sum
        Counts are scaled to this total per cell before log1p; None leaves counts as they are.
    """

    layout: Layout
    selection: Selection
    num_genes: int
    hvg_flavor: HvgFlavor = "seurat_v3"
    value_style: ValueStyle = "continuous"
    n_bins: int = 51
    cls_value: float = 0.0
    pad_value: float = -2.0
    target_sum: float | None = 1e4
    log1p: bool = True
