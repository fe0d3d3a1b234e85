from __future__ import annotations

import copy
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from running_service import Answer, Running, assert_sentence
from starlette.datastructures import QueryParams

from cellscribe.engine.service.bodies import from_query
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import AnnotateFile, DescribeFile

CELL = {"id": "c1", "genes": {"CD3D": 6, "LTB": 9.0}}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/describe": {
        "cells": [CELL, {"indices": [0, 1], "values": [3, 1]}], "gene_names": ["CD8A", "IL7R"], "values": "counts",
        "max_new_tokens": 1, "temperature": 0.7, "top_p": 0.9, "seed": 3, "top_genes": 2, "deadline_s": 9.5,
        "stream": False, "grid": False, "model": "demo",
    },
    "/v1/embed": {"cells": [CELL], "values": "auto", "deadline_s": 60, "model": "demo"},
    "/v1/chat/completions": {
        "model": "demo", "max_tokens": 1, "temperature": 0.5, "top_p": 0.5, "seed": 1, "stream": False,
        "messages": [{"role": "system", "content": "Be short."},
                     {"role": "user", "content": [{"type": "cell", "cell": CELL}]}],
    },
}  # fmt: skip
WRONG: dict[type, tuple[Any, ...]] = {
    str: (7, [1], {"a": 1}), int: ("x", [], {}, -7), float: ("x", [], {}, -7.5), bool: ("x", 7, []),
    list: ("x", 7, {}), dict: ("x", 7, []),
}  # fmt: skip
JUNK = b"\x89HDF\r\n\x1a\n" + b"\x00" * 200
Mutation = Callable[[dict[str, Any], random.Random], bytes]


def places(inside: Any, parts: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything in a body."""
    for key, value in inside.items() if isinstance(inside, dict) else enumerate(inside):
        yield (*parts, key)
        if isinstance(value, dict | list):
            yield from places(value, (*parts, key))


def of_another_type(body: dict[str, Any], draw: random.Random) -> bytes:
    *parts, last = draw.choice(list(places(body)))
    holder: Any = body
    for part in parts:
        holder = holder[part]
    holder[last] = draw.choice(WRONG[type(holder[last])])
    return json.dumps(body).encode()


def with_a_literal(body: dict[str, Any], draw: random.Random) -> bytes:
    text = json.dumps(body).replace('"CD3D": 6', f'"CD3D": {draw.choice(["NaN", "1e999", "-1", "-Infinity", "0x1"])}')
    return text.encode()


def cut(body: dict[str, Any], draw: random.Random) -> bytes:
    raw = json.dumps(body).encode()
    return raw[: draw.randrange(len(raw))]


def with_a_broken_byte(body: dict[str, Any], draw: random.Random) -> bytes:
    raw = json.dumps(body).encode()
    at = draw.randrange(len(raw) + 1)
    return raw[:at] + bytes([draw.choice([0, 1, 0x80, 0xC3, 0xFF])]) + raw[at:]


def with_a_strange_name(body: dict[str, Any], draw: random.Random) -> bytes:
    cell = body["cells"][0] if "cells" in body else body["messages"][1]["content"][0]["cell"]
    cell[draw.choice(["gene", "a\nb", "x" * 3_000, "__class__", "", "\u202e"])] = 1
    return json.dumps(body).encode()


def nested(body: dict[str, Any], draw: random.Random) -> bytes:
    depth = draw.choice([50, 1_000, 100_000])
    pair = draw.choice([(b"[", b"]"), (b'{"a":', b"}")])
    deep = pair[0] * depth + b"1" + pair[1] * depth
    return json.dumps(body).encode().replace(b'"demo"', deep) if draw.random() < 0.5 else deep


def noise(body: dict[str, Any], draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(400))


def numbers(body: dict[str, Any], draw: random.Random) -> bytes:
    return json.dumps(body).encode().replace(b'"CD3D": 6', b'"CD3D": -' + b"9" * draw.choice([30, 400, 5_000]))


MUTATIONS: tuple[Mutation, ...] = (
    of_another_type, of_another_type, with_a_literal, cut, with_a_broken_byte, with_a_strange_name, nested, noise,
    numbers,
)  # fmt: skip


def is_answered(running: Running) -> bool:
    found = running.post("/v1/describe", GOOD["/v1/describe"])
    return found.status == 200 and [one["status"] for one in found.json["results"]] == ["ok", "ok"]


def test_the_good_bodies_are_good(running: Running) -> None:
    for path, body in GOOD.items():
        assert running.post(path, body).status == 200, path


def test_500_malformed_bodies_are_refused_in_a_sentence(running: Running) -> None:
    draw, seen = random.Random(9), set[int]()
    paths = [*GOOD, *GOOD, "/v1/annotate", "/v1/generate"]
    for number in range(500):
        path, mutate = paths[number % len(paths)], draw.choice(MUTATIONS)
        raw = mutate(copy.deepcopy(GOOD.get(path, GOOD["/v1/embed"])), draw)
        found = running.post(path, raw)
        assert 400 <= found.status < 500, (mutate.__name__, path, raw[:300], found.body)
        told = found.json["error"]
        assert_sentence(told["message"])
        assert told["code"] == found.status
        assert set(told) == {"message", "type", "param", "code"}
        seen.add(found.status)
    assert {400, 404, 422} <= seen
    assert is_answered(running)


def test_malformed_files_are_refused_in_a_sentence(running: Running) -> None:
    draw, kind = random.Random(3), {"Content-Type": "application/x-hdf5"}
    for number in range(8):
        raw = (JUNK if number % 2 else b"") + draw.randbytes(draw.randrange(300))
        path = ("/v1/uploads", "/v1/describe?max_new_tokens=2")[number % 4 // 2]
        found = running.post(path, raw, headers=kind)
        assert found.status == 422, (path, raw[:100], found.body)
        assert_sentence(found.message)
    assert is_answered(running)
    assert running.figure("cellscribe_uploads") == 0


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/xml"])
def test_another_type_of_body_is_415(running: Running, kind: str) -> None:
    found = running.post("/v1/embed", json.dumps(GOOD["/v1/embed"]).encode(), headers={"Content-Type": kind})
    assert found.status == 415
    assert_sentence(found.message)
    assert "application/json" in found.message


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"])
def test_json_by_other_names_is_read(running: Running, kind: str) -> None:
    body = json.dumps(GOOD["/v1/embed"]).encode()
    assert running.post("/v1/embed", body, headers={"Content-Type": kind}).status == 200


def test_too_large_a_body_is_refused_before_and_while_it_comes(serving: Callable[..., Running]) -> None:
    small = serving(body_bytes=1_000)
    for body in (b" " * 1_001, iter([b" " * 600] * 5)):
        found = small.post("/v1/embed", body, headers={"Content-Type": "application/json"})
        assert found.status == 413
        assert "larger than the 1,000 bytes" in found.message
        assert_sentence(found.message)
    assert small.post("/v1/embed", GOOD["/v1/embed"]).status == 200


def test_a_claim_of_size_is_refused_without_waiting_for_it(serving: Callable[..., Running]) -> None:
    small = serving(upload_bytes=1_000)
    for path, kind in (("/v1/embed", "application/json"), ("/v1/uploads", "application/x-hdf5")):
        told = {"Content-Type": kind, "Content-Length": 10**15}
        with small.opened(path, {}, told) as sock:
            assert b"413" in sock.recv(1_000).split(b"\r\n")[0]


def test_a_client_that_falls_silent_is_408(serving: Callable[..., Running]) -> None:
    impatient = serving(idle_s=0.2)
    for path, kind in (("/v1/embed", "application/json"), ("/v1/uploads", "application/x-hdf5")):
        with impatient.opened(path, {}, {"Content-Type": kind, "Content-Length": 100}) as sock:
            began = time.monotonic()
            answer = sock.recv(2_000)
            assert 0.1 < time.monotonic() - began < 5
        assert b"408" in answer.split(b"\r\n")[0]
        assert b"nothing came for 0.2 s; send the whole body." in answer


def test_a_client_that_leaves_while_it_sends_harms_nobody(running: Running) -> None:
    for path, kind in (("/v1/embed", "application/json"), ("/v1/uploads", "application/x-hdf5")):
        sock = running.opened(path, {}, {"Content-Type": kind, "Content-Length": 10_000})
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not an orderly end
        sock.close()
    assert is_answered(running)


@pytest.mark.parametrize(
    ("body", "words", "param"),
    [
        ({"cells": [{"genes": {"CD3D": "4"}}]}, "cells[0].genes.CD3D is not as it should be", "cells[0].genes.CD3D"),
        ({"cells": [{"genes": {"A": 1}, "gens": {}}]}, "extra inputs are not permitted", "cells[0].gens"),
        ({"cells": []}, "at least 1 item", "cells"),
        ({}, 'give either "cells", or "source" with "cell_ids"', None),
        ({"source": "demo"}, '"cell_ids" are missing', None),
        ({"cells": [{}]}, "give either genes, or indices and values", "cells[0]"),
        ({"cells": [{"indices": [1], "values": []}], "gene_names": []}, "equally long", "cells[0]"),
        ({"cells": [{"indices": [1]}], "gene_names": []}, "equally long", "cells[0]"),
        ({"cells": [{"genes": {"A": 1}}], "cell_ids": ["x"]}, '"cell_ids" belong to a "source"', None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(running: Running, body: Any, words: str, param: str | None) -> None:
    found = running.post("/v1/describe", body)
    assert found.status == 422
    assert words in found.message
    assert found.json["error"]["param"] == param
    assert_sentence(found.message)


def test_more_than_one_thing_wrong_is_counted(running: Running) -> None:
    found = running.post("/v1/describe", {"cells": [{"genes": {"A": "1", "B": "2", "C": "3"}}]})
    assert "(and 2 more)." in found.message


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"max_new_tokens": 257}, 422, "less than or equal to 256"),
        ({"max_new_tokens": 0}, 422, "greater than or equal to 1"),
        ({"top_p": 0.5}, 422, "has no effect on greedy sampling"),
        ({"temperature": 0.001}, 422, "choose 0 (greedy), or a value from 0.01 to 10"),
        ({"seed": 2**63}, 422, "less than 9223372036854775808"),
        ({"model": "other"}, 404, "the model 'other' is not here; 'demo' is."),
        ({"deadline_s": 0}, 422, "greater than 0"),
    ],
)
def test_options_out_of_range(running: Running, more: dict[str, Any], status: int, words: str) -> None:
    found = running.post("/v1/describe", {"cells": [CELL]} | more)
    assert (found.status, words in found.message) == (status, True), found.body
    assert_sentence(found.message)


def test_too_many_cells_are_413(serving: Callable[..., Running]) -> None:
    few = serving(cells=2, genes=3)
    cells = [{"genes": {"CD3D": 1}} for _ in range(3)]
    for path in ("/v1/describe", "/v1/embed"):
        found: Answer = few.post(path, {"cells": cells})
        assert (found.status, found.json["error"]["param"]) == (413, "cells")
        assert few.post(path, {"source": "demo", "cell_ids": ["a", "b", "c"]}).status == 413
        found = few.post(path, {"cells": [{"genes": dict.fromkeys("ABCD", 1)}]})
        assert (found.status, found.json["error"]["param"]) == (413, "cells[0]")


def test_options_of_a_query_are_as_strict(running: Running) -> None:
    query = {"max_new_tokens": "5", "stream": "true", "top_p": "0.5", "values": "counts"}
    found = from_query(DescribeFile, QueryParams(query))
    assert (found.max_new_tokens, found.stream, found.top_p, found.values) == (5, True, 0.5, "counts")
    for query in ("max_new_tokens=x", "max_new_tokens=0", "streem=1", "values=no", "cells=1", "top_genes=1.5"):
        name, _, value = query.partition("=")
        with pytest.raises(RequestError) as refused:
            from_query(DescribeFile, QueryParams({name: value}))
        assert refused.value.status == 422
        assert refused.value.param == name
        assert_sentence(refused.value.message)


def test_an_option_of_a_query_stands_once_and_labels_as_often_as_there_are() -> None:
    found = from_query(AnnotateFile, QueryParams("labels=B cell&labels=CD4-positive, alpha-beta T cell&scores=true"))
    assert (found.labels, found.scores) == (["B cell", "CD4-positive, alpha-beta T cell"], True)
    assert from_query(AnnotateFile, QueryParams("labels=one")).labels == ["one"]
    with pytest.raises(RequestError, match="the option 'seed' stands 2 times; say it once") as refused:
        from_query(DescribeFile, QueryParams("seed=1&seed=2"))
    assert (refused.value.status, refused.value.param) == (400, "seed")
    with pytest.raises(RequestError, match="at least 1 character"):
        from_query(AnnotateFile, QueryParams("labels="))


def test_options_in_the_query_of_a_json_body_are_refused(running: Running) -> None:
    for path, body in GOOD.items():
        found = running.post(f"{path}?seed=3", body)
        assert (found.status, found.json["error"]["param"]) == (400, "seed")
        assert "put it into the body" in found.message
        assert_sentence(found.message)
