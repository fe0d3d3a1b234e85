from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from running_service import assert_sentence

from cellscribe.engine.errors import BackendError, BundleError, InputError, OutputError, UsageError
from cellscribe.engine.service.bodies import parsed
from cellscribe.engine.service.chat_schemas import ChatBody
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.problems import RequestError, problem_of
from cellscribe.engine.service.schemas import (
    AnnotateBody,
    AnnotateFile,
    Cells,
    DescribeBody,
    DescribeFile,
    EmbedBody,
    FileOptions,
    GenerateBody,
)

BODIES: tuple[type[BaseModel], ...] = (AnnotateBody, ChatBody, DescribeBody, EmbedBody, GenerateBody)
STRICT = tuple(one for one in BODIES if one is not ChatBody)


def read(model: type[BaseModel], body: Any) -> Any:
    return model.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("model", BODIES)
def test_the_examples_are_valid(model: type[BaseModel]) -> None:
    examples = model.model_json_schema()["examples"]
    assert examples
    for one in examples:
        read(model, one)


@pytest.mark.parametrize("model", STRICT)
def test_fields_that_nobody_reads_are_refused(model: type[BaseModel]) -> None:
    (example,) = model.model_json_schema()["examples"]
    with pytest.raises(ValidationError, match="Extra inputs"):
        read(model, example | {"max_tokens": 3})


@pytest.mark.parametrize("model", BODIES)
def test_every_field_has_a_type_in_the_schema(model: type[BaseModel]) -> None:
    for name, field in model.model_json_schema()["properties"].items():
        assert {"type", "anyOf", "$ref", "enum"} & set(field), name


def test_what_is_left_out() -> None:
    body = read(DescribeBody, {"cells": [{"genes": {"A": 1}}]})
    assert (body.max_new_tokens, body.temperature, body.top_p, body.seed) == (96, 0.0, None, None)
    assert (body.top_genes, body.grid, body.stream, body.values, body.model) == (10, False, False, "auto", None)
    assert DescribeFile().values == "auto"
    assert read(GenerateBody, {}).temperature == 0.7


@pytest.mark.parametrize("value", [True, "1", None, [1], float("nan"), float("inf")])
def test_values_are_numbers(value: Any) -> None:
    for cell in ({"genes": {"A": value}}, {"indices": [0], "values": [value]}):
        with pytest.raises(ValidationError):
            read(Cells, {"cells": [cell], "gene_names": ["A"]})


@pytest.mark.parametrize("index", [-1, 1.5, "0", True])
def test_indices_are_whole_numbers_from_zero_on(index: Any) -> None:
    with pytest.raises(ValidationError):
        read(Cells, {"cells": [{"indices": [index], "values": [1]}], "gene_names": ["A", "B"]})


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_names_have_a_length(name: str) -> None:
    for body in (
        {"cells": [{"genes": {name: 1}}]}, {"cells": [{"id": name, "genes": {}}]}, {"source": name, "cell_ids": ["a"]},
        {"source": "demo", "cell_ids": [name]},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            read(Cells, body)


def test_labels_are_names_or_names_with_ids() -> None:
    cells = {"cells": [{"genes": {"A": 1}}]}
    assert read(AnnotateBody, cells | {"labels": ["B cell"]}).labels == ["B cell"]
    assert read(AnnotateBody, cells | {"labels": {"B cell": "CL:0000236", "odd": None}}).labels["odd"] is None
    assert read(AnnotateBody, cells).labels is None
    with pytest.raises(ValidationError):
        read(AnnotateBody, cells | {"labels": [7]})


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400), (b"{", 400), (b"\xff", 400), (b'{"cells": [\xc3]}', 400), (b"[" * 100_000, 400), (b"[]", 422),
        (b"null", 422), (b"7", 422), (b'"x"', 422), (b'{"cells": 1}', 422), (b'{"a\\nb": 1}', 422),
        (b'{"\\ud800": 1}', 400), (b"{'cells': 1}", 400), (b"{} {}", 400),
        (b'{"cells": [{"genes": {"A": 1e999}}]}', 422),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_said_to_be_none(raw: bytes, status: int) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(EmbedBody, raw)
    assert refused.value.status == status
    assert_sentence(refused.value.message)


@pytest.mark.parametrize(
    "name", ["cells", "genes", "body_bytes", "deadline_s", "idle_s", "uploads", "queue_cells", "files_under_way"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"the limit {name} is .*; give a number above 0."):
        ServiceLimits(**{name: value})


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InputError("it is damaged."), 422, "invalid_request_error"),
        (UsageError("it is odd."), 422, "invalid_request_error"),
        (BundleError("it has no decoder."), 404, "not_found_error"),
        (BackendError("out of memory."), 500, "server_error"),
        (OutputError("no."), 500, "server_error"),
        (KeyError("/etc/secret"), 500, "server_error"),
        (RequestError(413, "too much."), 413, "invalid_request_error"),
    ],
)
def test_errors_of_the_engine_have_a_status(error: Exception, status: int, kind: str) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.body()["error"]["type"]) == (status, kind)
    assert_sentence(problem.message)
    assert "secret" not in problem.message


def test_a_message_is_one_line_whatever_names_are_in_it() -> None:
    assert RequestError(404, "no cell 'a\nb\u2028\x1b[31m'; look.").message == "no cell 'a b [31m'; look."


CELL: dict[str, Any] = {"genes": {"A": 1}}
SPARSE: dict[str, Any] = {"indices": [0, 1], "values": [1, 2]}
PICKED: dict[str, Any] = {"source": "demo", "cell_ids": ["a"]}


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        (Cells, {"cells": [CELL], "gene_names": ["A"]}, '"gene_names" belong to cells with indices'),
        (Cells, PICKED | {"gene_names": ["A"]}, '"gene_names" belong to cells with indices'),
        (Cells, PICKED | {"values": "counts"}, '"values" belong to cells given whole'),
        (Cells, {"cells": [SPARSE | {"indices": [1, 1]}], "gene_names": ["A", "B"]}, "point at a gene twice"),
        (DescribeBody, {"cells": [CELL], "grid": True}, '"grid" is told token by token'),
        (AnnotateBody, {"cells": [CELL], "labels": ["B"], "max_new_tokens": 9}, "the model's own words"),
    ],
)
def test_what_would_mean_nothing_is_refused(model: type[BaseModel], body: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        read(model, body)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Cells, {"cells": [CELL, SPARSE], "gene_names": ["A", "B"]}),
        (Cells, PICKED | {"values": "auto", "gene_names": None}),
        (DescribeBody, {"cells": [CELL], "grid": True, "stream": True, "seed": 4}),
        (DescribeBody, {"cells": [CELL], "grid": False}),
        (AnnotateBody, {"cells": [CELL], "max_new_tokens": 9}),
        (AnnotateBody, {"cells": [CELL], "labels": ["B"], "scores": False}),
    ],
)
def test_what_asks_for_nothing_is_let_pass(model: type[BaseModel], body: Any) -> None:
    read(model, body)


@pytest.mark.parametrize("model", [DescribeFile, AnnotateFile, FileOptions])
def test_options_beside_a_file_are_those_of_the_body(model: type[BaseModel]) -> None:
    whole = {DescribeFile: DescribeBody, AnnotateFile: AnnotateBody, FileOptions: EmbedBody}[model]
    only_of_given_cells = {"cells", "gene_names", "source", "cell_ids"}
    assert model.model_fields.keys() == whole.model_fields.keys() - only_of_given_cells
