"""What clients read of labels, vectors, written cells and answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import scipy.sparse as sp

from cellscribe.engine.labels import Labelled
from cellscribe.engine.service.answers import record, vector
from cellscribe.engine.service.families.base import Item, Written
from cellscribe.engine.service.orders import Answered, Done
from cellscribe.engine.text_annotate import described_answer
from cellscribe.engine.text_types import Answer

_SENTENCE = "cell_sentence"


def labels(items: Sequence[Item], status: Sequence[str], found: Labelled, has_scores: bool) -> list[dict[str, Any]]:
    """Return the labels of cells."""
    results = []
    for i, (one, term) in enumerate(zip(items, found.term_ids, strict=True)):
        told: dict[str, Any] = {
            "cell_id": one.name,
            "status": status[i],
            "label": found.chosen[i] or None,
            "score": _number(float(found.score[i])),
            "cell_ontology_term_id": term or None,
        }
        if has_scores and found.scores is not None and found.labels is not None:
            row = found.scores[i].tolist()
            told["scores"] = {name: _number(score) for name, score in zip(found.labels.names, row, strict=True)}
        results.append(told)
    return results


def vectors(items: Sequence[Item], found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the vectors of cells."""
    return [vector(one.name, one.failure, mine) for one, mine in zip(items, found, strict=True)]


def cells(written: Written) -> list[dict[str, Any]]:
    """Return cells that were written, without their zeros."""
    adata = written.cells
    matrix, names = sp.csr_matrix(adata.X), adata.var_names.tolist()
    sentences = adata.obs[_SENTENCE].tolist() if _SENTENCE in adata.obs else [None] * adata.n_obs
    results = []
    for i, (name, sentence) in enumerate(zip(adata.obs_names.tolist(), sentences, strict=True)):
        part = slice(matrix.indptr[i], matrix.indptr[i + 1])
        pairs = zip(matrix.indices[part].tolist(), matrix.data[part].tolist(), strict=True)
        results.append({"cell_id": name, "genes": {names[at]: round(x, 6) for at, x in pairs}, "sentence": sentence})
    return results


def answer(one: Answered) -> dict[str, Any]:
    """Return an answer to a question about a cell, as a description is told of."""
    assert isinstance(one.outcome, Answer)
    return record(Done(one.cell, described_answer(one.outcome), one.queue_s)) | {
        "latency_ms": round((one.latency_s - one.queue_s) * 1e3, 3)
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
