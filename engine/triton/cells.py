"""From what a request holds to the tokens of a cell."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource, CellTokenizer, GeneMatch, TokenBatch, match_source, open_cells
from cellscribe.engine.errors import BundleError, InputError, UsageError
from cellscribe.engine.types import Sampling

_MOST_MATCHES = 64  # lists of genes that are remembered


@dataclass(frozen=True)
class Asked:
    """One cell to describe, and how: its tokens (a batch of one, or of none and a failure), and its longest text."""

    cell_id: str
    batch: TokenBatch
    sampling: Sampling
    max_new_tokens: int


def check_bundle(bundle: Bundle) -> None:
    """Raise BundleError unless cells can be described one by one."""
    if bundle.manifest.cells is None or not bundle.describes:
        raise BundleError(
            f"the bundle {bundle.name} is of the family {bundle.manifest.family} and writes no descriptions; model "
            "repositories are written for bundles of the family lingocell only."
        )
    if bundle.manifest.cell_input.selection == "hvg":
        raise BundleError(
            f"the bundle {bundle.name} chooses highly variable genes from a whole file, and a request holds one cell; "
            "export one with a list of genes, or with all of them."
        )


def most_tokens(bundle: Bundle) -> int:
    """Return the most tokens that a cell can have, ``<cls>`` included."""
    spec, known = bundle.manifest.cell_input, bundle.vocabulary
    genes = len((known.input_genes or ()) if spec.selection == "list" else known.tokens)
    return 1 + (genes if spec.layout == "fixed" else min(genes, spec.num_genes))


class CellReader:
    """Reads cells as they come in requests; clients ask with the same names of genes again and again, matched once."""

    def __init__(self, bundle: Bundle) -> None:
        self._spec, self._vocabulary = bundle.manifest.cell_input, bundle.vocabulary
        self._matches: dict[tuple[str, ...], GeneMatch] = {}

    def read(self, genes: Sequence[str], values: npt.NDArray[np.float32], cell_id: str) -> TokenBatch:
        """Turn the values [G] of named genes into the tokens of one cell, as they would come from a file.

        A cell that cannot be fed gives an empty batch with its failure.

        Raises
        ------
        InputError
            When names and values do not go together, values are not counts or log-normalised, or too few genes match.
        """
        if len(genes) != len(values) or not len(genes):
            raise InputError(
                f"the request has {len(genes)} GENES and {len(values)} VALUES; give as many of both, one at least."
            )
        names, numbers = pd.DataFrame(index=[cell_id]), np.asarray(values, np.float32)[None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that come twice, whose values are added up
            cell = AnnData(numbers, obs=names, var=pd.DataFrame(index=list(genes)))
        with open_cells(cell) as source:
            match = self._match(tuple(genes), source)
            return next(CellTokenizer(self._spec, self._vocabulary, source, match=match).batches(batch_cells=1))

    def _match(self, genes: tuple[str, ...], source: CellSource) -> GeneMatch:
        match = self._matches.get(genes)
        if match is None:
            match = match_source(source, self._vocabulary, self._spec)
            while len(self._matches) >= _MOST_MATCHES:
                self._matches.pop(next(iter(self._matches)))
            self._matches[genes] = match
        return match


def check_length(max_new_tokens: int, longest: int) -> int:
    """Return the length of a text, or raise UsageError when the slots do not hold it."""
    if not 1 <= max_new_tokens <= longest:
        raise UsageError(f"MAX_NEW_TOKENS is {max_new_tokens}; choose a whole number from 1 to {longest}.")
    return max_new_tokens


def joined(batches: Sequence[TokenBatch]) -> list[TokenBatch]:
    """Join batches that follow each other and are equally wide, so that they are encoded together."""
    return [_one(list(alike)) for _, alike in groupby(batches, key=lambda one: one.genes.shape[1])]


def _one(batches: list[TokenBatch]) -> TokenBatch:
    if len(batches) == 1:
        return batches[0]
    return TokenBatch(
        np.arange(len(batches)),
        tuple(name for one in batches for name in one.cell_ids),
        np.concatenate([one.genes for one in batches]),
        np.concatenate([one.values for one in batches]),
        np.concatenate([one.mask for one in batches]),
        np.concatenate([one.columns for one in batches]),
    )
