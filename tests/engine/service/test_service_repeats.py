"""Names that stand twice in one object of a body."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

import numpy as np
import pytest
from running_service import Running, assert_sentence

from cellscribe.engine.service.bodies import parsed
from cellscribe.engine.service.chat_schemas import ChatBody
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import AnnotateBody, DescribeBody, EmbedBody, Strict

CELL = '{"genes": {"CD3D": 1, "LTB": 2}}'
TALK = '"messages": [{"role": "user", "name": "me", "content": [{"type": "text", "text": "a: b, \\"c\\": d"}, %s]}]'


@pytest.mark.parametrize(
    ("model", "raw", "name"),
    [
        (EmbedBody, '{"cells": [{"genes": {"CD3D": 1, "LTB": 2, "CD3D": 1}}]}', "CD3D"),
        (EmbedBody, '{"cells": [{"genes" :{"CD3D" :1,"LTB"\n:2,"CD3D"\t:7}}]}', "CD3D"),
        (EmbedBody, '{"cells": [{"id": "a:b", "genes": {"A:\\"B\\":": 1, "A:\\"B\\":": 2}}]}', 'A:"B":'),
        (EmbedBody, '{"cells": [{"genes": {"CD3D": 1, "\\u0043D3D": 2}}]}', "CD3D"),
        (EmbedBody, f'{{"cells": [{CELL}], "cells": [{CELL}]}}', "cells"),
        (EmbedBody, f'{{"cells": [{CELL}], "values": "auto", "values": "counts"}}', "values"),
        (EmbedBody, '{"cells": [{"id": "a", "id": "b", "genes": {"A": 1}}]}', "id"),
        (DescribeBody, f'{{"cells": [{CELL}], "seed": 1, "seed": 1}}', "seed"),
        (AnnotateBody, f'{{"cells": [{CELL}], "labels": {{"B": null, "T": null, "B": "CL:0000236"}}}}', "B"),
        (ChatBody, "{" + TALK % f'{{"type": "cell", "cell": {CELL}, "cell": {CELL}}}' + "}", "cell"),
        (ChatBody, "{" + TALK % '{"type": "cell", "cell": {"genes": {"CD3D": 1, "CD3D": 2}}}' + "}", "CD3D"),
        (ChatBody, "{" + TALK % f'{{"type": "cell", "cell": {CELL}}}' + ', "user": "a", "user": "b"}', "user"),
    ],
)
def test_what_is_said_twice_is_refused(model: type[Strict], raw: str, name: str) -> None:
    with pytest.raises(RequestError, match="twice in one object") as refused:
        parsed(model, raw.encode())
    assert (refused.value.status, refused.value.param) == (400, name)
    assert repr(name) in refused.value.message
    assert_sentence(refused.value.message)


@pytest.mark.parametrize(
    ("model", "raw"),
    [
        (EmbedBody, f'{{"cells": [{CELL}, {CELL}]}}'),
        (EmbedBody, '{"cells": [{"id": "a: b: c", "genes": {"X:Y": 1, "\\":": 2, ": ": 3, "::": 4}}]}'),
        (EmbedBody, '{"cells": [{"id": " :a", "genes": {":A": 1, " :A": 2}}], "model": null, "deadline_s": null}'),
        (AnnotateBody, f'{{"cells": [{CELL}], "labels": {{"B": "CL:0000236", "T": null}}}}'),
        (AnnotateBody, f'{{"cells": [{CELL}], "labels": ["B: cell"]}}'),
        (ChatBody, "{" + TALK % f'{{"type": "cell", "cell": {CELL}}}' + ', "metadata": {"a": [{"a": {}}, []]}}'),
        (ChatBody, "{" + TALK % f'{{"type": "cell", "cell": {CELL}}}' + ', "metadata": ' + "9" * 4_000 + "}"),
    ],
)
def test_what_is_said_once_is_read(model: type[Strict], raw: str) -> None:
    parsed(model, raw.encode())


def test_the_service_answers_400(running: Running) -> None:
    for path in ("/v1/describe", "/v1/embed"):
        found = running.post(path, b'{"cells": [{"genes": {"CD3D": 1, "CD3D": 200}}]}')
        assert (found.status, "'CD3D' twice" in found.message) == (400, True), found.body


def test_looking_for_names_twice_takes_little_of_the_reading() -> None:
    rng = np.random.default_rng(1)
    genes = {f"GENE{i}": int(count) for i, count in enumerate(rng.integers(1, 90, 1_500))}
    raw = json.dumps({"cells": [{"id": "c1", "genes": genes}]}).encode()

    def seconds(work: Any) -> float:
        took = []
        for _ in range(60):
            began = time.perf_counter()
            work(raw)
            took.append(time.perf_counter() - began)
        return median(took)

    whole = min(seconds(lambda one: parsed(DescribeBody, one)) for _ in range(3))
    bare = min(seconds(DescribeBody.model_validate_json) for _ in range(3))
    assert whole < 1.5 * bare  # 1.05 on a quiet machine
