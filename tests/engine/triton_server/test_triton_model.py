from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from typing import Any

import anndata as ad
import fake_pb_utils as pb_utils
import numpy as np
import pytest
from fake_pb_utils import Request

import cellscribe as cs
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import BackendError
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.triton import RepositoryOptions, write_repository
from cellscribe.engine.types import Sampling

BACKEND = "onnxruntime-cpu"


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return ad.read_h5ad(packaged_cells())[:12].copy()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The Python model of a written repository, loaded from its file as the server does."""
    folder = tmp_path_factory.mktemp("triton") / "models"
    write_repository(open_bundle(packaged_bundle()), folder, RepositoryOptions(slots=3, max_new_tokens=64))
    sys.modules["triton_python_backend_utils"] = pb_utils  # type: ignore[assignment]
    spec = importlib.util.spec_from_file_location("triton_model_under_test", folder / "demo/1/model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    settings = {"bundle": "bundle", "backend": BACKEND, "slots": "3", "max_new_tokens": "64"}
    config = {"parameters": {name: {"string_value": value} for name, value in settings.items()}}
    made.initialize({"model_config": json.dumps(config)})
    yield made
    made.finalize()
    del sys.modules["triton_python_backend_utils"]


def asked(cells: ad.AnnData, row: int, **inputs: Any) -> Request:
    values = cells.X[row]
    dense = values.toarray().ravel() if hasattr(values, "toarray") else np.asarray(values).ravel()
    names = np.array([name.encode() for name in cells.var_names], dtype=np.object_)
    cell_id = np.array([cells.obs_names[row].encode()], dtype=np.object_)
    given = {"GENES": names, "VALUES": dense.astype(np.float32), "CELL_ID": cell_id}
    return Request(given | {name: np.array([value]) for name, value in inputs.items()})


def words(response: Any, name: str) -> list[str]:
    assert response.error is None, response.error.message
    return [one.decode() for one in response.tensors[name]]


@pytest.mark.parametrize(
    ("sampling", "inputs"),
    [
        (Sampling(), {}),
        # in 32 bits, as Triton has them
        (Sampling(0.9, 0.7, 5), {"TOP_P": np.float32(0.9), "TEMPERATURE": np.float32(0.7), "SEED": np.int64(5)}),
    ],
)
def test_texts_and_genes_are_those_of_describe(
    model: Any, cells: ad.AnnData, sampling: Sampling, inputs: dict[str, Any]
) -> None:
    requests = [asked(cells, row, **inputs) for row in range(cells.n_obs)]  # four times as many as slots
    assert model.execute(requests) is None
    frame = cs.load("demo", backend=BACKEND).describe(cells, sampling=sampling, max_new_tokens=64, copy=True)
    answers = [one.answer() for one in requests]
    assert [words(one, "TEXT")[0] for one in answers] == frame["description"].tolist()
    assert [words(one, "STATUS")[0] for one in answers] == ["ok"] * cells.n_obs
    assert np.allclose([one.tensors["LOGPROB"][0] for one in answers], frame["mean_logprob"], atol=1e-6)
    assert all(words(one, "FINISH_REASON")[0] in ("stop", "length") for one in answers)
    for answer, genes in zip(answers, frame["top_genes"], strict=True):
        assert words(answer, "TOP_GENES") == (genes.split(", ") if isinstance(genes, str) else list(genes))
        assert (np.diff(answer.tensors["TOP_GENE_WEIGHTS"]) <= 0).all()


def test_tokens_come_one_by_one_and_make_the_text(model: Any, cells: ad.AnnData) -> None:
    request = asked(cells, 0)
    model.execute([request])
    whole = request.answer()
    pieces = request.sender.responses[:-1]
    assert "".join(words(one, "TEXT")[0] for one in pieces).strip() == words(whole, "TEXT")[0]
    assert all(one.tensors["TOKEN"][0] >= 0 and words(one, "FINISH_REASON") == [""] for one in pieces)
    assert whole.tensors["TOKEN"][0] == -1
    assert len(words(pieces[0], "TOP_GENES")) == len(pieces[0].tensors["TOP_GENE_WEIGHTS"]) == 10
    mean = np.mean([one.tensors["LOGPROB"][0] for one in pieces])
    assert whole.tensors["LOGPROB"][0] == pytest.approx(mean, abs=1e-5)


def test_without_streaming_there_is_one_response(model: Any, cells: ad.AnnData) -> None:
    request = asked(cells, 0, STREAM=False)
    model.execute([request])
    request.answer()
    assert len(request.sender.responses) == 1


def test_a_text_ends_at_its_own_limit(model: Any, cells: ad.AnnData) -> None:
    requests = [asked(cells, row, MAX_NEW_TOKENS=np.int32(length)) for row, length in enumerate((1, 7, 64))]
    model.execute(requests)
    for request, length in zip(requests, (1, 7, 64), strict=True):
        answer = request.answer()
        tokens = len(request.sender.responses) - 1
        assert tokens == length or (tokens < length and words(answer, "FINISH_REASON") == ["stop"])


def test_a_client_that_left_frees_its_slot_and_others_go_on(model: Any, cells: ad.AnnData) -> None:
    gone, other = asked(cells, 0), asked(cells, 1)
    gone.sender.has_left = True
    model.execute([gone, other])
    assert words(other.answer(), "STATUS") == ["ok"]
    assert gone.answer().error.code == pb_utils.TritonError.CANCELLED
    assert len(gone.sender.responses) == 1


def test_a_client_that_leaves_meanwhile_gets_no_further_token(
    model: Any, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asked(cells, 0)
    monkeypatch.setattr(gone.sender, "is_cancelled", lambda: len(gone.sender.responses) >= 3)
    model.execute([gone])
    assert gone.answer().error.code == pb_utils.TritonError.CANCELLED
    assert len(gone.sender.responses) == 4
    after = asked(cells, 1)
    model.execute([after])
    assert words(after.answer(), "STATUS") == ["ok"]


def test_a_cell_without_counts_fails_alone(model: Any, cells: ad.AnnData) -> None:
    request, other = asked(cells, 0), asked(cells, 1)
    request.inputs["VALUES"] = np.zeros(cells.n_vars, np.float32)
    model.execute([request, other])
    assert words(request.answer(), "STATUS") == ["failed: it has no counts"]
    assert words(other.answer(), "STATUS") == ["ok"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"TEMPERATURE": np.array([99.0])}, "temperature is 99"),
        ({"TOP_P": np.array([0.0])}, "top_p is 0"),
        ({"SEED": np.array([-1])}, "seed is -1"),
        ({"MAX_NEW_TOKENS": np.array([65])}, "MAX_NEW_TOKENS is 65; choose a whole number from 1 to 64."),
        ({"MAX_NEW_TOKENS": np.array([0])}, "MAX_NEW_TOKENS is 0"),
        ({"VALUES": np.ones(3, np.float32)}, "and 3 VALUES; give as many of both"),
        ({"GENES": None, "VALUES": None}, "has 0 GENES and 0 VALUES"),
        ({"VALUES": "negative"}, "values below zero"),
        ({"VALUES": "nan"}, "NaN in cell"),
        ({"GENES": "unknown"}, "genes"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(
    model: Any, cells: ad.AnnData, inputs: dict[str, Any], words: str
) -> None:
    request = asked(cells, 0)
    odd = {
        "negative": np.full(cells.n_vars, -1, np.float32),
        "nan": np.where(np.arange(cells.n_vars) == 5, np.nan, 1).astype(np.float32),
        "unknown": np.array([b"nothing-%d" % i for i in range(cells.n_vars)], dtype=np.object_),
    }
    request.inputs |= {name: odd[one] if isinstance(one, str) else one for name, one in inputs.items()}
    model.execute([request])
    answer = request.answer()
    assert len(request.sender.responses) == 1
    assert answer.error.code == pb_utils.TritonError.INVALID_ARG
    assert words in answer.error.message
    assert "\n" not in answer.error.message


def test_a_device_that_fails_is_told_to_those_in_work_and_the_next_are_served(
    model: Any, cells: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = model._loop._backend
    encode = backend.encode

    def fails_once(batch: Any) -> Any:
        monkeypatch.setattr(backend, "encode", encode)
        raise BackendError("the device is gone; try another.")

    monkeypatch.setattr(backend, "encode", fails_once)
    first = asked(cells, 0)
    model.execute([first])
    answer = first.answer()
    assert (answer.error.code, answer.error.message) == (14, "the device is gone; try another.")
    second = asked(cells, 0)
    model.execute([second])
    assert words(second.answer(), "STATUS") == ["ok"]
