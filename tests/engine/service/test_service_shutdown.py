from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
import pytest
from odd_backend import OddBackend, odd_model
from running_service import Running, assert_sentence, made_service, wait_until

from cellscribe.engine.errors import BackendError, UsageError
from cellscribe.engine.model import Model
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.server import _bound, is_loopback


def body(cells: ad.AnnData, count: int, **more: Any) -> dict[str, Any]:
    return {"source": "demo", "cell_ids": list(cells.obs_names[:count]), "max_new_tokens": 32} | more


@pytest.mark.parametrize("cells_ahead", [0, 4])
def test_what_was_begun_is_finished_and_nothing_new_taken(
    demo: Model, cells: ad.AnnData, described: pd.DataFrame, cells_ahead: int
) -> None:
    backend = OddBackend(demo, cells_ahead=cells_ahead)
    with Running(made_service(odd_model(demo, backend), num_slots=2)) as own, ThreadPoolExecutor(3) as pool:
        backend.gate.clear()
        whole = pool.submit(own.post, "/v1/describe", body(cells, 5))  # some of them wait
        stream = pool.submit(lambda: list(own.events("/v1/describe", body(cells, 2, stream=True))))
        wait_until(lambda: own.service.desk.busy == 2 and backend.count("admit") > 0)
        wait_until(lambda: len(own.service.queue) + len(own.service.desk._ledger.open_orders()) == 7)
        vectors = pool.submit(own.post, "/v1/embed", _only(body(cells, 24)))
        wait_until(lambda: own.service.desk._encoding.has_waiting)
        own.service.shut()
        refused = own.post("/v1/describe", body(cells, 1))
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        assert_sentence(refused.message)
        backend.gate.set()
        found = whole.result().json["results"]
        assert {x["cell_id"]: x["text"] for x in found} == described["description"].iloc[:5].to_dict()
        assert stream.result()[-1][0] == "done"
        assert [one["status"] for one in vectors.result().json["results"]] == ["ok"] * 24
        assert own.service.drain(10)
        assert not own.service.is_ready


def _only(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: asked[name] for name in ("source", "cell_ids")}


def test_an_idle_service_ends_at_once(demo: Model) -> None:
    for cells_ahead in (0, 4):
        with Running(made_service(odd_model(demo, OddBackend(demo, cells_ahead=cells_ahead)))) as own:
            began = time.monotonic()
            assert own.service.drain(10)
            assert time.monotonic() - began < 2


def test_time_to_finish_is_bounded(demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    with Running(made_service(odd_model(demo, backend))) as own, ThreadPoolExecutor(1) as pool:
        backend.gate.clear()
        text = pool.submit(own.post, "/v1/describe", body(cells, 1))
        wait_until(lambda: own.service.desk.busy == 1)
        assert not own.service.drain(0.1)
        backend.gate.set()
        assert text.result().status == 200
        assert own.service.drain(10)


def test_who_asks_for_vectors_too_late_is_refused_at_once(demo: Model, cells: ad.AnnData) -> None:
    with Running(made_service(demo)) as own:
        desk = own.service.desk
        own.service.drain(10)
        with pytest.raises(RequestError, match="shutting down"):
            desk.embed([], "a")
        late = desk._encoding.submit([])  # as between the look at the queue and the end
        assert isinstance(late.exception(1), BackendError)


def test_a_vector_that_nobody_waits_for_does_not_keep_others_from_their_answer(demo: Model) -> None:
    own = made_service(demo)
    gone, waits = own.desk.embed([], "a"), own.desk.embed([], "a")
    gone.cancel()
    own.desk._encoding.refuse(BackendError("the end."))
    assert isinstance(waits.exception(1), BackendError)
    own.close()


def test_threads_and_files_are_gone_afterwards(demo: Model, cells: ad.AnnData) -> None:
    before = threading.active_count()
    with Running(made_service(demo)) as own:
        folder = own.service.files._folder.name
        own.post("/v1/describe", body(cells, 2))
    gc.collect()
    wait_until(lambda: threading.active_count() <= before + 1)
    assert not Path(folder).exists()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.5", "::1", "[::1]"])
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.example.org"])
def test_everything_else_is_reached_from_elsewhere(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", ["256.1.1.1", "a" * 300, "ü" * 100, "203.0.113.1", "::g"], ids=["number", "long", "umlauts", "other", "v6"]
)
def test_an_address_that_cannot_be_listened_on(host: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be listened on \(.+\); choose another --host or --port\.$"):
        _bound(host, 0)


def test_a_port_in_use_is_said() -> None:
    taken = _bound("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(UsageError, match=f"127.0.0.1 port {port} cannot be listened on"):
        _bound("127.0.0.1", port)
    taken.close()
    _bound("[::1]", 0).close()
