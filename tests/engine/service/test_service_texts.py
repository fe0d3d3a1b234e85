"""Texts and vectors of the service are those of the engine, however the cells come and whoever else asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from odd_backend import OddBackend
from picking import EMPTY, gene_map, picked, texts
from running_service import Running, wait_until
from test_gene_maps import counts_of

import cellscribe as cs
from cellscribe.engine.model import Model
from cellscribe.engine.types import Sampling


def test_texts_and_figures_are_those_of_the_engine(
    running: Running, cells: ad.AnnData, described: pd.DataFrame
) -> None:
    found = running.post("/v1/describe", picked(cells, 24))
    assert texts(found) == described["description"].to_dict()
    for told in found.json["results"]:
        own = described.loc[told["cell_id"]]
        assert [one["gene"] for one in told["top_genes"]] == list(own["top_genes"])
        np.testing.assert_allclose([x["weight"] for x in told["top_genes"]], own["top_gene_weights"], atol=1e-5)
        assert told["tokens"] == own["num_tokens"]
        assert told["mean_logprob"] == pytest.approx(own["mean_logprob"], abs=1e-5)
        assert (told["finish_reason"], told["named_genes"]) == (own["finish_reason"], list(own["named_genes"]))
        assert 0 <= told["queue_ms"] <= told["time_to_first_token_ms"]
    assert found.json["usage"] == {"cells": 24, "completion_tokens": int(described["num_tokens"].sum())}


def test_samplings_that_share_the_slots_do_not_mix(running: Running, cells: ad.AnnData) -> None:
    own = [Sampling(), Sampling(0.9, 0.7, 1), Sampling(0.9, 0.7, 2), Sampling(0.5, 1.5, 1), Sampling(1.0, 1.0, 7)]
    few = cells[:5].copy()
    expected = [
        cs.load("demo", seed=one.seed).describe(few, sampling=one, max_new_tokens=32, copy=True)["description"]
        for one in own  # whose seeds key ties, too, as those of the command line do
    ]
    assert len({tuple(one) for one in expected}) == len(own)

    def ask(sampling: Sampling) -> dict[str, str]:
        drawn = {} if sampling.is_greedy else {"top_p": sampling.top_p, "temperature": sampling.temperature}
        return texts(running.post("/v1/describe", picked(cells, 5, seed=sampling.seed, **drawn)))

    with ThreadPoolExecutor(len(own)) as pool:
        found = list(pool.map(ask, own))
    assert found == [one.to_dict() for one in expected]


def test_gene_maps_are_the_cells_of_a_file(running: Running, demo: Model, cells: ad.AnnData) -> None:
    few, counts = cells[:4].copy(), counts_of(cells)[:4]
    few.X = counts
    expected = demo.describe(few, max_new_tokens=32, copy=True)["description"].to_dict()
    names = list(cells.obs_names[:4])
    whole = [{"id": name, "genes": gene_map(cells, i, counts)} for i, name in enumerate(names)]
    turned = [{"id": name, "genes": gene_map(cells, i, counts, is_reversed=True)} for i, name in enumerate(names)]
    sparse = [
        {"id": name, "indices": np.flatnonzero(row).tolist(), "values": row[row > 0].tolist()}
        for name, row in zip(names, counts, strict=True)
    ]
    for given in (whole, turned, sparse):
        names_of = {"gene_names": list(cells.var_names)} if given is sparse else {}
        body = {"cells": given, "max_new_tokens": 32} | names_of
        assert texts(running.post("/v1/describe", body)) == expected
        assert texts(running.post("/v1/describe", body | {"cells": given[:1]})) == {names[0]: expected[names[0]]}


def test_logarithms_by_name_are_the_cells_of_a_file(
    running: Running, cells: ad.AnnData, described: pd.DataFrame
) -> None:
    values = cells.X[:2].toarray()
    given = [{"id": cells.obs_names[i], "genes": gene_map(cells, i, values)} for i in range(2)]
    for kind in ("auto", "lognorm"):
        found = texts(running.post("/v1/describe", {"cells": given, "values": kind, "max_new_tokens": 32}))
        assert found == described["description"].iloc[:2].to_dict()


def test_vectors_are_those_of_the_engine(running: Running, demo: Model, cells: ad.AnnData) -> None:
    expected = demo.embed(cells, copy=True)
    found = running.post("/v1/embed", {"source": "demo", "cell_ids": list(cells.obs_names)}).json
    assert found["dimensions"] == expected.shape[1]
    vectors = np.array([one["embedding"] for one in found["results"]])
    np.testing.assert_allclose(vectors, expected, atol=2e-7)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_cell_without_counts_fails_alone_and_at_once(running: Running, cells: ad.AnnData) -> None:
    good = {"id": "good", "genes": {"CD3D": 5, "LTB": 2}}
    for given in ([EMPTY], [EMPTY, good], [good, EMPTY]):
        for path in ("/v1/describe", "/v1/embed"):
            found = running.post(path, {"cells": given}).json["results"]
            status = {one["cell_id"]: one["status"] for one in found}
            assert status["empty"] == "failed: it has no counts"
            assert status.get("good", "ok") == "ok"
    (told,) = running.post("/v1/describe", {"cells": [EMPTY]}).json["results"]
    assert (told["text"], told["finish_reason"], told["mean_logprob"], told["top_genes"]) == ("", None, None, [])
    assert told["queue_ms"] is told["time_to_first_token_ms"] is told["latency_ms"] is None


@pytest.mark.parametrize("cells_ahead", [0, 4])
def test_a_cell_without_counts_does_not_wait_for_the_texts_of_others(
    odd: Any, demo: Model, cells: ad.AnnData, cells_ahead: int
) -> None:
    backend = OddBackend(demo, pause=0.02, cells_ahead=cells_ahead)
    own = odd(backend, num_slots=2)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(own.post, "/v1/describe", picked(cells, max_new_tokens=60))
        wait_until(lambda: own.service.desk.busy == 1)
        (told,) = own.post("/v1/describe", {"cells": [EMPTY]}).json["results"]
        assert told["status"] == "failed: it has no counts"
        assert not other.done()
        assert other.result().status == 200


def test_vectors_that_are_not_finite_fail_their_cell(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    class Spoiling(OddBackend):
        def encode(self, batch: Any) -> Any:
            found = super().encode(batch)
            found.cell[[i for i, name in enumerate(batch.cell_ids) if name == cells.obs_names[1]]] = np.nan
            return found

    own = odd(Spoiling(demo))
    found = own.post("/v1/describe", picked(cells, 3)).json["results"]
    assert [one["status"] for one in found] == ["ok", "failed: its embedding is not finite", "ok"]
    found = own.post("/v1/embed", {"source": "demo", "cell_ids": list(cells.obs_names[:3])}).json["results"]
    assert [one["status"] for one in found] == ["ok", "failed: its embedding is not finite", "ok"]
    assert found[1]["embedding"] is None
