from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi")

from cellscribe.engine.service.json_text import Json, json_text


def test_it_is_the_same_as_the_standard_librarys() -> None:
    what = {
        "cell": 3,
        "text": "γδ T cell\n\u2028",
        "genes": [("HLA-A", 0.12345), ("CD3D", 1e-05)],
        "none": None,
        "": [],
    }
    assert json.loads(json_text(what)) == json.loads(json.dumps(what))
    assert b"\n" not in json_text(what)  # which would end an event


@pytest.mark.parametrize("what", [{"n": 2**70}, {"name": "\ud800"}, {"n": [2**64, "x"]}])
def test_what_the_quick_encoder_refuses_is_written_all_the_same(what: object) -> None:
    assert json.loads(json_text(what)) == what


def test_numbers_that_do_not_exist_are_null() -> None:
    assert json_text([float("nan"), float("inf")]) == b"[null,null]"


def test_they_are_so_where_the_quick_encoder_refuses_too() -> None:
    assert json.loads(json_text({"name": "\ud800", "x": [float("nan"), (1.5, float("-inf"))]})) == {
        "name": "\ud800", "x": [None, [1.5, None]],
    }  # fmt: skip


def test_an_answer_says_what_it_is() -> None:
    answer = Json({"a": "ä"}, 201, {"Retry-After": "3"})
    assert (answer.body, answer.status_code) == ('{"a":"ä"}'.encode(), 201)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "3"
