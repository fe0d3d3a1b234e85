"""A run as AnnData fields over all cells of the input, for objects in memory and for files alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cellscribe.engine.errors import UsageError
from cellscribe.engine.labels import Labelled
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.output.run import Run
from cellscribe.engine.types import Description

KEY = "cellscribe"
NOT_RUN = "not run"

_BLANK = Description(cell_id="", status=NOT_RUN)


# columns of obs that labels have only where they are known
_BESIDE_LABELS = (
    "runner_up", "margin", "cell_ontology_term_id", "majority_voting", "majority_share", "over_clustering",
    "answer",
)  # fmt: skip


@dataclass(frozen=True)
class Fields:
    """Columns [n_cells] for obs, arrays [n_cells, ...] for obsm, and the entries of uns.

    `stale` names arrays of obsm, and `stale_obs` columns, that would stand for earlier texts or labels and must go.
    """

    obs: dict[str, npt.NDArray[np.generic] | pd.Categorical]
    obsm: dict[str, npt.NDArray[np.generic]]
    uns: dict[str, object]
    stale: tuple[str, ...] = ()
    stale_obs: tuple[str, ...] = ()


def check_key(key_added: str) -> str:
    """Return `key_added`, or raise UsageError when AnnData could not keep fields under that name."""
    if not key_added.strip() or "/" in key_added or "\x00" in key_added or key_added.startswith("."):
        raise UsageError(f"key_added is {key_added!r}; choose a name without '/' that does not start with a dot.")
    return key_added


def fields_of(run: Run, n_cells: int, key_added: str = KEY) -> Fields:
    """Spread a run over the input's cells.

    Parameters
    ----------
    run
        Results over some or all cells, or over pools; a pool's result is given to each of its cells.
    n_cells
        Cells of the input.
    key_added
        The name all keys are made from.

    Returns
    -------
    obs: ``<key>_description``, ``_status`` (ok, failed: why, not run), ``_num_tokens``, ``_mean_logprob``,
    ``_grounding``; of annotated cells ``<key>_label``, ``_score`` and ``_status`` instead, with ``_runner_up``,
    ``_margin`` and ``_cell_ontology_term_id`` where they are known, and ``_majority_voting``, ``_majority_share`` and
    ``_over_clustering`` where clusters voted, and
    ``_answer`` ("" for none) where labels were found in words. obsm: ``X_<key>`` (NaN where not run),
    ``<key>_top_genes`` (columns of var, or of raw.var where raw was read: ``uns[<key>]["top_genes_of"]``; -1 for none),
    ``<key>_top_gene_weights`` (0 for none), ``<key>_label_scores`` [n_cells, L] where all labels were scored, in the
    order of ``uns[<key>]["labels"]``. uns: ``<key>`` with settings and gene report, or ``<key>_embedding`` of a run
    that only embedded; for pools also ``pooled_by``, ``pools`` (a data frame) and ``pool_embeddings``. What a run does
    not hold is left out.

    Raises
    ------
    UsageError
        For a name that AnnData cannot keep.
    """
    key = check_key(key_added)
    result_of = _result_of(run, n_cells)
    per_cell = [run.descriptions[place] if place >= 0 else _BLANK for place in result_of] if run.descriptions else []
    obs = _obs(per_cell, key) if per_cell else {}
    obsm = _top_genes(per_cell, key)
    if run.labels is not None:
        obs = _label_obs(run.labels, per_cell, result_of, key)
        if run.labels.scores is not None:
            obsm[f"{key}_label_scores"] = _spread(run.labels.scores, result_of)
    if run.embeddings is not None and not run.pooled_by:
        obsm[f"X_{key}"] = _spread(run.embeddings, result_of)
    genes = (f"{key}_top_genes", f"{key}_top_gene_weights")
    stale = tuple(name for name in genes if run.descriptions and name not in obsm)
    stale_obs: tuple[str, ...] = ()
    if run.labels is not None:
        stale += (f"{key}_label_scores",) if run.labels.scores is None else ()
        stale_obs = tuple(name for name in (f"{key}_{one}" for one in _BESIDE_LABELS) if name not in obs)
    return Fields(obs, obsm, {key if run.descriptions else f"{key}_embedding": _uns(run)}, stale, stale_obs)


def _result_of(run: Run, n_cells: int) -> npt.NDArray[np.int64]:
    """Return the result of each cell, int64 [n_cells], -1 for none."""
    if run.pool_of is not None:
        return run.pool_of
    result_of = np.full(n_cells, -1, np.int64)
    result_of[run.rows] = np.arange(len(run.rows))
    return result_of


def _obs(cells: list[Description], key: str) -> dict[str, npt.NDArray[np.generic] | pd.Categorical]:
    return {
        f"{key}_description": np.array([one.text for one in cells], dtype=object),
        f"{key}_status": pd.Categorical(np.array([one.status for one in cells], dtype=object)),
        f"{key}_num_tokens": np.array([one.num_tokens for one in cells], np.int32),
        f"{key}_mean_logprob": np.array([one.mean_logprob for one in cells], np.float32),
        f"{key}_grounding": np.array([one.grounding for one in cells], np.float32),
    }


def _label_obs(
    found: Labelled, cells: list[Description], result_of: npt.NDArray[np.int64], key: str
) -> dict[str, npt.NDArray[np.generic] | pd.Categorical]:
    def spread(texts: tuple[str, ...]) -> npt.NDArray[np.object_]:
        return np.array([texts[place] or None if place >= 0 else None for place in result_of], dtype=object)

    obs: dict[str, npt.NDArray[np.generic] | pd.Categorical] = {
        f"{key}_label": pd.Categorical(spread(found.chosen)),
        f"{key}_score": _spread(found.score[:, None], result_of)[:, 0],
        f"{key}_status": pd.Categorical(np.array([one.status for one in cells], dtype=object)),
    }
    if found.margin is not None:
        obs[f"{key}_runner_up"] = pd.Categorical(spread(found.runners_up))
        obs[f"{key}_margin"] = _spread(found.margin[:, None], result_of)[:, 0]
    if found.labels is not None and found.labels.has_terms:
        obs[f"{key}_cell_ontology_term_id"] = pd.Categorical(spread(found.term_ids))
    if found.answers:
        said = [found.answers[place] if place >= 0 else "" for place in result_of]
        obs[f"{key}_answer"] = np.array(said, dtype=object)  # texts alone, as AnnData writes no None among them
    if found.votes is not None:
        obs[f"{key}_majority_voting"] = pd.Categorical(spread(found.votes.chosen))
        obs[f"{key}_majority_share"] = _spread(found.votes.share[:, None], result_of)[:, 0]
        obs[f"{key}_over_clustering"] = pd.Categorical(spread(found.votes.clusters))
    return obs


def _top_genes(cells: list[Description], key: str) -> dict[str, npt.NDArray[np.generic]]:
    most = max((len(one.top_genes.columns) for one in cells), default=0)
    if not most:
        return {}
    columns = np.full((len(cells), most), -1, np.int32)  # [n_cells, K]
    weights = np.zeros((len(cells), most), np.float32)  # [n_cells, K]
    for row, one in enumerate(cells):
        columns[row, : len(one.top_genes.columns)] = one.top_genes.columns
        weights[row, : len(one.top_genes.weights)] = one.top_genes.weights
    return {f"{key}_top_genes": columns, f"{key}_top_gene_weights": weights}


def _spread(vectors: npt.NDArray[np.float32], result_of: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
    spread = np.full((len(result_of), vectors.shape[1]), np.nan, np.float32)  # [n_cells, d]
    spread[result_of >= 0] = vectors[result_of[result_of >= 0]]
    return spread


def _uns(run: Run) -> dict[str, object]:
    entries = plain({**run.settings, "gene_report": dict(run.gene_report)})
    if run.labels is not None and run.labels.labels is not None:
        entries["labels"] = np.array(run.labels.labels.names, dtype=object)
    if run.pooled_by:
        frame = to_frame(run)
        lists = [name for name in ("top_genes", "top_gene_weights", "named_genes") if name in frame]
        entries |= {"pooled_by": run.pooled_by, "pools": frame.drop(columns=lists)}
        if run.embeddings is not None:
            entries["pool_embeddings"] = run.embeddings
    return entries


def plain(values: Mapping[str, object]) -> dict[str, object]:
    """Return `values` as AnnData's uns can keep it on disk, in any release: None left out, '/' in keys replaced."""
    pairs = ((str(name).replace("/", "|"), _plain(value)) for name, value in values.items())
    return {name: value for name, value in pairs if value is not None}


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float, str, np.generic, np.ndarray)):
        return value
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_plain(item) for item in value]
        numbers = bool(items) and all(isinstance(item, (bool, int, float, np.number)) for item in items)
        return np.array(items) if numbers else np.array([str(item) for item in items], dtype=object)
    return str(value)
