"""One label for each cluster: the one that most of its cells have (CellTypist's majority voting)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.labelling.overcluster import over_cluster
from cellscribe.engine.labels import Votes
from cellscribe.engine.output.run import Run

MIXED = "Heterogeneous"
AUTO = "auto"


@dataclass(frozen=True)
class Voting:
    """How clusters vote.

    Parameters
    ----------
    by
        A column of obs, or ``auto`` for many small clusters of the cells' vectors.
    min_share
        Share of a cluster's cells, 0 to 1, that must agree; the others' label is ``Heterogeneous``.

    Raises
    ------
    UsageError
        For a share out of range.
    """

    by: str
    min_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_share <= 1.0:
            raise UsageError(f"the least share of a cluster is {self.min_share:g}; choose one from 0 to 1.")


def with_votes(run: Run, source: CellSource, voting: Voting) -> Run:
    """Let the clusters of annotated cells vote.

    Raises
    ------
    InputError
        When the cells have no such column.
    UsageError
        For ``auto`` where the run has no vectors.
    BackendError
        For ``auto`` without scanpy and igraph.
    """
    assert run.labels is not None
    if voting.by == AUTO:
        check_vectors(run.embeddings is not None)
        assert run.embeddings is not None
        clusters = over_cluster(run.embeddings)
    else:
        clusters = names_in(source.obs_column(voting.by).iloc[run.rows])
    found = majority_vote(run.labels.chosen, clusters, voting.min_share)
    settings = {**run.settings, "majority_vote": voting.by, "min_share": voting.min_share}
    return replace(run, labels=replace(run.labels, votes=found), settings=settings)


def check_vectors(has_vectors: bool) -> None:
    """Raise UsageError where clusters are to be made of vectors that there are not."""
    if not has_vectors:
        raise UsageError(
            f"the majority vote {AUTO!r} clusters vectors, which this bundle's labels come without; name a column "
            "of obs, such as leiden."
        )


def names_in(column: pd.Series[Any]) -> tuple[str, ...]:
    """Return a column of obs as texts, "" where it is missing."""
    return tuple("" if is_none else str(one) for one, is_none in zip(column, column.isna(), strict=True))


def majority_vote(labels: Sequence[str], clusters: Sequence[str], min_share: float = 0.0) -> Votes:
    """Give every cell the label that most cells of its cluster have.

    Parameters
    ----------
    labels, clusters
        Of each cell [N]. A cell without a label ("") has no vote and gets its cluster's; one without a cluster gets
        none.
    min_share
        Clusters where fewer of the voting cells agree are called ``Heterogeneous``.

    Returns
    -------
    The votes; equal counts are settled by the labels' alphabetical order, as CellTypist settles them.
    """
    names, label_of = np.unique(np.array(labels, dtype=object).astype(str), return_inverse=True)
    groups, group_of = np.unique(np.array(clusters, dtype=object).astype(str), return_inverse=True)
    counts = np.zeros((len(groups), len(names)), np.int64)
    np.add.at(counts, (group_of, label_of), 1)
    counts[:, names == ""] = 0
    total = counts.sum(axis=1)
    winner = counts.argmax(axis=1)
    share = counts.max(axis=1) / np.maximum(total, 1)
    said = np.where(total == 0, "", np.where(share < min_share, MIXED, names[winner])).astype(object)
    said[groups == ""] = ""
    share[(total == 0) | (groups == "")] = np.nan
    shares: npt.NDArray[np.float32] = share[group_of].astype(np.float32)
    return Votes(tuple(clusters), tuple(map(str, said[group_of])), shares)
