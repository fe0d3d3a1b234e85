"""The cells that the packaged C2S model learns from and is judged on, each set split once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import anndata as ad
import numpy as np
import numpy.typing as npt
import scanpy as sc
from scipy import sparse

from cellscribe.engine.cells.parts import Part
from cellscribe.engine.keyed import cell_keys, stream_keys, uniforms
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.sentences.genes import SentenceGenes

HELD_OUT, CHECKED = 0.2, 1 / 6  # shares of a type: held out of everything; left out of training to judge settings
SPLIT, CHECK = 21, 22  # streams of the draws
Rows = npt.NDArray[np.int64]

BLOOD = {
    "CD14+ Monocyte": "CD14+ monocyte",
    "CD19+ B": "CD19+ B cell",
    "CD34+": "CD34+ hematopoietic progenitor cell",
    "CD4+ T Helper2": "CD4+ T helper 2 cell",
    "CD4+/CD25 T Reg": "CD4+CD25+ regulatory T cell",
    "CD4+/CD45RA+/CD25- Naive T": "CD4+CD45RA+CD25- naive T cell",
    "CD4+/CD45RO+ Memory": "CD4+CD45RO+ memory T cell",
    "CD56+ NK": "CD56+ natural killer cell",
    "CD8+ Cytotoxic T": "CD8+ cytotoxic T cell",
    "CD8+/CD45RA+ Naive Cytotoxic": "CD8+CD45RA+ naive cytotoxic T cell",
    "Dendritic": "dendritic cell",
}


@dataclass(frozen=True)
class CellSet:
    """Cells in rows: `counts` CSR [N, G] of `genes`, `labels` [N] as the model writes them.

    A sentence needs nothing but the order of a cell's values, which counts keep.
    """

    name: str
    names: tuple[str, ...]
    genes: SentenceGenes
    counts: sparse.csr_matrix
    labels: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Rows) -> CellSet:
        """Return some of the cells."""
        names = tuple(self.names[i] for i in rows)
        return CellSet(self.name, names, self.genes, self.counts[rows], self.labels[rows])

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """Identities of the cells, uint64 [N]."""
        return cell_keys(self.names)

    @cached_property
    def expression(self) -> sparse.csr_matrix:
        """log1p of counts per 10,000, CSR [N, G]."""
        return log_normalised(self.counts)

    def part(self) -> Part:
        """Return the counts as the engine reads them."""
        return part_of(self.counts)


def part_of(counts: sparse.csr_matrix) -> Part:
    """Return a CSR matrix as the engine reads one."""
    return Part(counts.indptr.astype(np.int64), counts.indices.astype(np.int32), counts.data.astype(np.float32))


def log_normalised(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return log1p of counts per 10,000."""
    total = np.maximum(np.asarray(counts.sum(1)).ravel(), 1.0)
    scaled = sparse.csr_matrix(counts.multiply(1e4 / total[:, None]), dtype=np.float32)
    scaled.data = np.log1p(scaled.data)
    return scaled


@dataclass(frozen=True)
class Split:
    """One set, cut in two."""

    train: CellSet
    held_out: CellSet


def pbmc(_: Path) -> Split:
    """Take scanpy's 700 blood cells; the 140 packaged ones are held out, as they are of the other packaged model."""
    adata = sc.datasets.pbmc68k_reduced().raw.to_adata()
    adata.obs["label"] = sc.datasets.pbmc68k_reduced().obs["bulk_labels"].astype(str).map(BLOOD)
    values = sparse.csr_matrix(adata.X, dtype=np.float64)
    for row in range(values.shape[0]):  # the smallest value of a cell is one count
        mine = values.data[values.indptr[row] : values.indptr[row + 1]]
        mine[:] = np.rint(np.expm1(mine) / np.expm1(mine.min()))
    adata.X = values
    held_out = set(ad.read_h5ad(packaged_cells(), backed="r").obs_names)
    return _split(_of(adata, "pbmc68k_reduced"), np.array([name in held_out for name in adata.obs_names]))


def zheng(folder: Path) -> Split:
    """165 more cells of the same experiment with 9,621 genes; one that the 700 have, too, is left out."""
    adata = ad.read_h5ad(folder / "zheng68k.h5ad")
    adata = adata[~adata.obs_names.isin(sc.datasets.pbmc68k_reduced().obs_names)].copy()
    adata.obs["label"] = adata.obs["celltype"].astype(str).map(BLOOD)
    return _drawn(_of(adata, "zheng68k"))


def gut(folder: Path) -> Split:
    """1,020 cells of ileum and colon, 15 of each of 68 types."""
    adata = ad.read_h5ad(folder / "scp1884.h5ad")
    adata.obs["label"] = adata.obs["Celltype"].astype(str)
    upper = adata.var_names.str.upper()
    return _drawn(_of(adata[:, ~upper.duplicated()], "scp1884"))  # one gene is there in two spellings


SETS: dict[str, Callable[[Path], Split]] = {"pbmc68k_reduced": pbmc, "zheng68k": zheng, "scp1884": gut}


TAUGHT = ("pbmc68k_reduced", "zheng68k")  # what the packaged model learns from


def load(folder: Path, names: Iterable[str] = TAUGHT) -> dict[str, Split]:
    """Read some sets; `folder` holds zheng68k.h5ad and scp1884.h5ad."""
    return {name: SETS[name](folder) for name in names}


def checked(cells: CellSet) -> Split:
    """Cut training cells again, for choices that must not see the held-out cells."""
    return _split(cells, drawn_of_each_type(cells, CHECKED, CHECK))


def drawn_of_each_type(cells: CellSet, share: float, stream: int) -> npt.NDArray[np.bool_]:
    """Draw a share of the cells of every type, by name and type: bool [N]."""
    draw = uniforms(stream_keys(0, cells.keys, stream), np.zeros(len(cells), np.int64))
    chosen = np.zeros(len(cells), bool)
    for label in np.unique(cells.labels):
        rows = np.flatnonzero(cells.labels == label)
        chosen[rows[np.argsort(draw[rows], kind="stable")][: round(share * len(rows))]] = True
    return chosen


def _drawn(cells: CellSet) -> Split:
    return _split(cells, drawn_of_each_type(cells, HELD_OUT, SPLIT))


def _split(cells: CellSet, is_out: npt.NDArray[np.bool_]) -> Split:
    return Split(cells.take(np.flatnonzero(~is_out)), cells.take(np.flatnonzero(is_out)))


def _of(adata: ad.AnnData, name: str) -> CellSet:
    labels = adata.obs["label"].to_numpy().astype(str)
    counts = sparse.csr_matrix(adata.X, dtype=np.float32)
    counts.eliminate_zeros()
    counts.sort_indices()
    return CellSet(name, tuple(map(str, adata.obs_names)), SentenceGenes.of(adata.var_names, name), counts, labels)
