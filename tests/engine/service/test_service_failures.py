"""A device that fails: what clients are told, when it is tried again, and when no more."""

from __future__ import annotations

import time
from typing import Any

import anndata as ad
import pandas as pd
import pytest
from odd_backend import OddBackend
from picking import picked, texts
from running_service import assert_sentence, wait_until

from cellscribe.engine.model import Model


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
