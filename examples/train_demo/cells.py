"""The cells of the demonstration: 700 blood cells that scanpy carries, split once, with the genes the model reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scanpy as sc
from sklearn.feature_selection import f_classif
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

SPLIT_SEED = 0
HELD_OUT = 0.2
LABELS = "bulk_labels"
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Cells in rows: log-normalised ``expression`` [N, G] of ``genes`` [G], ``labels`` [N], ``cycle`` scores [N, 2]."""

    names: tuple[str, ...]
    genes: tuple[str, ...]
    expression: Floats
    labels: npt.NDArray[np.str_]
    cycle: Floats  # the S and G2M scores published with the file

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Rows) -> Cells:
        """Return some of the cells."""
        names = tuple(self.names[i] for i in rows)
        return Cells(names, self.genes, self.expression[rows], self.labels[rows], self.cycle[rows])

    def keep_genes(self, genes: tuple[str, ...]) -> Cells:
        """Return all cells with some of the genes."""
        columns = [self.genes.index(gene) for gene in genes]
        return Cells(self.names, genes, self.expression[:, columns], self.labels, self.cycle)

    @cached_property
    def unit(self) -> Floats:
        """What one count adds to expm1(expression), [N, 1]: the smallest non-zero value of the cell is one count."""
        smallest = np.where(self.expression > 0, self.expression, np.inf).min(1, keepdims=True)
        unit: Floats = np.expm1(smallest)
        return unit

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """The counts behind the log-normalised values, [N, G]."""
        return np.rint(np.expm1(self.expression) / self.unit).astype(np.int64)

    def thinned(self, rng: np.random.Generator, lowest: float) -> Floats:
        """Return the expression [N, G] of the same cells sequenced less deeply: binomial thinning of the counts."""
        keep = rng.uniform(lowest, 1.0, (len(self), 1))
        values: Floats = np.log1p(rng.binomial(self.counts, keep) * self.unit).astype(np.float32)
        return values


def load() -> Cells:
    """Read all 700 cells with the 765 genes of ``.raw``."""
    adata = sc.datasets.pbmc68k_reduced()
    return Cells(
        tuple(adata.obs_names),
        tuple(adata.raw.var_names),
        adata.raw.X.toarray().astype(np.float32),
        adata.obs[LABELS].to_numpy().astype(str),
        adata.obs[["S_score", "G2M_score"]].to_numpy(np.float32),
    )


def split(cells: Cells) -> tuple[Rows, Rows]:
    """Return the rows for training and the held-out rows: 80/20, stratified by type, the same at every call."""
    splitter = StratifiedShuffleSplit(1, test_size=HELD_OUT, random_state=SPLIT_SEED)
    train, held_out = next(splitter.split(cells.expression, cells.labels))
    return np.sort(train), np.sort(held_out)


def folds(train: Cells, count: int = 5) -> Iterator[tuple[Rows, Rows]]:
    """Cut the training cells into folds, for choices that must not see the held-out cells."""
    yield from StratifiedKFold(count, shuffle=True, random_state=SPLIT_SEED + 1).split(train.expression, train.labels)


def choose_genes(train: Cells, count: int, wanted: set[str]) -> tuple[str, ...]:
    """Choose the genes the model reads, in file order: `wanted` ones, then those that separate the types best."""
    score = np.nan_to_num(f_classif(train.expression, train.labels)[0])
    order = sorted(range(len(train.genes)), key=lambda g: (train.genes[g] not in wanted, -score[g]))
    return tuple(train.genes[g] for g in sorted(order[:count]))


def is_nameable(gene: str) -> bool:
    """Whether a text may name the gene: clones and anonymous loci tell a reader nothing."""
    return re.fullmatch(r"(RP\d+-|A[CL]\d+|CTD-|SNOR|RN7|C\d+orf|KIAA).*", gene) is None and "." not in gene


def specificity(train: Cells) -> dict[str, Floats]:
    """Score how specific each gene is for each type, [G] per label: its standardised difference to other cells."""
    spread = train.expression.std(0) + 0.3
    scores = {}
    for label in np.unique(train.labels):
        own = train.labels == label
        gap = train.expression[own].mean(0) - train.expression[~own].mean(0)
        scores[str(label)] = (np.clip(gap / spread, 0, None) * own.sum() / (own.sum() + 5)).astype(np.float32)
    return scores
