"""A run as a pandas data frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellscribe.engine.labels import Labelled
from cellscribe.engine.output.run import Run


def to_frame(run: Run) -> pd.DataFrame:
    """Lay out one row per cell (or pool), in input order.

    Returns
    -------
    A frame indexed by cell id (``cell_id``; for pools the obs column's name) with the columns ``description``,
    ``status``, ``num_tokens``, ``mean_logprob``, ``latency_ms``, ``finish_reason``, ``grounding``, ``top_genes``,
    ``top_gene_weights`` and ``named_genes`` (lists), and ``num_cells`` for pools. A run that only embedded has the
    columns ``embedding_0`` to ``embedding_<d-1>`` instead; one that annotated has ``label``, ``score``, ``status``, and
    ``runner_up``, ``margin``, ``cell_ontology_term_id``, ``majority_voting``, ``majority_share``, ``over_clustering``,
    ``answer`` and ``score of <label>`` where they are known.
    """
    index = pd.Index(list(run.names), name=run.pooled_by or "cell_id", dtype=object)
    if not run.descriptions:
        return _embedding_frame(run, index)
    if run.labels is not None:
        return _label_frame(run, run.labels, index)
    every = run.descriptions
    frame = pd.DataFrame(
        {
            "description": pd.Series([one.text for one in every], dtype=object),
            "status": pd.Series([one.status for one in every], dtype=object),
            "num_tokens": np.array([one.num_tokens for one in every], np.int32),
            "mean_logprob": np.array([one.mean_logprob for one in every], np.float64),
            "latency_ms": np.array([one.latency_ms for one in every], np.float64),
            "finish_reason": pd.Series([one.finish_reason for one in every], dtype=object),
            "grounding": np.array([one.grounding for one in every], np.float64),
            "top_genes": pd.Series([list(one.top_genes.symbols) for one in every], dtype=object),
            "top_gene_weights": pd.Series([list(map(float, one.top_genes.weights)) for one in every], dtype=object),
            "named_genes": pd.Series([list(one.named_genes) for one in every], dtype=object),
        }
    )
    if run.pool_of is not None:
        frame["num_cells"] = np.bincount(run.pool_of[run.pool_of >= 0], minlength=len(every)).astype(np.int64)
    return frame.set_index(index)


def _label_frame(run: Run, found: Labelled, index: pd.Index[str]) -> pd.DataFrame:
    columns: dict[str, Any] = {"label": pd.Series(found.chosen, dtype=object), "score": found.score.astype(np.float64)}
    if found.margin is not None:
        columns["runner_up"] = pd.Series(found.runners_up, dtype=object)
        columns["margin"] = found.margin.astype(np.float64)
    if found.labels is not None and found.labels.has_terms:
        columns["cell_ontology_term_id"] = pd.Series(found.term_ids, dtype=object)
    if found.votes is not None:
        columns["majority_voting"] = pd.Series(found.votes.chosen, dtype=object)
        columns["majority_share"] = found.votes.share.astype(np.float64)
        columns["over_clustering"] = pd.Series(found.votes.clusters, dtype=object)
    if found.answers:
        columns["answer"] = pd.Series(found.answers, dtype=object)
    columns["status"] = pd.Series([one.status for one in run.descriptions], dtype=object)
    if found.scores is not None and found.labels is not None:
        columns |= {
            f"score of {name}": found.scores[:, i].astype(np.float64) for i, name in enumerate(found.labels.names)
        }
    return pd.DataFrame(columns).set_index(index)


def _embedding_frame(run: Run, index: pd.Index[str]) -> pd.DataFrame:
    vectors = np.empty((len(index), 0), np.float32) if run.embeddings is None else run.embeddings
    columns = [f"embedding_{place}" for place in range(vectors.shape[1])]
    return pd.DataFrame(vectors, index=index, columns=columns)
