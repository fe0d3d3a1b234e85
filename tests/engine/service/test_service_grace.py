"""The time to finish is over before all is answered: what is left is refused in the usual words."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anndata as ad
import pytest
from called import held, wait_for
from odd_backend import OddBackend, odd_model
from picking import picked
from running_service import Answer, Running, assert_sentence, made_service, wait_until

from cellscribe.engine.model import Model, load
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.service.choosing import service_of
from cellscribe.engine.service.service import ServiceSettings

GRACE_S = 1.0


def assert_refused(found: Answer) -> None:
    assert (found.status, found.json["error"]["type"]) == (503, "unavailable_error"), found.body
    assert found.headers["retry-after"] == "10"
    assert "its time to finish this was over" in found.message
    assert_sentence(found.message)


def test_texts_vectors_and_bodies_under_way_are_refused_in_order(demo: Model, cells: ad.AnnData) -> None:
    backend = OddBackend(demo)
    service = made_service(odd_model(demo, backend), num_slots=2)
    with Running(service, grace_s=GRACE_S) as own, ThreadPoolExecutor(4) as pool:
        backend.gate.clear()
        whole = pool.submit(own.post, "/v1/describe", picked(cells, 5))
        stream = pool.submit(lambda: list(own.events("/v1/describe", picked(cells, 2, stream=True))))
        asked = {name: value for name, value in picked(cells, 4).items() if name != "max_new_tokens"}
        vectors = pool.submit(own.post, "/v1/embed", asked)
        wait_until(lambda: len(service.queue) + len(service.desk._ledger.open_orders()) == 11)
        with own.opened("/v1/describe", {}, {"Content-Length": 10**6}) as sending:
            began = time.monotonic()
            own.end()
            for one in (whole, vectors):
                assert_refused(one.result())
            kind, told = stream.result()[-1]
            assert (kind, told["error"]["code"]) == ("error", 503)
            assert b"503" in sending.recv(4_000).split(b"\r\n")[0]
        assert GRACE_S / 2 < time.monotonic() - began < GRACE_S + 1
        backend.gate.set()
        assert service.desk.join(10)


def test_a_desk_of_calls_refuses_what_is_left(cells: ad.AnnData) -> None:
    service: Any = service_of(load("demo-c2s", threads=2), packaged_cells(), ServiceSettings(num_slots=2))
    ids = list(cells.obs_names[:3])
    with Running(service, grace_s=GRACE_S) as own, ThreadPoolExecutor(2) as pool, held(service):
        whole = pool.submit(own.post, "/v1/annotate", {"source": "demo", "cell_ids": ids})
        part = {"type": "cell", "source": "demo", "cell_id": ids[0]}
        talk = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Which cell?"}, part]}]}
        stream = pool.submit(lambda: list(own.events("/v1/chat/completions", talk | {"stream": True})))
        wait_for(lambda: len(service.queue) == 4)
        own.end()
        assert_refused(whole.result())
        assert stream.result()[-1][1]["error"]["code"] == 503


@pytest.mark.parametrize("grace_s", [0.0, 0.2])
def test_a_short_time_is_enough_for_the_refusal(demo: Model, cells: ad.AnnData, grace_s: float) -> None:
    backend = OddBackend(demo)
    service = made_service(odd_model(demo, backend))
    with Running(service, grace_s=grace_s) as own, ThreadPoolExecutor(1) as pool:
        backend.gate.clear()
        whole = pool.submit(own.post, "/v1/describe", picked(cells, 1))
        wait_until(lambda: service.desk.busy == 1)
        own.end()
        assert_refused(whole.result())
        backend.gate.set()
