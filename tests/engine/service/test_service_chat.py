from __future__ import annotations

from typing import Any

import anndata as ad
import pandas as pd
import pytest
from running_service import Running, assert_sentence

PATH = "/v1/chat/completions"
CELL = {"id": "c1", "genes": {"CD3D": 6, "LTB": 9, "IL7R": 5}}
TEXT = {"type": "text", "text": "Describe this cell."}


def asked(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": [TEXT, *parts]}], "max_tokens": 32} | more


def demo_part(cells: ad.AnnData, row: int = 0) -> dict[str, Any]:
    return {"type": "cell", "source": "demo", "cell_id": cells.obs_names[row]}


def content(running: Running, body: dict[str, Any]) -> str:
    found = running.post(PATH, body)
    assert found.status == 200, found.body
    return str(found.json["choices"][0]["message"]["content"])


def test_a_whole_answer_has_openais_shape(running: Running, cells: ad.AnnData, described: pd.DataFrame) -> None:
    told = running.post(PATH, asked(demo_part(cells))).json
    assert (told["object"], told["model"], told["id"][:9]) == ("chat.completion", "demo", "chatcmpl-")
    assert isinstance(told["created"], int)
    (choice,) = told["choices"]
    assert choice["index"] == 0
    assert choice["message"] == {"role": "assistant", "content": described["description"].iloc[0]}
    assert choice["finish_reason"] == described["finish_reason"].iloc[0]
    usage = told["usage"]
    assert usage["completion_tokens"] == described["num_tokens"].iloc[0]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert told["cellscribe"]["result"]["cell_id"] == cells.obs_names[0]
    assert "not read" in told["cellscribe"]["notice"]


@pytest.mark.parametrize("has_usage", [False, True])
def test_a_stream_has_openais_shape(
    running: Running, cells: ad.AnnData, described: pd.DataFrame, has_usage: bool
) -> None:
    more = {"stream_options": {"include_usage": True}} if has_usage else {}
    events = list(running.events(PATH, asked(demo_part(cells), stream=True, **more)))
    assert {name for name, _ in events} == {"data"}
    assert events[-1][1] == "[DONE]"
    chunks = [told for _, told in events[:-1]]
    assert {(one["object"], one["model"]) for one in chunks} == {("chat.completion.chunk", "demo")}
    assert len({one["id"] for one in chunks}) == 1
    if has_usage:
        assert chunks[-1]["choices"] == []
        assert chunks.pop()["usage"]["completion_tokens"] == described["num_tokens"].iloc[0]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    written = "".join(one["choices"][0]["delta"].get("content", "") for one in chunks)
    assert written.strip() == described["description"].iloc[0]
    reasons = [one["choices"][0]["finish_reason"] for one in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [described["finish_reason"].iloc[0]]


def test_a_cell_can_be_attached_in_many_ways(running: Running, cells: ad.AnnData) -> None:
    sparse = {"id": "c1", "indices": [0, 1, 2], "values": [6, 9, 5], "gene_names": ["CD3D", "LTB", "IL7R"]}
    expected = content(running, asked({"type": "cell", "cell": CELL}))
    assert content(running, asked(cell=CELL)) == expected
    assert content(running, asked({"type": "cell", "cell": sparse})) == expected
    assert content(running, asked({"type": "cell", "cell": {"genes": {"MS4A1": 9}}}, {"type": "cell", "cell": CELL}))
    picked = content(running, asked(demo_part(cells)))
    assert content(running, asked(cell={"source": "demo", "cell_id": cells.obs_names[0]})) == picked
    both = asked({"type": "cell", "cell": CELL}, demo_part(cells))
    assert content(running, both) == picked  # the last one counts


def test_what_openai_clients_send_besides_is_borne(running: Running) -> None:
    more = {
        "user": "someone", "presence_penalty": 0, "logit_bias": {}, "temperature": 1, "top_p": 1, "seed": 4, "n": 1,
        "stop": None, "response_format": {"type": "text"}, "stream_options": None, "max_completion_tokens": 4096,
    }  # fmt: skip
    one = running.post(PATH, asked({"type": "cell", "cell": CELL}, **more))
    assert one.status == 200, one.body
    drawn = {"temperature": 0.8, "top_p": 0.9, "seed": 4, "max_tokens": 32}
    describe = running.post("/v1/describe", {"cells": [CELL], "max_new_tokens": 32} | {
        key: value for key, value in drawn.items() if key != "max_tokens"
    }).json  # fmt: skip
    assert content(running, asked({"type": "cell", "cell": CELL}, **drawn)) == describe["results"][0]["text"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (asked(), 422, "no message has a cell; attach one"),
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "user", "content": "hello"}]}, 422, "no message has a cell"),
        ({"messages": [{"role": "robot", "content": "hello"}]}, 422, "messages[0].role"),
        (asked({"type": "cell"}), 422, "the cell of the messages"),
        (asked({"type": "cell", "cell": None}), 422, "the cell of the messages"),
        (asked({"type": "cell", "cell": [1]}), 422, "the cell of the messages"),
        (asked({"type": "cell", "cell": {"genes": {"CD3D": "6"}}}), 422, "the cell of the messages"),
        (asked({"type": "cell", "cell": {"genes": {"CD3D": 10**400}}}), 422, "the cell of the messages"),
        (asked({"type": "cell", "cell": {"genes": {"CD3D": 1}, "x": 1}}), 422, "extra inputs"),
        (asked({"type": "cell", "cell": {"indices": [5], "values": [1], "gene_names": ["A"]}}), 422, "gene 5"),
        (asked({"type": "cell", "cell": {"indices": [5], "values": [1], "gene_names": 7}}), 422, "the cell of the"),
        (asked({"type": "cell", "source": "demo"}), 422, "the cell of the messages"),
        (asked({"type": "cell", "source": 7, "cell_id": 8}), 422, "the cell of the messages"),
        (asked({"type": "cell", "source": "up-none", "cell_id": "a"}), 404, "there is no file 'up-none'"),
        (asked({"type": "cell", "source": "demo", "cell_id": "nobody"}), 404, "has no cell 'nobody'"),
        (asked({"type": "cell", "cell": {"genes": {}}}), 422, "the cell cannot be described: it has no counts"),
        (asked({"type": "cell", "cell": {"genes": {"NO": 1}}}), 422, "none of the 1 names"),
        (asked({"type": "cell", "cell": CELL}, model="gpt-4"), 404, "the model 'gpt-4' is not here"),
        (asked({"type": "cell", "cell": CELL}, n=2), 400, "n is 2"),
        (asked({"type": "cell", "cell": CELL, "values": "counts"}), 422, "'values', which is not read there"),
        (asked({"type": "cell", "cell": CELL, "source": "demo"}), 422, "which is not read there"),
        (asked({"type": "cell", "source": "demo", "cell_id": "a", "cell_ids": ["a"]}), 422, "'cell_ids', which"),
        (asked({"type": "cell", "cell": CELL}, top_p=0.5), 422, "no effect on greedy"),
        (asked({"type": "cell", "cell": CELL}, temperature=11), 422, "temperature"),
        (asked({"type": "cell", "cell": CELL}, max_tokens=0), 422, "max_tokens"),
        (asked({"type": "cell", "cell": CELL}, stream_options=3), 422, "stream_options"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_conversations(running: Running, body: dict[str, Any], status: int, words: str, stream: bool) -> None:
    found = running.post(PATH, body | {"stream": stream})
    assert (found.status, words in found.message) == (status, True), found.body
    assert_sentence(found.message)


def test_the_real_client_works(running: Running, cells: ad.AnnData, described: pd.DataFrame) -> None:
    openai = pytest.importorskip("openai", reason="the client of OpenAI is not installed")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none")
    body = asked(demo_part(cells))
    whole = client.chat.completions.create(**body)
    assert whole.choices[0].message.content == described["description"].iloc[0]
    parts = [one.choices[0].delta.content or "" for one in client.chat.completions.create(**body, stream=True)]
    assert "".join(parts).strip() == described["description"].iloc[0]
    assert [one.id for one in client.models.list()] == ["demo"]
    with pytest.raises(openai.NotFoundError, match="the model 'x' is not here"):
        client.chat.completions.create(**body | {"model": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop", ["\n"]), ("stop", "."), ("tools", [{"type": "function"}]), ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}), ("n", 3), ("logprobs", True), ("top_logprobs", 5),
        ("presence_penalty", 0.5), ("frequency_penalty", -1), ("logit_bias", {"50": 1}), ("functions", [{}]),
        ("modalities", ["audio"]), ("reasoning_effort", "low"), ("top_k", 5), ("max_token", 7), ("a\nb", 7),
    ],
)  # fmt: skip
def test_what_would_change_the_answer_and_is_not_supported_is_refused(running: Running, name: str, value: Any) -> None:
    found = running.post(PATH, asked({"type": "cell", "cell": CELL}, **{name: value}))
    assert (found.status, found.json["error"]["param"]) == (400, name)
    assert_sentence(found.message)


def test_options_of_a_stream_need_one(running: Running) -> None:
    found = running.post(PATH, asked({"type": "cell", "cell": CELL}, stream_options={"include_usage": True}))
    assert (found.status, found.json["error"]["param"]) == (400, "stream_options")


def test_values_that_ask_for_nothing_are_let_pass(running: Running) -> None:
    more = {
        "n": None, "stop": [], "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "top_p": 1,
        "logprobs": False, "top_logprobs": 0, "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": None,
        "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "parallel_tool_calls": False, "top_k": None,
        "temperature": 0,
    }  # fmt: skip
    cell = {"type": "cell", "cell": CELL}
    assert content(running, asked(cell, **more)) == content(running, asked(cell))
