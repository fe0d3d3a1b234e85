from __future__ import annotations

import math
from typing import Any

import pytest
from running_service import Running

BODY = {"cells": [{"id": "c1", "genes": {"CD3D": 6, "LTB": 9}}, {"id": "empty", "genes": {}}], "max_new_tokens": 5}
NAMES = (
    "requests_total", "errors_total", "queue_cells", "slots", "slots_in_use", "tokens_total", "cells_total",
    "time_to_first_token_seconds_bucket", "time_per_token_seconds_bucket", "cell_latency_seconds_bucket",
    "queue_seconds_bucket", "cancelled_total", "uploads", "build_info",
)  # fmt: skip


def figures(running: Running) -> dict[str, float]:
    lines = running.get("/metrics").body.decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


def test_every_figure_has_its_name(running: Running) -> None:
    running.post("/v1/describe", BODY)
    running.get("/nothing")
    found = running.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    text = found.body.decode()
    for name in NAMES:
        declared = name.removesuffix("_bucket").removesuffix("_total") if name != "cancelled_total" else "cancelled"
        assert f"# TYPE cellscribe_{declared}" in text, name
    assert 'bundle="demo"' in text
    assert 'family="lingocell"' in text
    assert "process_resident_memory_bytes" in text


def test_the_figures_move(running: Running) -> None:
    before = figures(running)
    assert running.post("/v1/describe", BODY).status == 200
    assert running.post("/v1/embed", {"cells": BODY["cells"]}).status == 200
    assert running.post("/v1/embed", {"cells": []}).status == 422
    after = figures(running)

    def gained(name: str) -> float:
        return after.get(f"cellscribe_{name}", 0.0) - before.get(f"cellscribe_{name}", 0.0)

    assert gained("tokens_total") == 5
    assert gained('cells_total{status="ok",task="describe"}') == 1
    assert gained('cells_total{status="failed",task="describe"}') == 1
    assert gained('cells_total{status="ok",task="embed"}') == 1
    assert gained('cells_total{status="failed",task="embed"}') == 1
    assert gained("time_to_first_token_seconds_count") == 1
    assert gained("time_per_token_seconds_count") == 1
    assert gained('cell_latency_seconds_count{task="describe"}') == 2
    assert gained("queue_seconds_count") == 1
    assert gained('requests_total{code="200",route="/v1/describe"}') == 1
    assert gained('requests_total{code="422",route="/v1/embed"}') == 1
    assert gained('errors_total{kind="invalid_request_error"}') == 1
    assert after["cellscribe_slots"] == 8
    assert after["cellscribe_slots_in_use"] == 0
    assert after["cellscribe_queue_cells"] == 0
    assert not [name for name, value in after.items() if math.isnan(value)]


@pytest.mark.parametrize("path", ["/nothing", "/v1/models/a", "/v1/models/b", "/page/c", "/v1/uploads/d"])
def test_addresses_that_clients_make_up_are_not_remembered(running: Running, path: str) -> None:
    running.get(path)
    running.call("DELETE", path)
    routes = {name.partition('route="')[2].partition('"')[0] for name in figures(running) if "route=" in name}
    known: Any = {"other", *(route.path for route in _routes(running))}
    assert routes <= known


def _routes(running: Running) -> list[Any]:
    from cellscribe.engine.service.routes import chat, describe, meta, page

    return [route for module in (chat, describe, meta, page) for route in module.router.routes]
