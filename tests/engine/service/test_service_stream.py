from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from odd_backend import OddBackend, odd_model
from running_service import Running, made_service, wait_until

from cellscribe.engine.model import Model
from cellscribe.engine.service import answers

CLIENTS = 100
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: on, 0 s


def body(cells: ad.AnnData, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"source": "demo", "cell_ids": list(cells.obs_names[:count]), "max_new_tokens": 32, "stream": True} | more


def test_a_stream_tells_all_in_order(running: Running, cells: ad.AnnData, described: pd.DataFrame) -> None:
    events = list(running.events("/v1/describe", body(cells, 3)))
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("start", "done")
    assert set(names[1:-1]) == {"token", "result"}
    start, done = events[0][1], events[-1][1]
    assert start["model"] == "demo"
    assert start["cells"] == list(cells.obs_names[:3])
    assert start["settings"] == {"sampling": "greedy", "max_new_tokens": 32, "seed": 0}
    assert start["genes"]["known"] > 0
    for i, name in enumerate(start["cells"]):
        tokens = [told for kind, told in events if kind == "token" and told["cell"] == i]
        (result,) = [told for kind, told in events if kind == "result" and told["cell"] == i]
        assert [one["i"] for one in tokens] == list(range(result["tokens"]))
        assert "".join(one["text"] for one in tokens).strip() == result["text"] == described.loc[name, "description"]
        assert np.mean([one["logprob"] for one in tokens]) == pytest.approx(result["mean_logprob"], abs=1e-5)
        last = [gene for gene, _ in tokens[-1]["running"]]
        assert last == [one["gene"] for one in result["top_genes"]]
        assert not any("weights" in one for one in tokens)
    assert done["usage"] == {"cells": 3, "completion_tokens": names.count("token")}


def test_a_stream_says_what_the_whole_answer_says(running: Running, cells: ad.AnnData) -> None:
    drawn = {"temperature": 1.0, "top_p": 0.8, "seed": 5}
    events = running.events("/v1/describe", body(cells, 2, **drawn))
    results = {told.pop("cell"): told for name, told in events if name == "result"}
    whole = running.post("/v1/describe", body(cells, 2, **drawn, stream=False)).json["results"]
    for i, one in enumerate(whole):
        for key in ("cell_id", "status", "text", "tokens", "finish_reason", "top_genes", "named_genes", "grounding"):
            assert results[i][key] == one[key]


def test_a_grid_shows_where_each_token_looked(running: Running, cells: ad.AnnData) -> None:
    events = list(running.events("/v1/describe", body(cells, grid=True, max_new_tokens=4)))
    (cell,) = [told for name, told in events if name == "cell"]
    assert cell["cell_id"] == cells.obs_names[0]
    assert set(cell["grid"]) <= set(cells.var_names)
    for told in (told for name, told in events if name == "token"):
        weights = np.frombuffer(base64.b64decode(told["weights"]), np.uint8)
        assert len(weights) == len(cell["grid"])
        assert weights.max() == 255
        assert cell["grid"][int(weights.argmax())] == told["genes"][0][0]


def test_top_genes_are_as_many_as_asked_for(running: Running, cells: ad.AnnData) -> None:
    for count in (0, 3):
        events = list(running.events("/v1/describe", body(cells, top_genes=count, max_new_tokens=2)))
        assert all(len(told["genes"]) == count for name, told in events if name == "token")
        assert all(len(told["top_genes"]) == count for name, told in events if name == "result")


def test_a_cell_that_fails_does_not_end_the_stream(running: Running) -> None:
    given = {"cells": [{"id": "empty", "genes": {}}, {"id": "good", "genes": {"LTB": 3}}]}
    events = list(running.events("/v1/describe", given | {"stream": True, "max_new_tokens": 2}))
    results = {told["cell_id"]: told["status"] for name, told in events if name == "result"}
    assert results == {"empty": "failed: it has no counts", "good": "ok"}
    assert events[-1] == ("done", {"usage": {"cells": 2, "completion_tokens": 2}})


def test_what_is_wrong_is_said_before_a_stream_begins(running: Running) -> None:
    found = running.post("/v1/describe", {"source": "demo", "cell_ids": ["nobody"], "stream": True})
    assert found.status == 404
    assert found.headers["content-type"] == "application/json"


def test_headers_of_a_stream_keep_others_from_holding_it_back(running: Running, cells: ad.AnnData) -> None:
    found = running.post("/v1/describe", body(cells, max_new_tokens=1))
    assert found.headers["content-type"].startswith("text/event-stream")
    assert found.headers["cache-control"] == "no-store"
    assert found.headers["x-accel-buffering"] == "no"
    assert found.body.endswith(b"\n\n")


def test_silence_is_filled_with_heartbeats(demo: Model, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellscribe.engine.service.awaiting._HEARTBEAT_S", 0.05)
    backend = OddBackend(demo)
    with Running(made_service(odd_model(demo, backend))) as own:
        backend.gate.clear()
        with own.opened("/v1/describe", body(cells)) as sock:
            told = b""
            while told.count(b": waiting\n\n") < 3:
                told += sock.recv(4_096)
            backend.gate.set()
            while b"event: done" not in told:
                told += sock.recv(65_536)


def test_a_deadline_ends_a_stream_with_an_error(demo: Model, cells: ad.AnnData) -> None:
    with Running(made_service(odd_model(demo, OddBackend(demo, pause=0.02)))) as own:
        events = list(own.events("/v1/describe", body(cells, deadline_s=0.3, max_new_tokens=256)))
        name, told = events[-1]
        assert (name, told["error"]["code"], told["error"]["type"]) == ("error", 504, "timeout_error")
        assert own.figure('cellscribe_errors_total{kind="timeout_error"}') == 1
        wait_until(lambda: own.service.desk.busy == 0)


def test_a_hundred_clients_that_vanish_leave_nothing_behind(
    serving: Callable[..., Running], cells: ad.AnnData, described: pd.DataFrame
) -> None:
    own = serving(num_slots=8)
    sockets = [own.opened("/v1/describe", body(cells, 4, max_new_tokens=256)) for _ in range(CLIENTS)]
    sockets[0].recv(200)
    wait_until(lambda: own.service.desk.busy == 8)
    for i, sock in enumerate(sockets):
        if i % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if i % 3:
            sock.recv(50)
        sock.close()
    began = time.monotonic()
    wait_until(lambda: own.service.desk.busy == 0 and len(own.service.queue) == 0)
    assert time.monotonic() - began < 10
    wait_until(lambda: own.service.desk._ledger.open_orders() == [])
    assert own.figure("cellscribe_slots_in_use") == own.figure("cellscribe_queue_cells") == 0
    found = own.post("/v1/describe", body(cells, 2, stream=False)).json["results"]
    assert [one["text"] for one in found] == described["description"].iloc[:2].tolist()


def test_events_are_one_line_of_json() -> None:
    told = answers.event("token", {"text": "a\nb\r\n\u2028é", "nothing": None})
    assert told == 'event: token\ndata: {"text":"a\\nb\\r\\n\u2028é","nothing":null}\n\n'.encode()
