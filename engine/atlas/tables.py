"""Results of a shard as an Arrow table: one row per cell, in the order of the input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellscribe.engine.labels import Labelled
from cellscribe.engine.output.run import Run
from cellscribe.engine.types import Description

Floats = npt.NDArray[np.float32]
OK = "ok"
METADATA = b"cellscribe_atlas"


def table_of(
    file: str,
    rows: npt.NDArray[np.int64],
    names: Sequence[str],
    statuses: Sequence[str],
    columns: Mapping[str, pa.Array],
    groups: Sequence[str | None] | None = None,
) -> pa.Table:
    """Put a shard's table together.

    Columns: ``file`` (the input's short name), ``row`` (int64, of the input), ``cell_id``, ``group`` where cells are
    told apart by a column of obs, those of the task, and ``status`` ("ok" or "failed: why").
    """
    where = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), pa.array([file]))
    return pa.table(
        {
            "file": where,
            "row": pa.array(rows),
            "cell_id": pa.array([str(name) for name in names], pa.string()),
            **({} if groups is None else {"group": pa.array(groups, pa.string())}),
            **columns,
            "status": pa.array(list(statuses), pa.string()),
        }
    )


def vectors_column(vectors: Floats) -> pa.Array:
    """Return vectors [N, d] as lists of d numbers, null where one is not finite."""
    is_lost = ~np.isfinite(vectors).all(axis=1)
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    mask = pa.array(is_lost) if is_lost.any() else None
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=mask)


def text_columns(descriptions: Sequence[Description]) -> dict[str, pa.Array]:
    """Return what was written of cells, without times: two runs then give equal shards.

    Columns: ``description``, ``num_tokens``, ``mean_logprob``, ``finish_reason``, ``grounding``, ``top_genes``,
    ``top_gene_weights``, ``top_gene_columns`` (of the input's var) and ``named_genes``.
    """
    return {
        "description": pa.array([one.text for one in descriptions], pa.string()),
        "num_tokens": pa.array([one.num_tokens for one in descriptions], pa.int32()),
        "mean_logprob": _finite([one.mean_logprob for one in descriptions]),
        "finish_reason": pa.array([one.finish_reason for one in descriptions], pa.string()),
        "grounding": _finite([one.grounding for one in descriptions]),
        "top_genes": pa.array([list(one.top_genes.symbols) for one in descriptions], pa.list_(pa.string())),
        "top_gene_weights": pa.array([list(one.top_genes.weights) for one in descriptions], pa.list_(pa.float32())),
        "top_gene_columns": pa.array([list(one.top_genes.columns) for one in descriptions], pa.list_(pa.int32())),
        "named_genes": pa.array([list(one.named_genes) for one in descriptions], pa.list_(pa.string())),
    }


def label_columns(found: Labelled) -> dict[str, pa.Array]:
    """Return labels: ``label``, ``score``, and ``runner_up``, ``margin``, ``cell_ontology_term_id`` where known."""
    columns = {"label": _or_null(found.chosen), "score": _finite(found.score)}
    if found.margin is not None:
        columns |= {"runner_up": _or_null(found.runners_up), "margin": _finite(found.margin)}
    if found.labels is not None and found.labels.has_terms:
        columns["cell_ontology_term_id"] = _or_null(found.term_ids)
    if found.answers:
        columns["answer"] = pa.array(list(found.answers), pa.string())
    return columns


def run_columns(run: Run) -> dict[str, pa.Array]:
    """Return what one call of a model made: labels or vectors."""
    if run.labels is not None:
        return label_columns(run.labels)
    assert run.embeddings is not None
    return {"embedding": vectors_column(run.embeddings)}


def with_metadata(table: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
    """Return a table that says what it is."""
    return table.replace_schema_metadata({METADATA: json.dumps(facts, sort_keys=True)})


def metadata_of(schema: pa.Schema) -> dict[str, Any]:
    """Return what a table says of itself; nothing where it says nothing."""
    found = (schema.metadata or {}).get(METADATA)
    if found is None:
        return {}
    told = json.loads(found)
    return told if isinstance(told, dict) else {}


def _or_null(texts: Sequence[str]) -> pa.Array:
    return pa.array([text or None for text in texts], pa.string())


def _finite(values: Sequence[float] | npt.NDArray[np.floating[Any]]) -> pa.Array:
    numbers = np.asarray(values, np.float32)
    return pa.array(numbers, mask=~np.isfinite(numbers))
