from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellscribe.engine.cells import open_cells
from cellscribe.engine.errors import BackendError, InputError, UsageError
from cellscribe.engine.labelling import overcluster
from cellscribe.engine.labelling.majority import Voting, majority_vote, with_votes
from cellscribe.engine.labelling.overcluster import over_cluster, resolution_for
from cellscribe.engine.labels import Labelled, Labels
from cellscribe.engine.output.anndata import annotate
from cellscribe.engine.output.fields import fields_of
from cellscribe.engine.output.files import write_run
from cellscribe.engine.output.frame import to_frame
from cellscribe.engine.output.run import Run
from cellscribe.engine.types import Description

LABELS = ("B", "B", "T", "T", "T", "", "A", "B")
CLUSTERS = ("1", "1", "1", "2", "2", "2", "3", "3")


def test_a_cluster_takes_its_most_frequent_label() -> None:
    votes = majority_vote(LABELS, CLUSTERS)
    assert votes.chosen == ("B", "B", "B", "T", "T", "T", "A", "A")  # A and B are level in 3: alphabetical
    np.testing.assert_allclose(votes.share, [2 / 3] * 3 + [1.0] * 3 + [0.5] * 2)


def test_clusters_that_disagree_are_heterogeneous() -> None:
    votes = majority_vote(LABELS, CLUSTERS, min_share=0.6)
    assert votes.chosen == ("B", "B", "B", "T", "T", "T", "Heterogeneous", "Heterogeneous")


def test_cells_without_cluster_and_clusters_without_label_get_none() -> None:
    votes = majority_vote(("B", "T", ""), ("", "1", "2"))
    assert votes.chosen == ("", "T", "")
    np.testing.assert_array_equal(votes.share, np.array([np.nan, 1, np.nan], np.float32))


@pytest.mark.slow
def test_clusters_of_vectors_follow_their_groups_and_are_the_same_each_time() -> None:
    pytest.importorskip("igraph", reason="the clusters extra is not installed")
    pytest.importorskip("scanpy", reason="the clusters extra is not installed")
    draws = np.random.default_rng(0)
    centres = np.repeat(np.eye(8, dtype=np.float32)[:3], 40, axis=0)
    vectors = centres + draws.normal(0, 0.02, centres.shape).astype(np.float32)
    vectors[5] = np.nan
    clusters = over_cluster(vectors)
    assert clusters[5] == ""
    assert clusters == over_cluster(vectors)
    groups = [set(clusters[start : start + 40]) - {""} for start in (0, 40, 80)]
    assert not groups[0] & groups[1]
    assert not groups[1] & groups[2]
    assert over_cluster(vectors[:8]) == ("0",) * 5 + ("",) + ("0",) * 2


def test_resolutions_grow_with_cells() -> None:
    assert [resolution_for(number) for number in (4_999, 5_000, 150_000, 10**6)] == [5.0, 10.0, 25.0, 30.0]


def test_missing_igraph_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "igraph", None)
    with pytest.raises(
        BackendError, match=r"clusters need igraph; install it with: pip install 'cellscribe\[clusters\]'"
    ):
        overcluster.over_cluster(np.eye(20, dtype=np.float32))


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    obs = pd.DataFrame({"leiden": pd.Categorical(["1", "1", "2", None])}, index=list("abcd"))
    path = tmp_path / "cells.h5ad"
    ad.AnnData(np.ones((4, 3), np.float32), obs=obs, var=pd.DataFrame(index=["X", "Y", "Z"])).write_h5ad(path)
    return path


def _run(rows: list[int]) -> Run:
    labels = Labelled(None, tuple("BTT"[: len(rows)]), np.ones(len(rows), np.float32))
    return Run(np.array(rows), tuple(Description(str(row), "B") for row in rows), labels=labels)


def test_votes_go_into_obs_and_tables(cells: Path) -> None:
    with open_cells(cells) as source:
        run = with_votes(_run([3, 0, 1]), source, Voting("leiden"))
    assert run.labels is not None
    assert run.labels.votes is not None
    assert run.labels.votes.clusters == ("", "1", "1")
    assert run.settings["majority_vote"] == "leiden"
    frame = to_frame(run)
    assert frame["majority_voting"].tolist() == ["", "T", "T"]
    obs = fields_of(run, 4).obs
    assert [one if isinstance(one, str) else None for one in obs["cellscribe_majority_voting"]] == [
        "T",
        "T",
        None,
        None,
    ]
    assert obs["cellscribe_majority_share"][0] == 1.0
    assert list(obs["cellscribe_over_clustering"])[:2] == ["1", "1"]


def test_what_stood_beside_earlier_labels_goes_with_them(cells: Path, tmp_path: Path) -> None:
    terms = Labels(("B", "T"), ("CL:0000236", "CL:0000084"))
    with open_cells(cells) as source:
        first = _run([0, 1, 2])
        scored = Labelled.of_scores(terms, ("B", "T", "T"), np.full((3, 2), 0.5, np.float32))
        first = with_votes(replace(first, labels=scored), source, Voting("leiden"))
    write_run(first, tmp_path / "first.h5ad", cells, "cellscribe")
    write_run(_run([0, 1, 2]), tmp_path / "second.h5ad", tmp_path / "first.h5ad", "cellscribe")
    in_memory = ad.read_h5ad(tmp_path / "first.h5ad")
    assert in_memory.obs["cellscribe_cell_ontology_term_id"].tolist()[:2] == ["CL:0000236", "CL:0000084"]
    assert "cellscribe_label_scores" in in_memory.obsm
    annotate(in_memory, _run([0, 1, 2]))
    for found in (ad.read_h5ad(tmp_path / "second.h5ad"), in_memory):
        assert found.obs.columns.tolist() == ["leiden", "cellscribe_label", "cellscribe_score", "cellscribe_status"]
        assert "cellscribe_label_scores" not in found.obsm


def test_wrong_wishes_are_one_sentence(cells: Path) -> None:
    with open_cells(cells) as source:
        with pytest.raises(InputError, match="has no obs column 'louvain'"):
            with_votes(_run([0]), source, Voting("louvain"))
        with pytest.raises(UsageError, match="clusters vectors, which this bundle's labels come without"):
            with_votes(replace(_run([0]), embeddings=None), source, Voting("auto"))
    with pytest.raises(UsageError, match=r"the least share of a cluster is 1\.5"):
        Voting("leiden", 1.5)
