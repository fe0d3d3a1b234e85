from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from odd_backend import OddBackend, odd_model
from running_service import Running, assert_sentence, made_service, wait_until
from test_gene_maps import counts_of

import cellscribe as cs
from cellscribe.engine.model import Model
from cellscribe.engine.types import Sampling

EMPTY = {"id": "empty", "genes": {}}


@pytest.fixture
def odd(demo: Model) -> Iterator[Any]:
    """Start services over odd backends: odd(OddBackend(demo, pause=0.01), num_slots=2)."""
    open_ones: list[Running] = []

    def start(backend: OddBackend, **options: Any) -> Running:
        found = Running(made_service(odd_model(demo, backend), **options))
        open_ones.append(found.__enter__())
        return found

    yield start
    for one in open_ones:
        one.service.desk._backend.gate.set()
        one.__exit__()


def gene_map(adata: ad.AnnData, row: int, values: np.ndarray, *, is_reversed: bool = False) -> dict[str, float]:
    found = {gene: float(x) for gene, x in zip(adata.var_names, values[row], strict=True) if x}
    return dict(reversed(found.items())) if is_reversed else found


def texts(answer: Any) -> dict[str, str]:
    assert answer.status == 200, answer.body
    assert all(one["status"] == "ok" for one in answer.json["results"])
    return {one["cell_id"]: one["text"] for one in answer.json["results"]}


def picked(cells: ad.AnnData, count: int = 1, at: int = 0, **more: Any) -> dict[str, Any]:
    return {"source": "demo", "cell_ids": list(cells.obs_names[at : at + count]), "max_new_tokens": 32} | more


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


def test_a_client_that_leaves_frees_its_slot_before_the_next_step(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=2)
    backend.pause = 0.01
    sock = own.opened("/v1/describe", picked(cells, stream=True, max_new_tokens=256))
    sock.recv(100)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(own.post, "/v1/describe", picked(cells, at=1, max_new_tokens=100))
        wait_until(lambda: own.service.desk.busy == 2)
        backend.gate.clear()  # hold the step in work
        sock.close()
        wait_until(lambda: any(order.request.is_gone for _, order in own.service.desk._ledger.open_orders()))
        before = backend.count("step")
        backend.gate.set()
        wait_until(lambda: backend.count("step") > before + 3)
        slots = [active for what, active in backend.log if what == "step"]
        assert [len(active) for active in slots[before + 1 : before + 4]] == [1, 1, 1]  # after the one in work
        assert other.result().status == 200
    assert own.figure('cellscribe_cancelled_total{reason="client"}') == 1
    assert own.service.desk.busy == 0


def test_a_client_that_leaves_takes_its_cells_out_of_the_queue(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo, pause=0.01)
    own = odd(backend, num_slots=1)
    first = own.opened("/v1/describe", picked(cells, stream=True, max_new_tokens=256))
    wait_until(lambda: own.service.desk.busy == 1)
    second = own.opened("/v1/describe", picked(cells, 9, at=1))
    wait_until(lambda: len(own.service.queue) >= 1)
    second.close()
    wait_until(lambda: len(own.service.queue) == 0)
    assert own.service.desk.busy == 1
    first.close()
    wait_until(lambda: own.service.desk.busy == 0)
    wait_until(lambda: own.service.desk._ledger.open_orders() == [])
    assert own.figure('cellscribe_cancelled_total{reason="client"}') == 10
    assert texts(own.post("/v1/describe", picked(cells)))


def test_an_embedding_that_nobody_waits_for_is_given_up(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1)
    with ThreadPoolExecutor(1) as pool:
        backend.gate.clear()
        other = pool.submit(own.post, "/v1/describe", picked(cells))
        wait_until(lambda: backend.count("admit") == 1)
        encoded = backend.count("encode")
        sock = own.opened("/v1/embed", {"source": "demo", "cell_ids": list(cells.obs_names)})
        wait_until(lambda: own.service.desk._encoding.has_waiting)
        sock.close()
        wait_until(lambda: all(one.future.cancelled() for one in list(own.service.desk._encoding._waiting)))
        backend.gate.set()
        assert other.result().status == 200
        wait_until(lambda: not own.service.desk._encoding.has_waiting)
    assert backend.count("encode") == encoded


@pytest.mark.parametrize("cells_ahead", [0, 4])
def test_texts_go_on_while_many_cells_are_embedded(odd: Any, demo: Model, cells: ad.AnnData, cells_ahead: int) -> None:
    backend = OddBackend(demo, cells_ahead=cells_ahead)
    own = odd(backend, num_slots=1)
    with ThreadPoolExecutor(3) as pool:
        backend.gate.clear()
        text = pool.submit(own.post, "/v1/describe", picked(cells, max_new_tokens=60))
        wait_until(lambda: backend.count("admit") == 1)
        body = {"source": "demo", "cell_ids": list(cells.obs_names)}
        vectors = [pool.submit(own.post, "/v1/embed", body) for _ in range(2)]
        wait_until(lambda: len(own.service.desk._encoding._waiting) == 2 or cells_ahead)
        at = len(backend.log)
        backend.gate.set()
        assert all(len(one.result().json["results"]) == 24 for one in vectors)
        assert text.result().status == 200
    done = [what for what, _ in backend.log[at:]]
    if not cells_ahead:
        assert done.count("encode") == 6
        assert "encode encode encode" not in " ".join(done)  # two a round at most


def test_deadlines_in_the_queue_and_in_work(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo, pause=0.02)
    own = odd(backend, num_slots=1)
    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(own.post, "/v1/describe", picked(cells, max_new_tokens=256, deadline_s=0.6))
        wait_until(lambda: own.service.desk.busy == 1)
        waiting = pool.submit(own.post, "/v1/describe", picked(cells, at=1, deadline_s=0.2))
        late, latest = waiting.result(), working.result()
    assert (late.status, latest.status) == (504, 504)
    assert "while the cell waited for a slot" in late.message
    assert "while the text was written" in latest.message
    for one in (late, latest):
        assert one.json["error"]["type"] == "timeout_error"
        assert_sentence(one.message)
    wait_until(lambda: own.service.desk.busy == 0)
    assert own.figure('cellscribe_cancelled_total{reason="deadline"}') == 2
    assert texts(own.post("/v1/describe", picked(cells, deadline_s=30)))
    assert own.post("/v1/embed", {"cells": [{"genes": {"LTB": 1}}], "deadline_s": 1e-9}).status == 504


def test_a_full_queue_is_429_and_what_never_fits_413(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1, queue_cells=10)
    backend.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(own.post, "/v1/describe", picked(cells, 1))
        wait_until(lambda: backend.count("admit") == 1)
        second = pool.submit(own.post, "/v1/describe", picked(cells, 10, at=1))
        wait_until(lambda: len(own.service.queue) == 10)
        full = own.post("/v1/describe", picked(cells, 1, at=20))
        assert (full.status, full.json["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(full.headers["retry-after"]) <= 60
        assert_sentence(full.message)
        assert own.post("/v1/describe", picked(cells, 11)).status == 413
        assert own.figure("cellscribe_queue_cells") == 10
        assert own.figure("cellscribe_slots_in_use") == 1
        backend.gate.set()
        assert [first.result().status, second.result().status] == [200, 200]


@pytest.mark.parametrize("cells_ahead", [0, 4])
@pytest.mark.parametrize("what", ["encode", "admit", "step"])
def test_a_device_that_fails_once_is_tried_again(
    odd: Any, demo: Model, cells: ad.AnnData, described: pd.DataFrame, what: str, cells_ahead: int
) -> None:
    backend = OddBackend(demo, cells_ahead=cells_ahead)
    own = odd(backend, num_slots=2)
    backend.failing.add(what)
    began = time.monotonic()
    found = own.post("/v1/describe", picked(cells, 2))
    assert time.monotonic() - began < 5
    assert found.status == 500
    assert found.json["error"] == {
        "message": "the model failed (the device is gone); try again.", "type": "server_error", "param": None,
        "code": 500,
    }  # fmt: skip
    backend.failing.clear()
    assert texts(own.post("/v1/describe", picked(cells, 2))) == described["description"].iloc[:2].to_dict()
    assert own.get("/health/ready").status == 200
    assert own.service.desk.busy == 0


def test_an_unforeseen_failure_tells_nothing_of_the_inside(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend)
    backend.failing, backend.error = {"step", "encode"}, KeyError("/root/secret.py")
    events = list(own.events("/v1/describe", picked(cells, stream=True)))
    assert [name for name, _ in events] == ["start", "error"]
    assert events[-1][1]["error"]["message"] == "the model failed (KeyError); try again."
    found = own.post("/v1/embed", {"cells": [{"genes": {"LTB": 1}}]})
    assert (found.status, "secret" in found.message) == (500, False)
    assert_sentence(found.message)


@pytest.mark.parametrize("what", ["encode", "step"])
def test_a_device_that_fails_again_and_again_is_given_up(odd: Any, demo: Model, cells: ad.AnnData, what: str) -> None:
    backend = OddBackend(demo)
    own = odd(backend)
    for round_ in range(2):  # a text in between begins the count anew
        backend.failing = {what}
        statuses = [own.post("/v1/describe", picked(cells)).status for _ in range(2 + round_)]
        assert statuses == [500] * len(statuses)
        if round_ == 0:
            backend.failing = set()
            assert own.post("/v1/describe", picked(cells)).status == 200
    wait_until(lambda: not own.service.is_ready)
    for path, status in (("/health/ready", 503), ("/health/live", 503), ("/metrics", 200), ("/v1/models", 200)):
        assert own.get(path).status == status
    assert own.get("/health/ready").json == {"status": "failed"}
    for path in ("/v1/describe", "/v1/embed"):
        found = own.post(path, {"cells": [{"genes": {"LTB": 1}}]})
        assert (found.status, "restart the service" in found.message) == (503, True)
        assert_sentence(found.message)


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


def test_clients_take_turns_at_the_slots(odd: Any, demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    own = odd(backend, num_slots=1, keys=("a", "b"))
    backend.gate.clear()
    finished: list[str] = []

    def ask(key: str, count: int, at: int) -> None:
        body = picked(cells, count, at=at, max_new_tokens=2)
        assert own.post("/v1/describe", body, headers={"Authorization": f"Bearer {key}"}).status == 200
        finished.append(key)

    many = threading.Thread(target=ask, args=("a", 20, 0))
    many.start()
    wait_until(lambda: len(own.service.queue) > 5)
    few = threading.Thread(target=ask, args=("b", 1, 20))
    few.start()
    wait_until(lambda: len(own.service.queue._lines) == 2)
    backend.gate.set()
    many.join(20)
    few.join(20)
    assert finished == ["b", "a"]
